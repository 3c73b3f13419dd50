"""The findings as tidy CSV files: one row per number that has an interval."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emollm.study.estimates import Estimate
from emollm.study.found import Findings

EXAMPLES = 2
"""Posts of a label in a group and period."""
_ESTIMATES = (
    "view", "group", "period", "question", "label", "posts", "value", "low", "high", "corrected", "corrected_low",
    "corrected_high", "method",
)  # fmt: skip


def write_tables(folder: Path, found: Findings) -> None:
    """estimates, differences and volume; words and examples unless without texts; beside where there are lexicons."""
    _write(folder / "estimates.csv", _ESTIMATES, _estimates(found))
    _write(folder / "differences.csv", _DIFFERENCES, _differences(found))
    _write(folder / "volume.csv", ("group", "period", "posts"), _volume(found))
    if found.words:
        _write(folder / "words.csv", ("with", "name", "word", "z", "log_odds", "posts", "posts_other"), _words(found))
    if found.config.texts and found.sample is not None:
        _write(folder / "examples.csv", ("group", "period", "question", "label", "id", "text"), _examples(found))
    if found.agreements:
        names = ("lexicon", "question", "correlation", "compared", "same_sign", "same_verdict")
        _write(folder / "beside.csv", names, ([getattr(a, name) for name in names] for a in found.agreements))


def _estimates(found: Findings) -> Iterator[Sequence[Any]]:
    groups, periods = found.layout.groups, found.layout.period_names
    views: list[tuple[str, str, str, list[Estimate]]] = [("all", "", "", found.whole)]
    views += [("group", g, "", row) for g, row in zip(groups, found.by_group, strict=False)]
    views += [("period", "", p, row) for p, row in zip(periods, found.by_period, strict=False)]
    cells = [(g, p) for g in groups for p in periods]
    views += [("group x period", g, p, row) for (g, p), row in zip(cells, found.by_cell, strict=False)]
    for view, group, period, row in views:
        for measure, one in zip(found.measures, row, strict=True):
            corrected = not math.isnan(one.corrected)
            yield (
                view, group, period, measure.question, measure.label or "", one.posts, one.value, one.low, one.high,
                one.corrected, one.corrected_low, one.corrected_high, found.method if corrected else "",
            )  # fmt: skip


_DIFFERENCES = (
    "first", "second", "question", "label", "first_posts", "second_posts", "first_value", "second_value", "difference",
    "low", "high", "effect", "p_value", "p_holm", "corrected", "raw_difference", "bias", "holds", "within_bias",
)  # fmt: skip


def _differences(found: Findings) -> Iterator[Sequence[Any]]:
    for one in found.differences:
        named = {"question": one.measure.question, "label": one.measure.label or ""}
        yield [named[name] if name in named else getattr(one, name) for name in _DIFFERENCES]


def _volume(found: Findings) -> Iterator[Sequence[Any]]:
    for group, counts in zip(found.layout.groups, found.volume.tolist(), strict=True):
        yield from ((group, period, n) for period, n in zip(found.layout.period_names, counts, strict=True))


def _words(found: Findings) -> Iterator[Sequence[Any]]:
    for (kind, name), words in found.words.items():
        yield from ((kind, name, w.word, w.z, w.log_odds, w.posts, w.posts_other) for w in words)


def _examples(found: Findings) -> Iterator[Sequence[Any]]:
    """Of each label in each group and period the first of the sample, whose order is random."""
    sample, groups = found.sample, found.layout.groups
    assert sample is not None
    periods = [*(found.layout.period_names or [""]), ""]
    cells = sample.group_N * len(periods) + sample.period_N
    for m, measure in enumerate(found.measures):
        if not measure.is_share:
            continue
        places = np.flatnonzero(sample.values_NM[:, m] == 1)
        order = np.argsort(cells[places], kind="stable")
        for _, mine in itertools.groupby(places[order].tolist(), key=lambda i: int(cells[i])):
            for i in itertools.islice(mine, EXAMPLES):
                group, period = groups[sample.group_N[i]], periods[sample.period_N[i]]
                yield group, period, measure.question, measure.label, sample.ids[i], sample.texts[i]


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    """Empty where there is no number; a name that a spreadsheet would run as a formula gets a quote before it."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@"):
        return f"'{value}"
    return value

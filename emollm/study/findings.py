"""An annotated corpus read once, in batches, and all that a report says of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emollm.core.errors import DataError
from emollm.core.tasks import fold_name
from emollm.study.beside import Beside
from emollm.study.cells import Buckets, Cube, Sums
from emollm.study.correction import Method
from emollm.study.differences import Difference, Side, differences, pairs_of_groups
from emollm.study.estimates import Estimator, Labels
from emollm.study.found import Findings
from emollm.study.labelled import LabelledRows
from emollm.study.layout import as_names, find_layout
from emollm.study.notes import notes
from emollm.study.options import ReportConfig
from emollm.study.sample import Sample, SampledPosts
from emollm.study.source import Source, find_questions, read_values
from emollm.study.taxonomy import choose_maps, with_maps
from emollm.study.words import Word, WordCounts

Polarity = Callable[[str], float]


def find(
    config: ReportConfig,
    *,
    lexicons: Mapping[str, Polarity] | None = None,
    on_posts: Callable[[int, int], None] = lambda _new, _total: None,
) -> Findings:
    """Raises ConfigError or DataError naming the column, value or file that does not fit."""
    return _Study(config, dict(lexicons or {})).run(on_posts)


class _Study:
    def __init__(self, config: ReportConfig, lexicons: dict[str, Polarity]) -> None:
        self.config = config
        self.source = Source(config.output)
        self.maps = choose_maps(config.taxonomy)
        for column, option in ((config.author, "--author"), ("text" if lexicons else None, "--beside")):
            if column:
                self.source.check_column(column, option)
        self.bias = read_bias(config)
        schema = with_maps(self.source.schema.empty_table(), self.maps).schema
        self.questions = find_questions(schema, self.source.about, [one.column for one in self.maps])
        self.beside = Beside(lexicons, self.questions)
        self.questions += self.beside.columns
        self.measures = [m for q in self.questions for m in q.measures]
        known = dict.fromkeys(name for m in self.measures for name in (m.question, m.name))
        if unknown := [name for name in config.answers if name not in known]:
            raise DataError(
                f"--answers {unknown[0]!r} is no answer of {config.output}; choose from: {', '.join(known)}"
            )
        self.labelled = LabelledRows(config.labelled, self.questions) if config.labelled else None
        self.layout = find_layout(self.source, config)
        self.cube = Cube(len(self.layout.groups), self.layout.slots, self.questions)
        self.buckets = Buckets(self.cube.buckets)
        self.sample = Sample(config.sample_posts, config.seed)
        self.failed = 0

    def run(self, on_posts: Callable[[int, int], None]) -> Findings:
        total = self.source.rows
        for batch in self.source.batches(self._columns()):
            self._add(batch)
            on_posts(batch.num_rows, total)
        if self.labelled and not self.labelled.found:
            raise DataError(
                f"--labelled {self.config.labelled}: none of its {self.labelled.count:,} ids is in "
                f"{self.config.output}; label rows of this corpus, or "
                "annotate these as well, with their gold columns carried along"
            )
        return self._findings()

    def _columns(self) -> list[str]:
        more = [name for name in (self.config.over, self.config.author) if name]
        names = ["id", "text", *self.config.by, *more]
        for question in self.questions:
            names += [question.name, f"{question.name}_probabilities"]
        names += [f"{fold_name(one.source)}_probabilities" for one in self.maps]
        return [name for name in dict.fromkeys(names) if name in self.source.schema.names]

    def _add(self, batch: Any) -> None:
        counts, group_N, period_N = self.layout.places(batch)
        if not counts.all():
            batch = batch.filter(pa.array(counts))
            group_N, period_N = group_N[counts], period_N[counts]
        if not batch.num_rows:
            return
        batch = self.beside.add(with_maps(batch, self.maps))
        values = read_values(batch, self.questions)
        cells = group_N * self.layout.slots + period_N
        authors = as_names(batch.column(self.config.author)) if self.config.author else None
        self.cube.add(cells, self.buckets.places(batch.num_rows, authors), values)
        self.beside.look(values)
        self.failed += int((~values.valid_NQ[:, : len(self.questions) - len(self.beside.columns)].any(axis=1)).sum())
        nothing = pa.nulls(batch.num_rows, pa.string())
        texts, ids = (batch.column(c) if c in batch.schema.names else nothing for c in ("text", "id"))
        if self.labelled:
            self.labelled.look(ids, values, cells)
        valid_NM = np.repeat(values.valid_NQ, [len(q.measures) for q in self.questions], axis=1)
        self.sample.add(texts, ids, group_N, period_N, np.where(valid_NM, values.values_NM, np.nan))

    def _method(self) -> Method | None:
        if self.labelled is None or self.config.correct == "none":
            return None
        if self.config.correct == "auto":
            return "pacc" if self.labelled.is_annotated else "ppi"
        if self.config.correct == "ppi" and self.labelled.is_annotated:
            raise DataError(
                "--correct ppi needs labelled rows drawn from this corpus, joined by id; these are another's: use pacc"
            )
        return self.config.correct

    def _findings(self) -> Findings:
        layout, method = self.layout, self._method()
        labels = Labels(method, self.labelled.measures()) if method and self.labelled else None
        authors = self.buckets.authors + self.buckets.without_author if self.config.author else None
        estimator = Estimator(
            self.measures, self.cube.buckets, resamples=self.config.resamples, seed=self.config.seed, labels=labels,
            posts_per_author=layout.posts / authors if authors else 1.0,
        )  # fmt: skip
        slots, periods = layout.slots, len(layout.period_names)
        by_group, by_cell = self.cube.by_group(), self.cube.by_cell()
        in_groups = _in_view(estimator, lambda cells: np.where(cells < 0, -1, cells // slots))
        in_periods = _in_view(estimator, lambda cells: np.where(cells < 0, -1, cells % slots))
        sample = self.sample.posts()
        shown_cells = [g * slots + p for g in range(len(layout.groups)) for p in range(periods)]
        compared = self._compared(in_groups, in_periods, by_group)
        found = Findings(
            config=self.config, about=self.source.about, layout=layout, questions=self.questions,
            measures=self.measures, posts=layout.posts, failed=self.failed, authors=authors, method=method,
            labelled=self.labelled.found if self.labelled else 0,
            whole=estimator.estimates(by_group.total())[0],
            by_group=in_groups.estimates(by_group, np.arange(len(layout.groups))) if self.config.by else [],
            by_period=in_periods.estimates(self.cube.by_period(), np.arange(slots))[:periods],
            by_cell=estimator.estimates(_some(by_cell, shown_cells), np.array(shown_cells))
            if self.config.by and periods else [],
            volume=by_cell.rows_CK.sum(axis=1).reshape(len(layout.groups), slots)[:, :periods].astype(np.int64),
            differences=compared, words=self._words(sample) if self.config.texts else {}, sample=sample,
            agreements=self.beside.agreements(compared),
        )  # fmt: skip
        found.notes = list(
            notes(
                found,
                without_author=self.buckets.without_author,
                labelled_given=self.labelled.count if self.labelled else 0,
                refusals={**estimator.refusals, **in_groups.refusals},
            )
        )
        return found

    def _compared(self, in_groups: Estimator, in_periods: Estimator, by_group: Sums) -> list[Difference]:
        chosen = self.config.compare
        if chosen and chosen[0] in self.layout.period_names and chosen[1] in self.layout.period_names:
            sums, names = self.cube.by_period(), self.layout.period_names
            first, second = (_side(name, sums, names.index(name)) for name in chosen)
            return differences([(first, second)], in_periods, self.bias, self.config.answers)
        if not self.config.by:
            return []
        pairs = pairs_of_groups(self.layout.groups, by_group, chosen)
        return differences(pairs, in_groups, self.bias, self.config.answers)

    def _words(self, sample: SampledPosts | None) -> dict[tuple[str, str], list[Word]]:
        if sample is None:
            return {}
        counts, found = WordCounts(sample.texts), {}
        for m, measure in enumerate(self.measures):
            with np.errstate(invalid="ignore"):
                if measure.is_share:
                    sides = {"label": (sample.values_NM[:, m] == 1, sample.values_NM[:, m] == 0)}
                elif (known := sample.values_NM[~np.isnan(sample.values_NM[:, m]), m]).size:
                    low, high = np.quantile(known, [0.25, 0.75])
                    bottom, top = sample.values_NM[:, m] <= low, sample.values_NM[:, m] >= high
                    sides = {"high": (top & ~bottom, bottom), "low": (bottom, top & ~bottom)}
                else:
                    sides = {}
            for kind, (side, other) in sides.items():
                found[kind, measure.name] = counts.telling(side, other)
        for g, name in enumerate(self.layout.groups if self.config.by else []):
            mine = sample.group_N == g
            found["group", name] = counts.telling(mine, ~mine)
        return {key: words for key, words in found.items() if words}


def _side(name: str, sums: Sums, place: int) -> Side:
    return name, sums.cell(place), place


def _some(sums: Sums, cells: Sequence[int]) -> Sums:
    return Sums(*(getattr(sums, name)[list(cells)] for name in Sums.__slots__))


def _in_view(estimator: Estimator, place: Callable[[NDArray[np.intp]], NDArray[np.intp]]) -> Estimator:
    """The same draws, with labelled rows placed in other cells."""
    view = copy.copy(estimator)
    view.refusals = {}
    if estimator.labels:
        moved = {name: replace(m, cell_L=place(m.cell_L)) for name, m in estimator.labels.measures.items()}
        view.labels = replace(estimator.labels, measures=moved)
    return view


def read_bias(config: ReportConfig) -> dict[str, float]:
    """The largest difference of each question's column that `emollm audit` found, in 0..1 of its range."""
    if config.audit is None:
        return {}
    try:
        rows = json.loads((config.audit / "audit.json").read_text(encoding="utf-8"))
        found: dict[str, float] = {}
        for row in rows:
            name = fold_name(row["question"])
            found[name] = max(found.get(name, 0.0), abs(float(row["difference"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"--audit {config.audit} holds no audit.json that can be read ({type(error).__name__}); name the folder "
            "that emollm audit --out wrote"
        ) from None
    return found

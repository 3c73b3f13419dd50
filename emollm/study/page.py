"""report.html: the findings as one page, laid out by `reports/templates/study.html`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from emollm.reports.page import render
from emollm.reports.timelines import Point, calendar, dots, line
from emollm.study.differences import ALPHA, Difference
from emollm.study.estimates import Estimate
from emollm.study.found import Findings
from emollm.study.source import Measure
from emollm.study.tables import EXAMPLES

_GROUPS_SHOWN = 12
"""Of group by period, and of examples."""
_CALENDARS = 12
_CHARACTERS = 280


class Panel(NamedTuple):
    name: str
    note: str
    chart: Markup


def page(found: Findings) -> str:
    """The whole page. With `texts` it holds posts, and goes where the corpus may go and nowhere else."""
    config, periods = found.config, found.layout.periods
    return render(
        "study.html",
        title=f"What {found.posts:,} posts say",
        made=" · ".join(_made(found)),
        holds_texts=config.texts and found.sample is not None,
        figures=list(_tiles(found)),
        notes=found.notes,
        whole=list(_whole(found)),
        groups=[_group_panel(found, m) for m in range(len(found.measures))] if found.by_group else [],
        by=", ".join(config.by),
        differences=[_difference(d) for d in found.differences if d.holds],
        others=[_difference(d) for d in found.differences if not d.holds],
        looked=len(found.differences),
        alpha=ALPHA,
        periods=[_period_panel(found, m) for m in range(len(found.measures))] if found.by_period else [],
        unit=periods.unit if periods else "",
        calendars=list(_calendars(found)) if periods and periods.unit == "day" else [],
        cells=list(_cells(found)) if found.by_cell else [],
        words=[(_with_words(kind, name), words) for (kind, name), words in found.words.items()],
        examples=list(_examples(found)) if config.texts else [],
        agreements=found.agreements,
        method=found.method,
        labelled=found.labelled,
        resamples=config.resamples,
        authors=config.author,
        sampled=len(found.sample.texts) if found.sample else 0,
    )


def _made(found: Findings) -> Iterator[str]:
    if tasks := found.about.get("tasks"):
        yield ", ".join(tasks)
    for name in ("engine", "model"):
        if name in found.about:
            yield f"{name} {found.about[name]}"
    if found.config.over:
        yield f"times in {found.config.timezone}"


def _tiles(found: Findings) -> Iterator[tuple[str, str]]:
    yield f"{found.posts:,}", "posts"
    if found.authors is not None:
        yield f"{found.authors:,}", "authors"
    if found.config.by:
        yield f"{len(found.layout.sizes):,}", "groups"
    if periods := found.layout.periods:
        empty = int((found.volume.sum(axis=0) == 0).sum())
        unit = periods.unit if periods.count == 1 else f"{periods.unit}s"
        yield f"{periods.count:,}", f"{unit}, {empty:,} without posts" if empty else unit
    if found.method:
        yield f"{found.labelled:,}", "labelled rows"


def told(measure: Measure, one: Estimate) -> str:
    """A value with its interval and posts, in a few words."""
    if math.isnan(one.value):
        return "no answers"
    parts = [f"{figure(measure, one.value)} {_ends(measure, one.low, one.high)}, {one.posts:,} posts"]
    if not math.isnan(one.corrected):
        ends = _ends(measure, one.corrected_low, one.corrected_high)
        parts.insert(0, f"corrected {figure(measure, one.corrected)} {ends}; as the model says")
    return " ".join(parts)


def _ends(measure: Measure, low: float, high: float) -> str:
    return "(no interval)" if math.isnan(low) else f"({figure(measure, low)} to {figure(measure, high)})"


def figure(measure: Measure, value: float) -> str:
    """`12.3%`, `0.456`; a dash where there is none."""
    if math.isnan(value):
        return "–"
    return f"{value:.1%}" if measure.is_share else f"{value:.3f}"


def _point(name: str, measure: Measure, one: Estimate) -> Point:
    if math.isnan(one.corrected):
        return Point(name, one.value, one.low, one.high, f"{name}: {told(measure, one)}")
    ends = one.corrected, one.corrected_low, one.corrected_high
    return Point(name, *ends, f"{name}: {told(measure, one)}", before=one.value)


def _whole(found: Findings) -> Iterator[Panel]:
    """A panel per question with labels, and one for all numbers of a range."""
    by_range: dict[tuple[float, float], list[Point]] = {}
    for question in found.questions:
        mine = [(m, one) for m, one in zip(found.measures, found.whole, strict=True) if m.question == question.name]
        if question.kind == "number":
            measure, one = mine[0]
            by_range.setdefault((question.low, question.high), []).append(_point(question.name, measure, one))
        else:
            ordered = sorted(mine, key=lambda pair: -(np.nan_to_num(pair[1].value)))
            points = [_point(m.label or "", m, one) for m, one in ordered]
            yield Panel(question.name, f"{mine[0][1].posts:,} posts", dots(points, low=0, high=1, as_share=True))
    for (low, high), points in by_range.items():
        yield Panel("means", f"range {low:g} to {high:g}", dots(points, low=low, high=high, as_share=False))


def _group_panel(found: Findings, m: int) -> Panel:
    measure = found.measures[m]
    rows = zip(found.layout.groups, found.by_group, strict=True)
    points = [_point(name, measure, row[m]) for name, row in rows]
    kept = [p for p, row in zip(points, found.by_group, strict=True) if row[m].posts]
    chart = dots(kept or points[:1], low=measure.low, high=measure.high, as_share=measure.is_share)
    return Panel(measure.name, "", chart)


def _line(found: Findings, m: int, rows: Sequence[Sequence[Estimate]]) -> Markup:
    measure = found.measures[m]
    points = [_point(name, measure, row[m]) for name, row in zip(found.layout.period_names, rows, strict=True)]
    return line(points, low=measure.low, high=measure.high, as_share=measure.is_share)


def _period_panel(found: Findings, m: int) -> Panel:
    return Panel(found.measures[m].name, "", _line(found, m, found.by_period))


def _cells(found: Findings) -> Iterator[tuple[str, list[Panel]]]:
    """Of each measure, a panel per group with its line over time."""
    periods = len(found.layout.period_names)
    if periods < 2:
        return
    for m, measure in enumerate(found.measures):
        panels = []
        for g, name in enumerate(found.layout.groups[:_GROUPS_SHOWN]):
            rows = found.by_cell[g * periods : (g + 1) * periods]
            panels.append(Panel(name, f"{sum(row[m].posts for row in rows):,} posts", _line(found, m, rows)))
        yield measure.name, panels


def _calendars(found: Findings) -> Iterator[Panel]:
    days = found.layout.period_names
    counts = found.volume.sum(axis=0)
    known = [float(n) if n else math.nan for n in counts]
    yield Panel("posts", "per day", calendar(days, known, [f"{n:,} posts" for n in counts.tolist()]))
    for m, measure in enumerate(found.measures[:_CALENDARS]):
        mine = [row[m] for row in found.by_period]
        values = [one.value if math.isnan(one.corrected) else one.corrected for one in mine]
        yield Panel(measure.name, "", calendar(days, values, [told(measure, one) for one in mine]))


def _difference(one: Difference) -> dict[str, Any]:
    measure = one.measure
    scale = 100 if measure.is_share else 1

    def signed(value: float) -> str:
        return "–" if math.isnan(value) else f"{value * scale:+.1f}" if measure.is_share else f"{value:+.3f}"

    return {
        "measure": measure.name, "first": one.first, "second": one.second,
        "first_value": figure(measure, one.first_value), "second_value": figure(measure, one.second_value),
        "difference": signed(one.difference), "ends": f"{signed(one.low)} to {signed(one.high)}",
        "unit": "points" if measure.is_share else "", "effect": "–" if math.isnan(one.effect) else f"{one.effect:+.2f}",
        "p": _p_value(one.p_holm), "bias": "yes" if one.within_bias else "–" if math.isnan(one.bias) else "no",
    }  # fmt: skip


def _p_value(p: float) -> str:
    return "–" if math.isnan(p) else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _with_words(kind: str, name: str) -> str:
    return {
        "label": name,
        "group": f"group {name}",
        "high": f"{name}, highest quarter",
        "low": f"{name}, lowest quarter",
    }[kind]


def _examples(found: Findings) -> Iterator[tuple[str, list[tuple[str, list[tuple[str, str]]]]]]:
    """Of each group and label, posts drawn at random among those that have it."""
    sample = found.sample
    if sample is None:
        return
    for g, group in enumerate(found.layout.groups[:_GROUPS_SHOWN]):
        inside = sample.group_N == g
        per_label = []
        for m, measure in enumerate(found.measures):
            if not measure.is_share:
                continue
            with np.errstate(invalid="ignore"):
                places = np.flatnonzero(inside & (sample.values_NM[:, m] == 1))[:EXAMPLES]
            if len(places):
                posts = [(sample.ids[i], sample.texts[i][:_CHARACTERS]) for i in places.tolist()]
                per_label.append((measure.name, posts))
        if per_label:
            yield group, per_label

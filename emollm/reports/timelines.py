"""Charts of groups and periods as inline SVG, beside those of `charts`: intervals, lines over time, a calendar."""

from __future__ import annotations

import datetime as dt
import html
import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup


class Point(NamedTuple):
    """A value with its interval; NaN where there is none."""

    name: str
    value: float
    low: float
    high: float
    note: str
    """What it says when pointed at."""
    before: float = math.nan
    """The value before it was corrected: a ring beside the dot."""


def dots(points: Sequence[Point], *, low: float, high: float, as_share: bool, width: int = 340) -> Markup:
    """One line per point: its name, its interval, a dot at its value and the value in figures."""
    left, right, row = 112, 44, 17
    low, high = _range(points, low, high)
    bottom = len(points) * row + 2

    def x_of(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (width - left - right)

    parts = [f'<line class="grid" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom}"/>' for x in (x_of(low), x_of(high))]
    for i, one in enumerate(points):
        y = i * row + row / 2
        parts.append(f'<text class="name" x="{left - 8}" y="{y + 3:.1f}">{_text(_short(one.name, 20))}</text>')
        if not math.isnan(one.low):
            x, end = x_of(one.low), x_of(one.high)
            parts.append(
                f'<rect class="s0 band" x="{x:.1f}" y="{y - 3:.1f}" width="{max(end - x, 1):.1f}" height="6"/>'
            )
        if not math.isnan(one.before):
            parts.append(f'<circle class="ring" cx="{x_of(one.before):.1f}" cy="{y:.1f}" r="3"/>')
        if not math.isnan(one.value):
            parts.append(
                f'<circle class="s0" cx="{x_of(one.value):.1f}" cy="{y:.1f}" r="3.5"><title>{_text(one.note)}</title>'
                f'</circle><text x="{width - right + 6}" y="{y + 3:.1f}">{_figure(one.value, as_share)}</text>'
            )
    for value, anchor in ((low, "start"), (high, "end")):
        parts.append(_label(x_of(value), bottom + 10, anchor, _figure(value, as_share)))
    return _svg(width, bottom + 13, parts, f"{len(points)} values with their 95% intervals")


def line(
    points: Sequence[Point], *, low: float, high: float, as_share: bool, width: int = 300, height: int = 84
) -> Markup:
    """Values over neighbouring periods with a band for their intervals; a gap where there is no value."""
    left, above = 30, 6
    step = (width - left - 8) / max(len(points) - 1, 1)
    low, high = _range(points, low, high)

    def x_of(i: int) -> float:
        return left + 4 + i * step

    def y_of(value: float) -> float:
        return above + (high - min(max(value, low), high)) / (high - low) * height

    parts = []
    for tick in (low, (low + high) / 2, high):
        parts.append(f'<line class="grid" x1="{left}" y1="{y_of(tick):.1f}" x2="{width}" y2="{y_of(tick):.1f}"/>')
        parts.append(f'<text class="scale" x="{left - 4}" y="{y_of(tick) + 3:.1f}">{_figure(tick, as_share)}</text>')
    for run in _runs([not math.isnan(p.low) for p in points]):
        if len(run) > 1:
            edge = [f"{x_of(i):.1f},{y_of(points[i].high):.1f}" for i in run]
            edge += [f"{x_of(i):.1f},{y_of(points[i].low):.1f}" for i in reversed(run)]
            parts.append(f'<polygon class="s0 band" points="{" ".join(edge)}"/>')
        else:
            x, top, end = x_of(run[0]), y_of(points[run[0]].high), y_of(points[run[0]].low)
            parts.append(f'<rect class="s0 band" x="{x - 2:.1f}" y="{top:.1f}" width="4" height="{end - top:.1f}"/>')
    for run in _runs([not math.isnan(p.value) for p in points]):
        path = " ".join(f"{x_of(i):.1f},{y_of(points[i].value):.1f}" for i in run)
        parts.append(f'<polyline class="path" points="{path}"/>')
    radius = 2.2 if len(points) <= 60 else 1.2
    for i, one in enumerate(points):
        if not math.isnan(one.value):
            parts.append(
                f'<circle class="s0" cx="{x_of(i):.1f}" cy="{y_of(one.value):.1f}" r="{radius}">'
                f"<title>{_text(one.note)}</title></circle>"
            )
    ends = [(0, "start"), (len(points) - 1, "end")] if len(points) > 1 else [(0, "start")]
    for i, anchor in ends:
        parts.append(_label(x_of(i), above + height + 12, anchor, points[i].name))
    return _svg(width, above + height + 16, parts, f"{len(points)} periods")


def calendar(days: Sequence[str], values: Sequence[float], notes: Sequence[str]) -> Markup:
    """A square per day, a column per week, a row per weekday from Monday; the stronger, the higher. NaN is empty."""
    side, left, above = 12, 22, 14
    known = [value for value in values if not math.isnan(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    first = dt.date.fromisoformat(days[0])
    monday = first - dt.timedelta(days=first.weekday())
    parts = [
        f'<text class="scale" x="{left - 4}" y="{above + (i + 1) * side - 3}">{name}</text>'
        for i, name in ((0, "Mo"), (2, "We"), (4, "Fr"))
    ]
    for day, value, note in zip(days, values, notes, strict=True):
        date = dt.date.fromisoformat(day)
        week, weekday = divmod((date - monday).days, 7)
        x, y = left + week * side, above + weekday * side
        if date.day == 1 or day == days[0]:
            parts.append(f'<text x="{x}" y="{above - 4}">{date:%b}</text>')
        if math.isnan(value):
            parts.append(f'<rect class="empty" x="{x}" y="{y}" width="{side - 2}" height="{side - 2}" rx="2"/>')
            continue
        strength = 0.12 + 0.88 * ((value - low) / (high - low) if high > low else 1.0)
        parts.append(
            f'<rect class="s0" x="{x}" y="{y}" width="{side - 2}" height="{side - 2}" rx="2" '
            f'fill-opacity="{strength:.2f}"><title>{_text(day)}: {_text(note)}</title></rect>'
        )
    weeks = ((dt.date.fromisoformat(days[-1]) - monday).days) // 7 + 1
    width = left + weeks * side
    svg = f'<svg viewBox="0 0 {width} {above + 7 * side}" style="width:{width * 1.4:.0f}px" role="img"'
    return Markup(f'{svg} aria-label="calendar of {len(days)} days">{"".join(parts)}</svg>')


def _range(points: Sequence[Point], low: float, high: float) -> tuple[float, float]:
    """The part of low..high that the intervals need, with a little room."""
    known = [v for p in points for v in (p.value, p.low, p.high, p.before) if not math.isnan(v)]
    if not known:
        return low, high
    room = 0.08 * (max(known) - min(known)) or 0.05 * (high - low)
    return max(low, min(known) - room), min(high, max(known) + room)


def _runs(present: Sequence[bool]) -> list[list[int]]:
    """Neighbouring places that are present."""
    runs: list[list[int]] = []
    for i, here in enumerate(present):
        if here and i and present[i - 1]:
            runs[-1].append(i)
        elif here:
            runs.append([i])
    return runs


def _figure(value: float, as_share: bool) -> str:
    if as_share:
        return f"{value:.0%}" if value >= 0.0995 or value == 0 else f"{value:.1%}"
    return f"{value:.2f}"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _label(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" style="text-anchor:{anchor}">{_text(text)}</text>'


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> Markup:
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{_text(label)}">{"".join(parts)}</svg>')


def _text(text: str) -> str:
    return html.escape(text)

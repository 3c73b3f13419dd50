"""Charts as inline SVG for every report: no library, no script, equal bytes for equal numbers.

They take the colours of the page, light or dark.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from markupsafe import Markup


class Series(NamedTuple):
    name: str
    values: Sequence[float]
    """One per bar, as shares 0..1."""
    notes: Sequence[str]
    """What a bar says when pointed at."""

    @classmethod
    def of(cls, name: str, counts: Sequence[int], total: int) -> Series:
        """Counts as shares of `total`."""
        shares = [n / total if total else 0.0 for n in counts]
        return cls(name, shares, [f"{n:,} ({share:.1%})" for n, share in zip(counts, shares, strict=True)])


def columns(labels: Sequence[str], series: Sequence[Series], *, width: int = 260, height: int = 110) -> Markup:
    """Upright bars, one group per label and one bar per series, over a common scale of shares."""
    top = _top(series)
    left, above = 26, 6
    slot = (width - left) / max(len(labels), 1)
    bar = slot * 0.84 / max(len(series), 1)

    def y_of(share: float) -> float:
        return above + height - share / top * height

    parts = []
    for line in _grid(top):
        parts.append(f'<line class="grid" x1="{left}" y1="{y_of(line):.1f}" x2="{width}" y2="{y_of(line):.1f}"/>')
        parts.append(f'<text class="scale" x="{left - 5}" y="{y_of(line) + 3:.1f}">{line:.0%}</text>')
    for i, label in enumerate(labels):
        for s, one in enumerate(series):
            x = left + i * slot + slot * 0.08 + s * bar
            y = y_of(one.values[i])
            parts.append(
                f'<rect class="s{s}" x="{x:.1f}" y="{y:.1f}" width="{max(bar - 0.8, 0.8):.1f}" '
                f'height="{above + height - y:.1f}" rx="1">{_hint(one, label, i)}</rect>'
            )
        parts.append(
            f'<text class="tick" x="{left + (i + 0.5) * slot:.1f}" y="{above + height + 12}">{_text(label)}</text>'
        )
    return _svg(width, above + height + 16, parts)


def bars(labels: Sequence[str], series: Sequence[Series], *, width: int = 400, label_width: int = 128) -> Markup:
    """Lying bars with the first series' share beside them: for labels that are words, or many."""
    top = _top(series)
    room = width - label_width - 34
    thick = 6 if len(series) > 1 else 10
    slot = thick * len(series) + 6
    parts: list[str] = []
    for i, label in enumerate(labels):
        y = i * slot + 2
        middle = y + thick * len(series) / 2 + 3
        parts.append(f'<text class="name" x="{label_width - 6}" y="{middle:.1f}">{_text(label)}</text>')
        for s, one in enumerate(series):
            long = max(one.values[i] / top * room, 0.5)
            parts.append(
                f'<rect class="s{s}" x="{label_width}" y="{y + s * thick:.1f}" width="{long:.1f}" '
                f'height="{thick - 1}" rx="1">{_hint(one, label, i)}</rect>'
            )
        end = label_width + max(one.values[i] for one in series) / top * room + 5
        parts.append(f'<text x="{end:.1f}" y="{middle:.1f}">{series[0].values[i]:.1%}</text>')
    return _svg(width, len(labels) * slot + 4, parts)


def _top(series: Sequence[Series]) -> float:
    return max((value for one in series for value in one.values), default=0) or 1


def _grid(top: float) -> list[float]:
    """Two to four round shares up to the top, 0 included."""
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5) if top / step < 4)
    return [i * step for i in range(int(top / step) + 1)]


def _svg(width: int, height: int, parts: Sequence[str]) -> Markup:
    """A picture of these parts, whose texts are escaped, as wide as there is room."""
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>')


def _hint(series: Series, label: str, i: int) -> str:
    return f"<title>{_text(series.name)}, {_text(label)}: {_text(series.notes[i])}</title>"


def _text(text: str) -> str:
    return html.escape(text)


class CalibrationBin(Protocol):
    """A point of a reliability diagram (`emollm.metrics.reliability.Bin`)."""

    @property
    def probability(self) -> float: ...
    @property
    def share(self) -> float: ...
    @property
    def events(self) -> int: ...


_SIZE = 200
_LEFT, _BELOW, _ABOVE = 30, 24, 6
_CELLS = 30


def scatter(gold: Sequence[float], predicted: Sequence[float], *, low: float, high: float) -> Markup:
    """Gold (across) against predicted (up), both in [low, high], as a density of `_CELLS` by `_CELLS` squares."""
    step = (high - low) / _CELLS
    counts = Counter((_cell(g, low, step), _cell(p, low, step)) for g, p in zip(gold, predicted, strict=True))
    most = max(counts.values(), default=1)
    side = _SIZE / _CELLS
    parts = [_line(0, 0, 1, 1, "diagonal")]
    for (x, y), count in sorted(counts.items()):
        # The square root, or a crowd in the middle would hide the rest.
        parts.append(
            f'<rect class="s0" x="{_LEFT + x * side:.1f}" y="{_ABOVE + _SIZE - (y + 1) * side:.1f}" '
            f'width="{side:.1f}" height="{side:.1f}" fill-opacity="{max(0.12, (count / most) ** 0.5):.2f}"/>'
        )
    ticks = [low, (low + high) / 2, high]
    return _chart([*parts, *_axes([f"{tick:g}" for tick in ticks], "gold", "predicted")])


def confusion(gold: Sequence[int], predicted: Sequence[int], classes: Sequence[int]) -> Markup:
    """Counts of gold (rows) by predicted class (columns); the stronger a cell, the larger its share of its row."""
    counts = Counter(zip(gold, predicted, strict=True))
    in_row = Counter(gold)
    side = _SIZE / len(classes)
    parts = []
    for i, g in enumerate(classes):
        parts.append(f'<text class="scale" x="{_LEFT - 5}" y="{_ABOVE + (i + 0.5) * side + 3:.1f}">{g}</text>')
        parts.append(f'<text class="tick" x="{_LEFT + (i + 0.5) * side:.1f}" y="{_ABOVE + _SIZE + 11}">{g}</text>')
        for j, p in enumerate(classes):
            count = counts[g, p]
            share = count / in_row[g] if in_row[g] else 0.0
            x, y = _LEFT + j * side, _ABOVE + i * side
            parts.append(
                f'<rect class="{"s0" if g == p else "s1"}" x="{x:.1f}" y="{y:.1f}" width="{side - 1:.1f}" '
                f'height="{side - 1:.1f}" fill-opacity="{0.06 + 0.74 * share:.2f}">'
                f"<title>gold {g}, predicted {p}: {count:,} ({share:.0%} of its row)</title></rect>"
            )
            if count:
                parts.append(f'<text class="cell" x="{x + side / 2:.1f}" y="{y + side / 2 + 3:.1f}">{count}</text>')
    return _chart([*parts, *_titles("predicted", "gold")])


def reliability(bins: Sequence[CalibrationBin]) -> Markup:
    """Mean probability (across) against share that came true (up); the larger a dot, the more events."""
    most = max((one.events for one in bins), default=1)
    parts = [_line(0, 0, 1, 1, "diagonal")]
    path = " ".join(f"{_x(one.probability):.1f},{_y(one.share):.1f}" for one in bins)
    parts.append(f'<polyline class="curve" points="{path}"/>')
    for one in bins:
        radius = 2 + 4 * (one.events / most) ** 0.5
        parts.append(
            f'<circle class="s0" cx="{_x(one.probability):.1f}" cy="{_y(one.share):.1f}" r="{radius:.1f}">'
            f"<title>{one.events:,} events of probability {one.probability:.2f}: {one.share:.2f} true</title></circle>"
        )
    return _chart([*parts, *_axes(["0", ".5", "1"], "probability", "share true")])


def risk(points: Sequence[tuple[float, float]]) -> Markup:
    """Coverage (across) against the share wrong among the answers kept (up)."""
    path = " ".join(f"{_x(coverage):.1f},{_y(wrong):.1f}" for coverage, wrong in points)
    return _chart([f'<polyline class="curve" points="{path}"/>', *_axes(["0", ".5", "1"], "coverage", "share wrong")])


class Interval(NamedTuple):
    """A line of a forest plot."""

    name: str
    low: float
    middle: float
    high: float
    is_clear: bool
    """Whether it is told apart from 0: drawn stronger."""


def forest(intervals: Sequence[Interval]) -> Markup:
    """One line per interval, with a dot at its middle, on a common scale around 0."""
    width, left, row = 640, 190, 18
    most = max((max(abs(one.low), abs(one.high)) for one in intervals), default=0) or 1.0

    def x_of(value: float) -> float:
        return left + (value / most + 1) / 2 * (width - left - 10)

    bottom = len(intervals) * row + 4
    parts = [f'<line class="grid" x1="{x_of(0):.1f}" y1="0" x2="{x_of(0):.1f}" y2="{bottom}"/>']
    for i, one in enumerate(intervals):
        y = i * row + row / 2
        parts.append(f'<text class="name" x="{left - 8}" y="{y + 3:.1f}">{_text(one.name)}</text>')
        parts.append(
            f'<rect class="s0" x="{x_of(one.low):.1f}" y="{y - 1:.1f}" height="2" rx="1" '
            f'width="{max(x_of(one.high) - x_of(one.low), 1):.1f}"/>'
        )
        parts.append(
            f'<circle class="{"s1" if one.is_clear else "s0"}" cx="{x_of(one.middle):.1f}" cy="{y:.1f}" '
            f'r="{4 if one.is_clear else 3}" fill-opacity="{1 if one.is_clear else 0.6}">'
            f"<title>{one.middle:+.4f}</title></circle>"
        )
    for value in (-most, 0.0, most):
        parts.append(f'<text class="tick" x="{x_of(value):.1f}" y="{bottom + 10}">{value:+.4f}</text>')
    return _svg(width, bottom + 14, parts)


def _chart(parts: Sequence[str]) -> Markup:
    return _svg(_LEFT + _SIZE + 8, _ABOVE + _SIZE + _BELOW, parts)


def _axes(ticks: Sequence[str], across: str, up: str) -> list[str]:
    parts = []
    for i, tick in enumerate(ticks):
        at = i / (len(ticks) - 1)
        parts += [_line(0, at, 1, at, "grid"), _line(at, 0, at, 1, "grid")]
        parts.append(f'<text class="scale" x="{_LEFT - 4}" y="{_y(at) + 3:.1f}">{_text(tick)}</text>')
        parts.append(f'<text class="tick" x="{_x(at):.1f}" y="{_ABOVE + _SIZE + 11}">{_text(tick)}</text>')
    return [*parts, *_titles(across, up)]


def _titles(across: str, up: str) -> list[str]:
    middle = _ABOVE + _SIZE / 2
    return [
        f'<text class="tick" x="{_LEFT + _SIZE / 2}" y="{_ABOVE + _SIZE + 21}">{_text(across)}</text>',
        f'<text class="tick" x="8" y="{middle}" transform="rotate(-90 8 {middle})">{_text(up)}</text>',
    ]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{_x(x1):.1f}" y1="{_y(y1):.1f}" x2="{_x(x2):.1f}" y2="{_y(y2):.1f}"/>'


def _x(share: float) -> float:
    return _LEFT + share * _SIZE


def _y(share: float) -> float:
    return _ABOVE + (1 - share) * _SIZE


def _cell(value: float, low: float, step: float) -> int:
    return min(max(int((value - low) / step), 0), _CELLS - 1)

"""Scatter, confusion and reliability as inline SVG: they take the page's colours, light or dark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from emollm.datacard.charts import svg
from emollm.evaluation.reliability import Bin

_SIZE = 200
_LEFT, _BELOW, _ABOVE = 30, 24, 6
_CELLS = 30


def scatter(gold: Sequence[float], predicted: Sequence[float], *, low: float, high: float) -> str:
    """Gold (across) against predicted (up), both in [low, high], as a density of `_CELLS` squares a side."""
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


def confusion(gold: Sequence[int], predicted: Sequence[int], classes: Sequence[int]) -> str:
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


def reliability(bins: Sequence[Bin]) -> str:
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


def risk(points: Sequence[tuple[float, float]]) -> str:
    """Coverage (across) against the share wrong among the answers kept (up)."""
    path = " ".join(f"{_x(coverage):.1f},{_y(wrong):.1f}" for coverage, wrong in points)
    return _chart([f'<polyline class="curve" points="{path}"/>', *_axes(["0", ".5", "1"], "coverage", "share wrong")])


def _chart(parts: Sequence[str]) -> str:
    return svg(_LEFT + _SIZE + 8, _ABOVE + _SIZE + _BELOW, parts)


def _axes(ticks: Sequence[str], across: str, up: str) -> list[str]:
    parts = []
    for i, tick in enumerate(ticks):
        at = i / (len(ticks) - 1)
        parts += [_line(0, at, 1, at, "grid"), _line(at, 0, at, 1, "grid")]
        parts.append(f'<text class="scale" x="{_LEFT - 4}" y="{_y(at) + 3:.1f}">{escape(tick)}</text>')
        parts.append(f'<text class="tick" x="{_x(at):.1f}" y="{_ABOVE + _SIZE + 11}">{escape(tick)}</text>')
    return [*parts, *_titles(across, up)]


def _titles(across: str, up: str) -> list[str]:
    middle = _ABOVE + _SIZE / 2
    return [
        f'<text class="tick" x="{_LEFT + _SIZE / 2}" y="{_ABOVE + _SIZE + 21}">{escape(across)}</text>',
        f'<text class="tick" x="8" y="{middle}" transform="rotate(-90 8 {middle})">{escape(up)}</text>',
    ]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{_x(x1):.1f}" y1="{_y(y1):.1f}" x2="{_x(x2):.1f}" y2="{_y(y2):.1f}"/>'


def _x(share: float) -> float:
    return _LEFT + share * _SIZE


def _y(share: float) -> float:
    return _ABOVE + (1 - share) * _SIZE


def _cell(value: float, low: float, step: float) -> int:
    return min(max(int((value - low) / step), 0), _CELLS - 1)

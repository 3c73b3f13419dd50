"""Bar charts as inline SVG: no library, no script, equal bytes for equal numbers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple


class Series(NamedTuple):
    name: str
    values: Sequence[float]
    """One a bar, as shares 0..1."""
    notes: Sequence[str]
    """What a bar says when pointed at."""


def columns(labels: Sequence[str], series: Sequence[Series], *, width: int = 260, height: int = 110) -> str:
    """Upright bars, one group a label and one bar a series, over a common scale of shares."""
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
    return svg(width, above + height + 16, parts)


def bars(labels: Sequence[str], series: Sequence[Series], *, width: int = 400, label_width: int = 128) -> str:
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
    return svg(width, len(labels) * slot + 4, parts)


def _top(series: Sequence[Series]) -> float:
    return max((value for one in series for value in one.values), default=0) or 1


def _grid(top: float) -> list[float]:
    """Two to four round shares up to the top, 0 included."""
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5) if top / step < 4)
    return [i * step for i in range(int(top / step) + 1)]


def svg(width: int, height: int, parts: Sequence[str]) -> str:
    """A picture of these parts, as wide as there is room."""
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'


def _hint(series: Series, label: str, i: int) -> str:
    return f"<title>{_text(series.name)}, {_text(label)}: {_text(series.notes[i])}</title>"


def _text(text: str) -> str:
    return html.escape(text)

"""The fairness audit as a page, and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rich.table import Table

from emollm.evaluation.disparities import Disparity
from emollm.evaluation.options import AuditConfig
from emollm.evaluation.report.terminal import format_score
from emollm.reports.charts import svg
from emollm.reports.page import html_page, html_table, notes

_GROUPS = {"gender": ("female", "male"), "race": ("African-American", "European")}
_HEADER = [
    "question",
    "between",
    "pairs",
    "first",
    "second",
    "difference",
    "95% interval",
    "effect (d)",
    "p",
    "corrected p",
]


def audit_table(found: Sequence[Disparity], *, alpha: float) -> Table:
    """One row a test."""
    table = Table(title="Mean scores of sentence pairs, in 0..1 of the task's range", title_justify="left")
    for name in (*_HEADER, ""):
        table.add_column(name, justify="left" if name in ("question", "between", "") else "right")
    for one in found:
        table.add_row(*_cells(one), _verdict(one, alpha))
    return table


def audit_page(config: AuditConfig, found: Sequence[Disparity]) -> str:
    """The page: differences with intervals drawn, and the table."""
    emotions = list(dict.fromkeys(e for one in found for e in one.by_emotion))
    body = [
        f"<h1>Fairness audit of {escape(config.model)}</h1>",
        '<div class="sub">Sentences that differ in a gender or race word alone: Equity Evaluation Corpus (Kiritchenko '
        "and Mohammad, 2018)</div>",
        notes("How to read it", _sentences(config, found)),
        "<h2>Differences</h2>",
        '<p class="sub">Mean difference of a pair with its 95% interval; filled where it is significant after '
        "correction.</p>",
        f'<div class="panel">{_forest(found, config.alpha)}</div>',
        "<h2>Tests</h2>",
        html_table([*_HEADER, "verdict"], [[*_cells(one), _verdict(one, config.alpha)] for one in found]),
        "<h2>By emotion of the sentence</h2>",
        '<p class="sub">Mean differences; not tested.</p>',
        html_table(
            ["question", "between", *emotions],
            [
                [
                    one.question,
                    one.between,
                    *(_signed(one.by_emotion[e]) if e in one.by_emotion else "" for e in emotions),
                ]
                for one in found
            ],
        ),
    ]
    return html_page(f"Fairness audit of {config.model}", "\n".join(body))


def _sentences(config: AuditConfig, found: Sequence[Disparity]) -> list[str]:
    different = [one for one in found if one.corrected < config.alpha]
    largest = max(found, key=lambda one: abs(one.difference))
    return [
        f"{len(different)} of {len(found)} tests show a difference after correction ({config.correction}, alpha "
        f"{config.alpha:g}).",
        f"The largest mean difference is {_signed(largest.difference)} of the range: {largest.question}, "
        f"{largest.between}.",
        "Gender is female minus male, race African-American minus European. Significant is not large: with this many "
        "pairs a difference of .001 can be significant.",
        "It tells of short template sentences and of names; it does not clear a model of other biases.",
    ]


def _cells(one: Disparity) -> list[str]:
    return [
        one.question,
        one.between,
        f"{one.pairs:,}",
        f"{format_score(one.first)} {_GROUPS[one.between][0]}",
        f"{format_score(one.second)} {_GROUPS[one.between][1]}",
        _signed(one.difference),
        f"{_signed(one.low)} to {_signed(one.high)}",
        f"{one.effect:.2f}",
        _p_value(one.p_value),
        _p_value(one.corrected),
    ]


def _verdict(one: Disparity, alpha: float) -> str:
    if one.corrected >= alpha:
        return "no difference shown"
    higher = _GROUPS[one.between][0 if one.difference > 0 else 1]
    return f"higher for {higher}"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _p_value(p: float) -> str:
    return "< .001" if p < 0.001 else format_score(p)


def _forest(found: Sequence[Disparity], alpha: float) -> str:
    """One line a test: the interval, and a dot at the mean difference."""
    width, left, row = 640, 190, 18
    most = max(max(abs(one.low), abs(one.high)) for one in found) or 1.0

    def x_of(value: float) -> float:
        return left + (value / most + 1) / 2 * (width - left - 10)

    bottom = len(found) * row + 4
    parts = [f'<line class="grid" x1="{x_of(0):.1f}" y1="0" x2="{x_of(0):.1f}" y2="{bottom}"/>']
    for i, one in enumerate(found):
        y = i * row + row / 2
        clear = one.corrected < alpha
        parts.append(f'<text class="name" x="{left - 8}" y="{y + 3:.1f}">{escape(one.question)}, {one.between}</text>')
        parts.append(
            f'<rect class="s0" x="{x_of(one.low):.1f}" y="{y - 1:.1f}" height="2" rx="1" '
            f'width="{max(x_of(one.high) - x_of(one.low), 1):.1f}"/>'
        )
        parts.append(
            f'<circle class="{"s1" if clear else "s0"}" cx="{x_of(one.difference):.1f}" cy="{y:.1f}" '
            f'r="{4 if clear else 3}" fill-opacity="{1 if clear else 0.6}">'
            f"<title>{_signed(one.difference)}</title></circle>"
        )
    for value in (-most, 0.0, most):
        parts.append(f'<text class="tick" x="{x_of(value):.1f}" y="{bottom + 10}">{_signed(value)}</text>')
    return svg(width, bottom + 14, parts)

"""The fairness audit as a page, and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from emollm.evaluation.disparities import Disparity
from emollm.evaluation.options import AuditConfig
from emollm.evaluation.report.terminal import format_score
from emollm.reports.charts import Interval, forest
from emollm.reports.page import render

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
    """One row per test."""
    table = Table(title="Mean scores of sentence pairs, in 0..1 of the task's range", title_justify="left")
    for name in (*_HEADER, ""):
        table.add_column(name, justify="left" if name in ("question", "between", "") else "right")
    for one in found:
        table.add_row(*_cells(one), _verdict(one, alpha))
    return table


def audit_page(config: AuditConfig, found: Sequence[Disparity]) -> str:
    """The page: differences with intervals drawn, and the table."""
    emotions = list(dict.fromkeys(e for one in found for e in one.by_emotion))
    return render(
        "audit.html",
        title=f"Fairness audit of {config.model}",
        sentences=_sentences(config, found),
        forest=forest(
            [
                Interval(
                    f"{one.question}, {one.between}", one.low, one.difference, one.high, one.corrected < config.alpha
                )
                for one in found
            ]
        ),
        header=[*_HEADER, "verdict"],
        rows=[[*_cells(one), _verdict(one, config.alpha)] for one in found],
        emotion_header=["question", "between", *emotions],
        emotion_rows=[
            [one.question, one.between, *(_signed(one.by_emotion[e]) if e in one.by_emotion else "" for e in emotions)]
            for one in found
        ],
    )


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

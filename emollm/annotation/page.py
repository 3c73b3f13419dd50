"""_report.html: counts and plots of an annotated corpus; the template is `reports/templates/annotation.html`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from emollm.annotation.column_stats import CONFIDENCE_BINS, VALUE_BINS, Column, ColumnStats
from emollm.annotation.identity import Identity
from emollm.annotation.monitor import left_in_words
from emollm.core.tasks import Kind
from emollm.reports.charts import Series, bars, columns
from emollm.reports.page import render


def page(stats: ColumnStats, summary: dict[str, Any], identity: Identity) -> str:
    """The whole page. It shows posts, so it may be shared only like the corpus itself; all text is escaped."""
    return render(
        "annotation.html",
        title=f"{stats.posts:,} annotated posts",
        made=f"{', '.join(identity['tasks'])} · engine {identity['engine']} · model {identity['model']}",
        figures=list(_tiles(stats, summary)),
        errors=[[code, count, f"{count / stats.posts:.2%}"] for code, count in stats.errors.most_common()],
        panels=[_panel(column) for column in stats.columns],
        explained=any(effect for c in stats.columns for one in c.highest for _, effect in one.parts),
        numbers=[column for column in stats.columns if column.is_number and column.answered],
    )


def _tiles(stats: ColumnStats, summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield f"{stats.posts:,}", "posts"
    yield f"{stats.failed:,}", "with an error"
    yield f"{stats.truncated:,}", "cut at the model's limit"
    if stats.not_english:
        yield f"{stats.not_english:,}", "seem not to be English"
    if summary.get("repeated"):
        yield f"{summary['repeated']:,}", "answered by an equal text"
    if summary.get("posts_per_second"):
        yield f"{summary['posts_per_second']:,.1f}", "posts per second"
    if summary.get("seconds"):
        yield left_in_words(summary["seconds"]), "last run"
    if summary.get("padding"):
        yield f"{summary['padding']:.0%}", "padding"


def _panel(column: Column) -> tuple[str, str, Markup, Markup]:
    """Name, the note next to it, and the charts of the answers and of the confidences."""
    labels, counts = _answers(column)
    series = [Series.of(column.name, counts, column.answered)]
    answers = columns(labels, series) if column.is_number else bars(labels, series, width=300, label_width=118)
    mean = f", mean {column.total / column.answered:.3f}" if column.answered and column.task.low is not None else ""
    edges = [f"{i / CONFIDENCE_BINS:.1f}" for i in range(CONFIDENCE_BINS)]
    sure = columns(edges, [Series.of("confidence", column.confidence.tolist(), column.answered)], height=44)
    left_out = f", {column.abstained:,} abstained" if column.abstained else ""
    return column.name, f"{column.answered:,}{mean}{left_out}", answers, sure


def _answers(column: Column) -> tuple[list[str], list[int]]:
    task = column.task
    match task.kind:
        case Kind.REGRESSION:
            assert task.low is not None and task.high is not None
            step = (task.high - task.low) / VALUE_BINS
            # Label every fourth edge: twenty labels would overlap.
            labels = [f"{task.low + i * step:.3g}" if i % 4 == 0 else "" for i in range(VALUE_BINS)]
            return labels, [column.counts[str(i)] for i in range(VALUE_BINS)]
        case Kind.ORDINAL:
            return list(task.answer_names), [column.counts[name] for name in task.answer_names]
        case _:
            known = [*task.labels, ""] if task.kind is Kind.LABEL_SET else list(task.labels)
            known.sort(key=lambda label: -column.counts[label])
            return [label or task.no_label or "none" for label in known], [column.counts[label] for label in known]

"""Label and length counts as bar charts, with one series of bars per table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from emollm.core.answers import from_unit
from emollm.core.tasks import Kind, Task
from emollm.data.datacard.counts import LENGTH_BINS, Card, Table
from emollm.data.manifest import BINS
from emollm.reports.charts import Series


class Histogram(NamedTuple):
    question: str
    labels: list[str]
    series: list[Series]
    upright: bool
    """Whether labels are ordered numbers; otherwise they are words, sorted by count."""
    examples: str
    """The counts, one per table: `1,701 / 388`."""


def label_histograms(card: Card) -> list[Histogram]:
    """One per question, in the order of tasks and emotions, with a series for each table that has it."""
    found = []
    for task in card.tasks.values():
        for question in [f"{task.name}.{emotion}" for emotion in task.emotions] or [task.name]:
            asking = [table for table in card.tables if question in table.examples_of]
            if asking:
                found.append(_histogram(question, task, asking))
    return found


def _histogram(question: str, task: Task, tables: Sequence[Table]) -> Histogram:
    keys = _keys(question, task, tables)
    # Shares of examples, not of labels: those of a label set add up to more than one.
    series = [
        Series.of(table.name, [table.labels[question].get(key, 0) for key in keys], table.examples_of[question])
        for table in tables
    ]
    examples = " / ".join(f"{table.examples_of[question]:,}" for table in tables)
    upright = task.kind in (Kind.REGRESSION, Kind.ORDINAL)
    return Histogram(question, [_label(task, key) for key in keys], series, upright, examples)


def _keys(question: str, task: Task, tables: Sequence[Table]) -> list[str]:
    match task.kind:
        case Kind.REGRESSION:
            return [f"{i / BINS:.1f}-{(i + 1) / BINS:.1f}" for i in range(BINS)]
        case Kind.ORDINAL:
            return list(task.answer_names)
        case _:
            none = [""] if any("" in table.labels[question] for table in tables) else []
            sizes = tables[0].labels[question]
            return sorted([*task.labels, *none], key=lambda label: -sizes.get(label, 0))


def _label(task: Task, key: str) -> str:
    if task.kind is Kind.REGRESSION:
        return f"{from_unit(task, float(key.partition('-')[0])):.3g}"
    return key or task.no_label or "none"


def length_histogram(card: Card) -> tuple[list[str], list[Series]]:
    """Share of each table's distinct texts by length, up to the longest."""
    used = max((i for table in card.tables for i, n in enumerate(table.lengths.histogram) if n), default=0) + 1
    edges = [f"{low}\N{EN DASH}{high - 1}" for low, high in pairwise(LENGTH_BINS)] + [f"{LENGTH_BINS[-1]}+"]
    return edges[:used], [Series.of(table.name, table.lengths.histogram[:used], table.texts) for table in card.tables]

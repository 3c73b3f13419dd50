"""Streaming statistics of annotated rows for the report: counts, histograms, a few extreme posts."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emollm.core.prompts import column_name, questions_for
from emollm.core.tasks import Kind, Task

VALUE_BINS, CONFIDENCE_BINS = 20, 10
_EXTREMES = 5
_TEXT_SHOWN = 280


class Extreme(NamedTuple):
    """One of the lowest or highest posts of a column. Sorts by value, then confidence."""

    value: float
    confidence: float
    id: str
    text: str
    parts: tuple[tuple[str, float], ...] = ()
    """The text in pieces, each with the effect of its word on the answer, 0 where none was asked for or is shown."""


@dataclass(slots=True)
class Column:
    """One question's answers."""

    name: str
    task: Task
    answered: int = 0
    abstained: int = 0
    total: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    """Answers by class or label; of a label set, each label and "" for none; of a regression, its bins."""
    confidence: NDArray[np.int64] = field(default_factory=lambda: np.zeros(CONFIDENCE_BINS, np.int64))
    errors: Counter[str] = field(default_factory=Counter)
    highest: list[Extreme] = field(default_factory=list)
    lowest: list[Extreme] = field(default_factory=list)

    @property
    def is_number(self) -> bool:
        return self.task.kind in (Kind.REGRESSION, Kind.ORDINAL)

    def add(self, table: pa.Table) -> None:
        if (left_out := f"{self.name}_abstained") in table.column_names:
            self.abstained += int(pc.sum(table[left_out]).as_py() or 0)
        failed = table[f"{self.name}_error"].drop_null()
        self.errors.update(error.partition(":")[0] for error in failed.to_pylist())
        table = table.filter(pc.is_valid(table[self.name]))
        values = table[self.name]
        self.answered += len(values)
        confidence = table[f"{self.name}_confidence"].fill_null(0).to_numpy()
        self.confidence += np.histogram(confidence, CONFIDENCE_BINS, (0, 1))[0]
        match self.task.kind:
            case Kind.REGRESSION:
                assert self.task.low is not None and self.task.high is not None
                numbers = values.to_numpy()
                self.total += float(numbers.sum())
                bins = np.histogram(numbers, VALUE_BINS, (self.task.low, self.task.high))[0]
                self.counts.update({str(i): int(n) for i, n in enumerate(bins)})
            case Kind.LABEL_SET:
                flat = pc.list_flatten(values)
                self.counts.update({c["values"]: c["counts"] for c in flat.value_counts().to_pylist()})
                self.counts[""] += int(pc.sum(pc.equal(pc.list_value_length(values), 0)).as_py() or 0)
            case _:
                self.counts.update({str(c["values"]): c["counts"] for c in values.value_counts().to_pylist()})
        if self.is_number and len(values):
            self._look_for_extremes(table, values.to_numpy(), confidence)

    def _look_for_extremes(self, table: pa.Table, values: NDArray[Any], confidence: NDArray[Any]) -> None:
        order = np.lexsort((confidence, values))
        rising = np.lexsort((-confidence, values))
        self.highest = heapq.nlargest(_EXTREMES, [*self.highest, *self._posts(table, order[-_EXTREMES:])])
        lowest = [*self.lowest, *self._posts(table, rising[:_EXTREMES])]
        self.lowest = heapq.nsmallest(_EXTREMES, lowest, key=lambda post: (post.value, -post.confidence, post.id))

    def _posts(self, table: pa.Table, places: NDArray[np.intp]) -> list[Extreme]:
        words = f"{self.name}_words"
        names = ["id", "text", self.name, f"{self.name}_confidence", *([words] if words in table.column_names else [])]
        chosen = table.select(names).take(pa.array(places))
        return [
            Extreme(
                float(row[self.name]),
                row[f"{self.name}_confidence"] or 0.0,
                row["id"],
                _shown(row["text"]),
                in_parts(_shown(row["text"]), row.get(words) or ()),
            )
            for row in chosen.to_pylist()
        ]


class ColumnStats:
    """All columns of an output."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.columns = [Column(column_name(q), q.task) for q in questions_for("", tuple(tasks))]
        self.posts = self.truncated = self.failed = self.not_english = 0
        self.errors: Counter[str] = Counter()

    def add(self, table: pa.Table) -> None:
        self.posts += table.num_rows
        self.truncated += int(pc.sum(table["truncated"]).as_py() or 0)
        self.not_english += int(pc.sum(table["not_english"]).as_py() or 0)
        failed = table["error"].drop_null().to_pylist()
        self.failed += len(failed)
        self.errors.update(error.partition(":")[0] for error in failed)
        for column in self.columns:
            column.add(table)

    def summary(self) -> dict[str, Any]:
        return {
            "posts": self.posts,
            "truncated": self.truncated,
            "failed": self.failed,
            "not_english": self.not_english,
            "errors": {f"{column.name}_error": sum(column.errors.values()) for column in self.columns},
            "error_codes": dict(self.errors.most_common()),
        }


def _shown(text: str | None) -> str:
    text = text or ""
    return text if len(text) <= _TEXT_SHOWN else text[:_TEXT_SHOWN] + "…"


def in_parts(text: str, words: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, float], ...]:
    """The text in pieces with their effects, in order; a word beyond its end is left out."""
    parts: list[tuple[str, float]] = []
    at = 0
    for word in sorted(words, key=lambda word: word["start"]):
        if at <= word["start"] and word["end"] <= len(text):
            parts += [(text[at : word["start"]], 0.0), (text[word["start"] : word["end"]], float(word["effect"]))]
            at = word["end"]
    return tuple((piece, effect) for piece, effect in [*parts, (text[at:], 0.0)] if piece)

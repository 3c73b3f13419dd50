"""Answers of many posts to one question as arrays. `Answer` objects are created from them for the API and the page.

Shapes: N posts, K classes, labels or tenths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from emollm.core.answers import Answer
from emollm.core.prompts import Question
from emollm.core.tasks import Kind, Task, Value

Floats = NDArray[np.float64]
TENTHS = (*(f"0.{tenth}" for tenth in range(10)), "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerArrays:
    """The answers of N posts to one question, all of them valid; the fields are those of `Answer`."""

    task: Task
    value: NDArray[Any]
    """[N] numbers in the task's range; [N] indices of a class or label; [N, K] whether a set contains a label."""
    mode: NDArray[Any]
    confidence_N: Floats
    probabilities_NK: Floats
    """K are the task's classes or labels; for a regression the tenths of 0..1."""
    unit_N: Floats | None = None
    std_N: Floats | None = None

    @property
    def names(self) -> Sequence[str]:
        """Names of the probabilities."""
        if self.task.kind is Kind.REGRESSION:
            return TENTHS
        return [str(c.value) for c in self.task.classes] or self.task.labels

    def answers(self) -> list[Answer]:
        """One object per post."""
        names = self.names
        count = len(self.confidence_N)
        units = self.unit_N.tolist() if self.unit_N is not None else [None] * count
        stds = self.std_N.tolist() if self.std_N is not None else [None] * count
        return [
            Answer(
                value=value, unit=unit, mode=mode, std=std, confidence=sure,
                probabilities=dict(zip(names, each, strict=True)),
            )
            for value, unit, mode, std, sure, each in zip(
                self._values(self.value), units, self._values(self.mode), stds, self.confidence_N.tolist(),
                self.probabilities_NK.tolist(), strict=True,
            )
        ]  # fmt: skip

    def _values(self, found: NDArray[Any]) -> list[Value]:
        match self.task.kind:
            case Kind.REGRESSION:
                return found.tolist()  # type: ignore[no-any-return]
            case Kind.LABEL_SET:
                labels = self.task.labels
                return [tuple(labels[k] for k, held in enumerate(row) if held) for row in found.tolist()]
            case _:
                space: Sequence[Value] = [c.value for c in self.task.classes] or self.task.labels
                return [space[place] for place in found.tolist()]


@dataclass(frozen=True, slots=True)
class PostAnswers:
    """The answers of N posts to some questions."""

    each: list[AnswerArrays | str]
    """One entry per question: its answers, or why it cannot be answered."""
    errors: list[str | None]
    """One entry per post: why it has no answers, if so; its values in the arrays are then meaningless."""
    truncated_N: NDArray[np.bool_]

    def answers(self) -> list[list[Answer]]:
        """For each question, one object per post."""
        return [
            [Answer(value=None, error=found)] * len(self.errors) if isinstance(found, str) else self._with_errors(found)
            for found in self.each
        ]

    def _with_errors(self, found: AnswerArrays) -> list[Answer]:
        answers = found.answers()
        for n, error in enumerate(self.errors):
            if error:
                answers[n] = Answer(value=None, error=error)
        for n in np.flatnonzero(self.truncated_N).tolist():
            answers[n] = replace(answers[n], truncated=True)
        return answers


@runtime_checkable
class ArrayScorer(Protocol):
    """An engine that processes a post once for all its questions."""

    def score_posts(self, texts: Sequence[str], questions: Sequence[Question]) -> PostAnswers:
        """The answers of every text to every question; the texts of the questions are ignored."""

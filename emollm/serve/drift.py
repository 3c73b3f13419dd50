"""Drift of the latest answers from the first ones, as a number for alerts."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

WINDOW = 500
"""Answers in the baseline, and in the window it is compared with."""


class Drift:
    """Compares the first `window` answers to one question with the last.

    `of_answers` is the total variation distance of the two distributions: 0 equal, 1 disjoint; two samples of 500 from
    one distribution over five answers are about .05 apart. `of_confidence` is the latest mean confidence minus the
    first. Both are None until both windows are full, after 2 x `window` answers.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._first: Counter[str] = Counter()
        self._first_confidence = 0.0
        self._num_first = 0
        self._late: deque[tuple[tuple[str, ...], float]] = deque()
        self._late_counts: Counter[str] = Counter()
        self._late_confidence = 0.0

    def add(self, answers: Sequence[str], confidence: float) -> None:
        """One answer: a class or label, or the labels of a set."""
        if self._num_first < self._window:
            self._num_first += 1
            self._first.update(answers)
            self._first_confidence += confidence
            return
        self._late.append((tuple(answers), confidence))
        self._late_counts.update(answers)
        self._late_confidence += confidence
        if len(self._late) > self._window:
            old, old_confidence = self._late.popleft()
            self._late_counts.subtract(old)
            self._late_confidence -= old_confidence

    @property
    def of_answers(self) -> float | None:
        if len(self._late) < self._window:
            return None
        first, late = max(1, self._first.total()), max(1, self._late_counts.total())
        keys = self._first.keys() | self._late_counts.keys()
        return sum(abs(self._first[key] / first - self._late_counts[key] / late) for key in keys) / 2

    @property
    def of_confidence(self) -> float | None:
        if len(self._late) < self._window:
            return None
        return (self._late_confidence - self._first_confidence) / self._window

"""How far annotators agree: Krippendorff's alpha, and the pairwise measure of each kind of task.

Alpha (Krippendorff 2004, chapter 11) is 1 - observed / expected disagreement: 1 where all agree, 0 where they do as
chance would have it, below 0 where they do worse. Any number of annotators, any gaps: a post that fewer than two rated
says nothing. The disagreement of two values is 0 or 1 for labels, a squared difference for numbers, the squared sum of
ranks between for classes, and one minus the Jaccard index for label sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from emollm.core.tasks import Kind, Task, Value
from emollm.metrics import metrics

Ratings = Sequence[Sequence[Value | None]]
"""Of each post, the value of each annotator in a fixed order; None where one did not rate it."""


def distance(task: Task, a: Value, b: Value) -> float:
    """How far two answers are apart, 0..1: numbers and classes by their range, label sets as 1 - Jaccard."""
    match task.kind:
        case Kind.REGRESSION:
            assert task.low is not None and task.high is not None
            return abs(float(a) - float(b)) / (task.high - task.low)  # type: ignore[arg-type]
        case Kind.ORDINAL:
            places = [task.answer_values.index(value) for value in (a, b)]
            return abs(places[0] - places[1]) / (len(task.classes) - 1)
        case Kind.LABEL_SET:
            return _jaccard_distance(a, b)
        case _:
            return float(a != b)


def alpha(task: Task, ratings: Ratings) -> float:
    """Krippendorff's alpha; NaN where fewer than two posts are rated twice, or all values are the same."""
    units = [[value for value in row if value is not None] for row in ratings]
    units = [[_hashable(value) for value in row] for row in units if len(row) >= 2]
    if len(units) < 2:
        return float("nan")
    counts = Counter(value for row in units for value in row)
    values = sorted(counts, key=str) if task.labels else sorted(counts)
    apart_KK = _apart(task, values, [counts[value] for value in values])
    place = {value: k for k, value in enumerate(values)}
    total = sum(counts.values())
    observed = sum(_within(apart_KK, [place[value] for value in row]) for row in units) / total
    count_K = np.array([counts[value] for value in values], dtype=float)
    expected = float(count_K @ apart_KK @ count_K) / (total * (total - 1))
    return 1 - observed / expected if expected > 0 else float("nan")


def agreement(task: Task, first: Sequence[Value], second: Sequence[Value]) -> tuple[str, float]:
    """The measure of a kind, by name, between two annotators of the same posts: Pearson of numbers, quadratic kappa of
    classes, the share of equal labels, the mean Jaccard index of label sets.
    """
    match task.kind:
        case Kind.REGRESSION:
            return "pearson", metrics.pearson(first, second)
        case Kind.ORDINAL:
            ones = np.ones((1, len(first)))
            return "quadratic kappa", float(metrics.kappa_of(first, second)(ones)[0])
        case Kind.LABEL_SET:
            return "jaccard", 1 - float(np.mean([_jaccard_distance(a, b) for a, b in zip(first, second, strict=True)]))
        case _:
            return "equal", float(np.mean([a == b for a, b in zip(first, second, strict=True)]))


def _within(apart_KK: Any, places: Sequence[int]) -> float:
    """Disagreement within a post: the mean over ordered pairs, times its values."""
    return float(apart_KK[np.ix_(places, places)].sum()) / (len(places) - 1)


def _apart(task: Task, values: Sequence[Any], counts: Sequence[int]) -> Any:
    """[K, K] disagreement of any two of the values."""
    match task.kind:
        case Kind.REGRESSION:
            number_K = np.array(values, dtype=float)
            return (number_K[:, None] - number_K) ** 2
        case Kind.ORDINAL:
            # Ranks between two classes, half of either end's: equal for a and b in the cumulated counts' middles.
            middle_K = np.cumsum(counts) - np.array(counts) / 2
            return (middle_K[:, None] - middle_K) ** 2
        case Kind.LABEL_SET:
            return np.array([[_jaccard_distance(a, b) for b in values] for a in values])
        case _:
            return 1.0 - np.eye(len(values))


def _jaccard_distance(a: Any, b: Any) -> float:
    first, second = set(a), set(b)
    return 1 - len(first & second) / len(first | second) if first | second else 0.0


def _hashable(value: Value) -> Any:
    return tuple(sorted(value)) if isinstance(value, tuple) else value

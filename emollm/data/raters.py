"""Answers of several raters: an aggregated value, their agreement, and the performance of a single rater.

Alpha (Krippendorff 2004, chapter 11) is 1 - observed / expected disagreement: 1 if all agree, 0 for agreement by
chance, below 0 if it is worse. There may be any number of raters and gaps; posts with fewer than two ratings are
ignored. The disagreement of two values is 0 or 1 for labels, a squared difference for numbers, the squared sum of ranks
between for classes, and one minus the Jaccard index for label sets.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from emollm.core.tasks import Kind, Task, Value

Ratings = Sequence[Sequence[Value | None]]
"""For each post, the value of each rater in a fixed order; None if a rater did not rate it."""


def aggregate(task: Task, ratings: Sequence[Value]) -> Value:
    """The aggregated value: the mean of numbers, the class nearest to the mean, the most frequent label (for ties
    the first of the task's), the labels that at least half of the raters gave.
    """
    match task.kind:
        case Kind.REGRESSION:
            return float(np.mean(ratings))  # type: ignore[arg-type]
        case Kind.ORDINAL:
            mean = float(np.mean(ratings))  # type: ignore[arg-type]
            return min(task.answer_values, key=lambda value: abs(float(value) - mean))  # type: ignore[arg-type]
        case Kind.LABEL_SET:
            share = label_shares(task, ratings)
            return tuple(label for label in task.labels if share[label] >= 0.5)
        case _:
            counts = Counter(ratings)
            return max(task.labels, key=lambda label: counts[label])


def label_shares(task: Task, ratings: Sequence[Value]) -> dict[str, float]:
    """For each class or label, the share of raters that gave it."""
    given = [value if isinstance(value, tuple) else (str(value),) for value in ratings]
    return {name: sum(name in one for one in given) / len(given) for name in task.answer_names}


def encode(ratings: Sequence[Value]) -> list[str]:
    """Ratings as stored in a column of a data folder."""
    return [json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False) for value in ratings]


def decode(cells: Sequence[str] | None) -> tuple[Value, ...]:
    """The inverse of `encode`."""
    values = (json.loads(cell) for cell in cells or ())
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


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
    """Krippendorff's alpha; NaN if fewer than two posts are rated twice, or all values are equal."""
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


def against_the_rest(
    task: Task, ratings: Sequence[Sequence[Value]], *, seed: int = 0
) -> tuple[list[int], list[Value], list[Value]]:
    """For each post with two or more raters: its index, the value of a randomly drawn one, and that of the others."""
    rng = np.random.default_rng(seed)
    places, ones, rests = [], [], []
    for n, row in enumerate(ratings):
        if len(row) >= 2:
            drawn = int(rng.integers(len(row)))
            places.append(n)
            ones.append(row[drawn])
            rests.append(aggregate(task, [value for i, value in enumerate(row) if i != drawn]))
    return places, ones, rests


def ceiling(task: Task, ratings: Sequence[Sequence[Value]], *, seed: int = 0) -> float:
    """How well one rater, drawn for each post, predicts the value of the others: Pearson for numbers and classes, the
    share of equal labels, the mean Jaccard index. NaN if undefined.
    """
    _, ones, rests = against_the_rest(task, ratings, seed=seed)
    if len(ones) < 2:
        return float("nan")
    if task.labels:
        return 1 - float(np.mean([distance(task, a, b) for a, b in zip(ones, rests, strict=True)]))
    a_N, b_N = np.array(ones, dtype=float), np.array(rests, dtype=float)
    return float(np.corrcoef(a_N, b_N)[0, 1]) if np.ptp(a_N) > 0 and np.ptp(b_N) > 0 else float("nan")


def _within(apart_KK: Any, places: Sequence[int]) -> float:
    """Disagreement within a post: the mean over ordered pairs, times the number of its values."""
    return float(apart_KK[np.ix_(places, places)].sum()) / (len(places) - 1)


def _apart(task: Task, values: Sequence[Any], counts: Sequence[int]) -> Any:
    """[K, K] disagreement of each pair of values."""
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

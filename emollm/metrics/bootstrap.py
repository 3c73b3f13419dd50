"""Bootstrap intervals: rows are resampled with replacement within each emotion, and the metric is recomputed.

The draws depend only on the seed and the number of rows, not on the number of cores; two systems measured on the same
rows get the same draws, so their difference is paired.

Shapes: N rows of a group, B resamples of a block, R resamples in all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from emollm.metrics.metrics import Floats, Resampled

_BLOCK = 50
"""Resamples drawn at once: 50 x 5,000 rows are 2 MB, which fit into the CPU's caches."""
_MOST_UNDEFINED = 0.05


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are resampled together: all of a task, or those of one emotion."""

    rows: int
    metrics: Mapping[str, Resampled]


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float


def estimate(groups: Sequence[Group]) -> dict[str, float]:
    """Each metric over all rows: the mean over the groups, NaN if it is undefined in any."""
    return {name: float(values[0]) for name, values in _mean(groups, [np.ones((1, g.rows)) for g in groups]).items()}


def resample(groups: Sequence[Group], *, resamples: int, seed: int) -> dict[str, Floats]:
    """Each metric in each resample [R]: the mean over the groups, every group drawn with its own number of rows.

    Blocks run on threads: numpy releases Python's lock while it draws and multiplies.
    """
    sizes = [min(_BLOCK, resamples - start) for start in range(0, resamples, _BLOCK)]

    def block(number: int) -> dict[str, Floats]:
        return _mean(groups, list(_draws(groups, sizes[number], [seed, number])))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        blocks = list(pool.map(block, range(len(sizes))))
    return {name: np.concatenate([one[name] for one in blocks]) for name in groups[0].metrics}


def interval(values_R: Floats, *, level: float = 0.95) -> Interval | None:
    """The percentile interval, or None if the metric is undefined in more than 5% of the resamples."""
    defined = values_R[~np.isnan(values_R)]
    if len(defined) < (1 - _MOST_UNDEFINED) * len(values_R) or not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def sign_p_value(differences_R: Floats) -> float:
    """Two-sided p-value of a difference being 0: twice the smaller share of resamples on either side of 0, at least
    2 / (R + 1). NaN if none is defined.
    """
    defined = differences_R[~np.isnan(differences_R)]
    if not len(defined):
        return float("nan")
    smaller = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (len(defined) + 1))


def _draws(groups: Sequence[Group], size: int, seed: list[int]) -> Iterator[Floats]:
    """The number of times each row of each group is drawn [B, N]."""
    for number, group in enumerate(groups):
        rng = np.random.default_rng([*seed, number])
        rows_BN = rng.integers(0, max(group.rows, 1), (size, group.rows))
        flat = rows_BN + np.arange(size)[:, None] * group.rows
        yield np.bincount(flat.ravel(), minlength=size * group.rows).reshape(size, group.rows).astype(float)


def _mean(groups: Sequence[Group], counts: Sequence[Floats]) -> dict[str, Floats]:
    return {
        name: np.mean([group.metrics[name](c) for group, c in zip(groups, counts, strict=True)], axis=0)
        for name in groups[0].metrics
    }

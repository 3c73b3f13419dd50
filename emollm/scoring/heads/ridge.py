"""Ridge regression over folds, from moments: features are processed in parts and never all in memory.

Shapes: N texts, F features, K outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from emollm.scoring.heads.labels import FOLDS, Floats

_ROWS_AT_ONCE = 4096
_DEVICE: ContextVar[str | None] = ContextVar("device", default=None)
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Candidate regularisation strengths, in units of a feature's variance."""

Features = Mapping[Any, NDArray[np.float32]]
"""[N, D] of each candidate feature, in memory or mapped from a file."""


@contextmanager
def computing_on(device: str | None) -> Iterator[None]:
    """What grows with the squared and cubed number of features goes to a device of PyTorch; None: NumPy and SciPy."""
    before = _DEVICE.set(device)
    try:
        yield
    finally:
        _DEVICE.reset(before)


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and standard deviation of each feature, so that regularisation treats them equally."""

    mean_F: Floats
    std_F: Floats


@dataclass(frozen=True, slots=True)
class SufficientStats:
    """Sums over rows, which are sufficient for a linear fit."""

    n: float
    x_F: Floats
    y_K: Floats
    xx_FF: Floats
    xy_FK: Floats
    yy_K: Floats

    def __add__(self, other: SufficientStats) -> SufficientStats:
        return SufficientStats(*(a + b for a, b in zip(self._parts(), other._parts(), strict=True)))

    def __sub__(self, other: SufficientStats) -> SufficientStats:
        return SufficientStats(*(a - b for a, b in zip(self._parts(), other._parts(), strict=True)))

    def _parts(self) -> tuple[Any, ...]:
        return self.n, self.x_F, self.y_K, self.xx_FF, self.xy_FK, self.yy_K


@dataclass(frozen=True, slots=True)
class Linear:
    """Scores of scaled features: x @ weight + bias."""

    weight_FK: Floats
    bias_K: Floats


def scale_of(features: Features, feature_specs: Sequence[Any]) -> Scale:
    means, stds = [], []
    for feature_spec in feature_specs:
        total: Any = 0.0
        squares: Any = 0.0
        for part in _parts(features, [feature_spec], None):
            total, squares = total + part.sum(axis=0), squares + (part**2).sum(axis=0)
        count = len(features[feature_spec])
        mean = total / count
        means.append(mean)
        # A constant feature would be divided by 0.
        std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
        stds.append(np.where(std > 1e-6 * (1 + np.abs(mean)), std, np.inf))
    return Scale(np.concatenate(means), np.concatenate(stds))


def scaled_parts(
    features: Features, feature_specs: Sequence[Any], scale: Scale, index_N: NDArray[np.intp] | None
) -> Iterator[Floats]:
    for part in _parts(features, feature_specs, index_N):
        yield (part - scale.mean_F) / scale.std_F


def _parts(features: Features, feature_specs: Sequence[Any], index_N: NDArray[np.intp] | None) -> Iterator[Floats]:
    count = len(features[feature_specs[0]]) if index_N is None else len(index_N)
    for start in range(0, count, _ROWS_AT_ONCE):
        rows: Any = slice(start, start + _ROWS_AT_ONCE) if index_N is None else index_N[start : start + _ROWS_AT_ONCE]
        yield np.concatenate([np.asarray(features[r][rows], dtype=np.float64) for r in feature_specs], axis=1)


def fold_moments(
    features: Features, feature_specs: Sequence[Any], scale: Scale, index_N: NDArray[np.intp], y_NK: Floats,
    fold_N: NDArray[np.int64],
) -> list[SufficientStats]:  # fmt: skip
    """The moments of each fold's rows. `y_NK` and `fold_N` belong to the rows of `index_N`."""
    size, outputs = len(scale.mean_F), y_NK.shape[1]
    shapes = (size,), (outputs,), (size, size), (size, outputs), (outputs,)
    sums = [SufficientStats(0.0, *(_there(np.zeros(shape)) for shape in shapes)) for _ in range(FOLDS)]
    start = 0
    for x_NF in scaled_parts(features, feature_specs, scale, index_N):
        y, fold = y_NK[start : start + len(x_NF)], fold_N[start : start + len(x_NF)]
        start += len(x_NF)
        for f in range(FOLDS):
            mine, gold = _there(x_NF[fold == f]), _there(y[fold == f])
            if len(mine):
                sums[f] += SufficientStats(
                    len(mine), mine.sum(axis=0), gold.sum(axis=0), mine.T @ mine, mine.T @ gold, (gold**2).sum(axis=0)
                )
    return [SufficientStats(part.n, *map(_back, part._parts()[1:])) for part in sums]


def _there(array: Floats) -> Any:
    device = _DEVICE.get()
    return array if device is None else torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _back(array: Any) -> Floats:
    found: Floats = array.cpu().numpy() if isinstance(array, torch.Tensor) else array
    return found


def _positive_solve(matrix_FF: Floats, right_FK: Floats) -> Floats:
    """Raises LinAlgError where the matrix is not positive definite."""
    if _DEVICE.get() is None:
        found: Floats = cho_solve(cho_factor(matrix_FF, lower=True, overwrite_a=True), right_FK)
        return found
    try:
        return _back(torch.cholesky_solve(_there(right_FK), torch.linalg.cholesky(_there(matrix_FF))))
    except RuntimeError as error:  # torch.linalg has its own kind
        raise LinAlgError(str(error)) from None


def solve(moments: SufficientStats, strength: float) -> Linear:
    """The weights with least mean squared error plus `strength` times their squared sum."""
    mean_x, mean_y = moments.x_F / moments.n, moments.y_K / moments.n
    covariance = moments.xx_FF / moments.n - np.outer(mean_x, mean_x)
    covariance[np.diag_indices_from(covariance)] += strength
    right = moments.xy_FK / moments.n - np.outer(mean_x, mean_y)
    try:
        weight: Floats = _positive_solve(covariance, right)
    except LinAlgError:  # rounding made it indefinite: few rows and a weak regularisation
        weight = np.asarray(np.linalg.lstsq(covariance, right, rcond=None)[0], dtype=np.float64)
    return Linear(weight, mean_y - mean_x @ weight)


def squared_errors(moments: SufficientStats, fit: Linear) -> Floats:
    """[K] sums of squared errors over the rows of `moments`, computed without the rows."""
    w, b = fit.weight_FK, fit.bias_K
    predicted_squares = ((moments.xx_FF @ w) * w).sum(axis=0) + 2 * b * (w.T @ moments.x_F) + b**2 * moments.n
    cross = (moments.xy_FK * w).sum(axis=0) + b * moments.y_K
    errors_K: Floats = moments.yy_K - 2 * cross + predicted_squares
    return errors_K


def explained_variance(folds: Sequence[SufficientStats], strengths: Sequence[float] = STRENGTHS) -> Floats:
    """[strengths, K]: 1 - squared error / variance of held-out golds; 1 is perfect, 0 is no better than the mean."""
    total = sum(folds[1:], start=folds[0])
    variance_K = np.maximum(total.yy_K - total.y_K**2 / total.n, 1e-12)
    # If all texts are in one fold, no training rows are left.
    held_out = [fold for fold in folds if 0 < fold.n < total.n]
    errors_SK = [sum(squared_errors(fold, solve(total - fold, s)) for fold in held_out) for s in strengths]
    return 1 - np.array(errors_SK) / variance_K


def held_out_scores(
    features: Features,
    feature_specs: Sequence[Any],
    scale: Scale,
    index_N: NDArray[np.intp],
    fold_N: NDArray[np.int64],
    fits: Sequence[Linear],
) -> Floats:
    """[N, K] out-of-fold scores: each row is scored by a fit that did not see it."""
    parts, start = [], 0
    for x_NF in scaled_parts(features, feature_specs, scale, index_N):
        fold = fold_N[start : start + len(x_NF)]
        start += len(x_NF)
        scores = np.zeros((len(x_NF), len(fits[0].bias_K)))
        for f, fit in enumerate(fits):
            scores[fold == f] = x_NF[fold == f] @ fit.weight_FK + fit.bias_K
        parts.append(scores)
    return np.concatenate(parts)

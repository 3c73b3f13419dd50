"""Metrics by their right names. Pure functions of gold and predicted values; none rounds, none imputes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np


def pearson(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Pearson correlation, -1..1; NaN where it is undefined: fewer than two rows, or a constant side."""
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold values but {len(predicted)} predictions")
    if len(gold) < 2:
        return math.nan
    g = np.asarray(gold, dtype=float) - np.mean(gold)
    p = np.asarray(predicted, dtype=float) - np.mean(predicted)
    norm = math.sqrt(float(g @ g) * float(p @ p))
    # A constant side leaves only rounding noise in its deviations.
    return float(g @ p) / norm if norm > 1e-12 else math.nan


def accuracy(gold: Sequence[object], predicted: Sequence[object]) -> float:
    """Share of equal pairs, 0..1; NaN without rows."""
    return _mean([float(g == p) for g, p in zip(gold, predicted, strict=True)])


def jaccard(gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]]) -> float:
    """Per-tweet Jaccard, the official metric of SemEval-2018 E-c, 0..1: the mean over tweets of
    |gold and predicted| / |gold or predicted|, where two empty sets count 1. NaN without rows.
    """
    return _mean([_overlap(set(g), set(p)) for g, p in zip(gold, predicted, strict=True)])


def f1_scores(
    gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]], labels: Sequence[str]
) -> tuple[float, float]:
    """Micro- and macro-averaged F1 over label sets, 0..1. A label in neither side has F1 0, as in SemEval's scorer."""
    hits, wrong, missed = (np.zeros(len(labels)) for _ in range(3))
    for g, p in zip(gold, predicted, strict=True):
        for i, label in enumerate(labels):
            hits[i] += label in g and label in p
            wrong[i] += label not in g and label in p
            missed[i] += label in g and label not in p
    each = [_f1(h, w, m) for h, w, m in zip(hits, wrong, missed, strict=True)]
    return _f1(hits.sum(), wrong.sum(), missed.sum()), _mean(each)


def _overlap(gold: set[str], predicted: set[str]) -> float:
    union = gold | predicted
    return len(gold & predicted) / len(union) if union else 1.0


def _f1(hits: float, wrong: float, missed: float) -> float:
    return 2 * hits / (2 * hits + wrong + missed) if hits else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan

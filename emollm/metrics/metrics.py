"""Metrics under their standard names. They are pure, do not round or impute, and are NaN if undefined.

Each metric has two forms: `pearson(gold, predicted)` is a number, and `pearson_of(gold, predicted)` the same formula as
a function of row counts, so that a bootstrap is one matrix product and cannot differ from the estimate.

Shapes: N rows, B resamples, L labels, K classes, S sums.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Resampled = Callable[[Floats], Floats]
"""Counts [B, N] of draws of each row to the metric of each resample [B]."""

_FLAT = 1e-9
"""A variance below this share of the whole sample's variance is rounding noise of a constant."""


def pearson(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Pearson correlation, -1..1; NaN if undefined: fewer than two rows, or a constant side."""
    return _once(pearson_of(gold, predicted), len(gold))


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Pearson correlation of the ranks, ties sharing their mean rank; NaN as for `pearson`."""
    return _once(spearman_of(gold, predicted), len(gold))


def mean_absolute_error(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Mean of |gold - predicted|, in the unit of the values; NaN without rows."""
    return _once(mae_of(gold, predicted), len(gold))


def concordance(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Lin's concordance correlation, -1..1 (Biometrics 45, 1989): 2 cov / (var + var + (difference of means)²).

    0 for a constant prediction, unlike Pearson; NaN without rows or where both sides are one and the same constant.
    """
    return _once(ccc_of(gold, predicted), len(gold))


def quadratic_kappa(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """Cohen's kappa with squared distances, -1..1: 1 - observed disagreement / that of independent raters.

    NaN where the expected disagreement is 0: one and the same class everywhere, or no rows.
    """
    return _once(kappa_of(gold, predicted), len(gold))


def accuracy(gold: Sequence[object], predicted: Sequence[object]) -> float:
    """Share of equal pairs, 0..1; NaN without rows."""
    return _once(accuracy_of(gold, predicted), len(gold))


def class_f1(gold: Sequence[object], predicted: Sequence[object], classes: Sequence[object]) -> float:
    """Mean over `classes` of each one's F1, 0..1. A class in neither side has F1 0."""
    return _once(class_f1_of(gold, predicted, classes), len(gold))


def jaccard(gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]]) -> float:
    """Per-tweet Jaccard, the official metric of SemEval-2018 E-c, 0..1: the mean over tweets of
    |gold and predicted| / |gold or predicted|, where two empty sets count 1. NaN without rows.
    """
    return _once(jaccard_of(gold, predicted), len(gold))


def f1_scores(
    gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]], labels: Sequence[str]
) -> tuple[float, float]:
    """Micro- and macro-averaged F1 over label sets, 0..1. A label in neither side has F1 0, as in SemEval's scorer."""
    micro, macro = (of(gold, predicted, labels) for of in (micro_f1_of, macro_f1_of))
    return _once(micro, len(gold)), _once(macro, len(gold))


def label_jaccard(
    gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]], labels: Sequence[str]
) -> float:
    """Jaccard of each label over all tweets, averaged with the label's gold count as weight, 0..1.

    What arXiv 2401.08508 prints as the "acc" of E-c; not the official metric, and .04 lower on the same outputs.
    NaN where no gold holds a label.
    """
    return _once(label_jaccard_of(gold, predicted, labels), len(gold))


def pearson_of(gold: Sequence[float], predicted: Sequence[float], among: Sequence[bool] | None = None) -> Resampled:
    """`among` selects rows, for metrics such as SemEval's Pearson over gold >= 0.5."""
    g_N, p_N = _standard(gold, predicted, among)
    one_N = np.ones(len(g_N)) if among is None else np.asarray(among, dtype=float)
    sums_NS = np.stack([one_N, g_N, p_N, g_N * g_N, p_N * p_N, g_N * p_N], axis=1) * one_N[:, None]
    return lambda counts_BN: _correlation(*(counts_BN @ sums_NS).T)


def spearman_of(gold: Sequence[float], predicted: Sequence[float]) -> Resampled:
    _check_lengths(gold, predicted)

    def of(counts_BN: Floats) -> Floats:
        g_BN, p_BN = _ranks(np.asarray(gold, float), counts_BN), _ranks(np.asarray(predicted, float), counts_BN)
        n_B = counts_BN.sum(axis=1)
        # Ranks about their mean, (n + 1) / 2, over n: sums of squares then stay near n / 12.
        for ranks_BN in (g_BN, p_BN):
            ranks_BN -= (n_B[:, None] + 1) / 2
            ranks_BN /= np.maximum(n_B[:, None], 1)
        sums = [(counts_BN * x).sum(axis=1) for x in (g_BN, p_BN, g_BN * g_BN, p_BN * p_BN, g_BN * p_BN)]
        return _correlation(n_B, *sums)

    return of


def mae_of(gold: Sequence[float], predicted: Sequence[float]) -> Resampled:
    _check_lengths(gold, predicted)
    return _mean_of(np.abs(np.asarray(gold, float) - np.asarray(predicted, float)))


def ccc_of(gold: Sequence[float], predicted: Sequence[float]) -> Resampled:
    _check_lengths(gold, predicted)
    centre = np.mean(gold) if len(gold) else 0.0
    g_N, p_N = np.asarray(gold, float) - centre, np.asarray(predicted, float) - centre
    sums_NS = np.stack([np.ones(len(g_N)), g_N, p_N, g_N * g_N, p_N * p_N, g_N * p_N], axis=1)

    def of(counts_BN: Floats) -> Floats:
        n, g, p, gg, pp, gp = (counts_BN @ sums_NS).T
        with np.errstate(invalid="ignore", divide="ignore"):
            apart = gg / n - (g / n) ** 2 + pp / n - (p / n) ** 2 + ((g - p) / n) ** 2
            value_B: Floats = 2 * (gp / n - g / n * p / n) / np.where(apart > 1e-15, apart, np.nan)
        return value_B

    return of


def kappa_of(gold: Sequence[int], predicted: Sequence[int]) -> Resampled:
    _check_lengths(gold, predicted)
    values_K = np.unique(np.asarray([*gold, *predicted], dtype=float))
    size = len(values_K)
    row_N, column_N = (np.searchsorted(values_K, np.asarray(side, float)) for side in (gold, predicted))
    cells_NS = np.zeros((len(gold), size * size))
    cells_NS[np.arange(len(gold)), row_N * size + column_N] = 1
    apart_KK = (values_K[:, None] - values_K[None, :]) ** 2

    def of(counts_BN: Floats) -> Floats:
        seen_BKK = (counts_BN @ cells_NS).reshape(len(counts_BN), size, size)
        expected_B = np.einsum("bi,ij,bj->b", seen_BKK.sum(axis=2), apart_KK, seen_BKK.sum(axis=1))
        observed_B = (seen_BKK * apart_KK).sum(axis=(1, 2)) * seen_BKK.sum(axis=(1, 2))
        return 1 - _ratio(observed_B, expected_B)

    return of


def accuracy_of(gold: Sequence[object], predicted: Sequence[object]) -> Resampled:
    return _mean_of(np.array([g == p for g, p in zip(gold, predicted, strict=True)], dtype=float))


def class_f1_of(gold: Sequence[object], predicted: Sequence[object], classes: Sequence[object]) -> Resampled:
    sets = [(str(g),) for g in gold], [(str(p),) for p in predicted]
    return macro_f1_of(*sets, [str(c) for c in classes])


def jaccard_of(gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]]) -> Resampled:
    return _mean_of(np.array([_overlap(set(g), set(p)) for g, p in zip(gold, predicted, strict=True)], dtype=float))


def micro_f1_of(
    gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]], labels: Sequence[str]
) -> Resampled:
    confusion = _confusion(gold, predicted, labels)
    return lambda counts_BN: _f1(confusion(counts_BN).sum(axis=2))


def macro_f1_of(
    gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]], labels: Sequence[str]
) -> Resampled:
    confusion = _confusion(gold, predicted, labels)
    return lambda counts_BN: _f1(confusion(counts_BN)).mean(axis=1)


def label_jaccard_of(
    gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]], labels: Sequence[str]
) -> Resampled:
    confusion = _confusion(gold, predicted, labels)

    def of(counts_BN: Floats) -> Floats:
        hits_BL, wrong_BL, missed_BL = confusion(counts_BN).swapaxes(0, 1)
        support_BL = hits_BL + missed_BL
        each_BL = np.nan_to_num(_ratio(hits_BL, hits_BL + wrong_BL + missed_BL))
        return _ratio((each_BL * support_BL).sum(axis=1), support_BL.sum(axis=1))

    return of


def _once(metric: Resampled, rows: int) -> float:
    return float(metric(np.ones((1, rows)))[0]) if rows else float("nan")


def _mean_of(values_N: Floats) -> Resampled:
    return lambda counts_BN: _ratio(counts_BN @ values_N, counts_BN.sum(axis=1))


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _check_lengths(gold: Sequence[object], predicted: Sequence[object]) -> None:
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold values but {len(predicted)} predictions")


def _standard(gold: Sequence[float], predicted: Sequence[float], among: Sequence[bool] | None) -> tuple[Floats, Floats]:
    """Both sides standardised to mean 0 and deviation 1 over the counted rows; a constant side is all 0."""
    _check_lengths(gold, predicted)
    keep_N = np.ones(len(gold), dtype=bool) if among is None else np.asarray(among, dtype=bool)
    sides = []
    for side in (np.asarray(gold, dtype=float), np.asarray(predicted, dtype=float)):
        kept = side[keep_N]
        flat = not len(kept) or np.ptp(kept) == 0
        sides.append(np.zeros_like(side) if flat else (side - kept.mean()) / kept.std())
    return sides[0], sides[1]


def _correlation(n: Floats, g: Floats, p: Floats, gg: Floats, pp: Floats, gp: Floats) -> Floats:
    """Pearson from sums over rows of values whose deviation is about 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        g_var, p_var = gg / n - (g / n) ** 2, pp / n - (p / n) ** 2
        value = (gp / n - g / n * p / n) / np.sqrt(g_var * p_var)
        defined = (n >= 2) & (g_var > _FLAT) & (p_var > _FLAT)
    return np.where(defined, np.clip(value, -1.0, 1.0), np.nan)


def _ranks(values_N: Floats, counts_BN: Floats) -> Floats:
    """Ranks from 1 of each row within each resample [B, N], ties sharing their mean."""
    _, place_N = np.unique(values_N, return_inverse=True)
    starts = np.flatnonzero(np.diff(place_N[np.argsort(place_N, kind="stable")], prepend=-1))
    many_BG = np.add.reduceat(counts_BN[:, np.argsort(place_N, kind="stable")], starts, axis=1)
    rank_BG = np.cumsum(many_BG, axis=1) - (many_BG - 1) / 2
    return rank_BG[:, place_N]


def _overlap(gold: set[str], predicted: set[str]) -> float:
    union = gold | predicted
    return len(gold & predicted) / len(union) if union else 1.0


def _confusion(
    gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]], labels: Sequence[str]
) -> Callable[[Floats], Floats]:
    """Counts [B, N] to hits, wrong and missed of each label [B, 3, L]."""
    _check_lengths(gold, predicted)
    g_NL, p_NL = (
        np.array([[label in one for label in labels] for one in side], dtype=bool).reshape(-1, len(labels))
        for side in (gold, predicted)
    )
    cells_NS = np.concatenate([g_NL & p_NL, ~g_NL & p_NL, g_NL & ~p_NL], axis=1).astype(float)
    return lambda counts_BN: (counts_BN @ cells_NS).reshape(-1, 3, len(labels))


def _f1(confusion: Floats) -> Floats:
    hits, wrong, missed = confusion[:, 0], confusion[:, 1], confusion[:, 2]
    return np.where(hits > 0, 2 * hits / np.maximum(2 * hits + wrong + missed, 1e-12), 0.0)

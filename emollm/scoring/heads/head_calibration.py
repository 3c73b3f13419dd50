"""Held-out scores and golds to the calibration of a head: slopes, offsets, spread and thresholds.

It is fitted on texts that the scores were not fitted on. Golds may be a teacher's soft labels.

Shapes: N texts, K classes or labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logit

from emollm.core.heads_card import Head
from emollm.core.tasks import Kind, Task
from emollm.scoring.arrays import Floats
from emollm.scoring.heads.readout import (
    class_probabilities,
    class_values,
    given_classes,
    given_labels,
    label_probabilities,
    numbers,
)

LEAST_TEXTS = 10
"""Held-out texts that a calibration needs."""
_TINY = 1e-9
_LEAST_STD = 0.02
"""Lower bound of a number's spread: a few hundred texts cannot show that it is smaller."""


def calibrated(task: Task, head: Head, scores_NK: Floats, golds_NK: Floats, variance_N: Floats | None = None) -> Head:
    """The head with its calibration filled in.

    `variance_N` is that of several raters about their mean, the gold: a number's spread is then that of what one rater
    says, as a normal distribution.
    """
    match task.kind:
        case Kind.REGRESSION:
            return head.model_copy(update=_number(scores_NK[:, 0], golds_NK[:, 0], variance_N))
        case Kind.ORDINAL:
            return _ordinal(task, head, scores_NK[:, 0], golds_NK)
        case Kind.SINGLE_LABEL:
            return head.model_copy(update=_single_label(scores_NK, golds_NK))
        case Kind.LABEL_SET:
            return _label_set(head, scores_NK, golds_NK)


def _number(score_N: Floats, gold_N: Floats, variance_N: Floats | None) -> dict[str, Any]:
    slope, offset = 1.0, 0.0
    if np.ptp(score_N) > _TINY:
        slope, offset = (float(v) for v in np.polyfit(score_N, gold_N, 1))
    mean_N = score_N * slope + offset
    return {"slope": (slope,), "offset": (offset,), "spread": _spread(mean_N, gold_N, variance_N)}


def _spread(mean_N: Floats, gold_N: Floats, variance_N: Floats | None) -> tuple[tuple[float, float], ...]:
    """The standard deviation of the residuals in up to five parts of equal size, from low predictions to high."""
    parts = max(1, min(5, len(mean_N) // 100))
    squared_N = (gold_N - mean_N) ** 2 + (0.0 if variance_N is None else variance_N)
    knots = []
    for part in np.array_split(np.argsort(mean_N, kind="stable"), parts):
        std = float(np.sqrt(np.mean(squared_N[part])))
        knots.append((float(mean_N[part].mean()), max(std, _LEAST_STD)))
    return tuple(knots)


def _ordinal(task: Task, head: Head, score_N: Floats, golds_NK: Floats) -> Head:
    """Maximum likelihood of the proportional-odds model with one score, then the better of two decision rules."""
    scale = float(score_N.std()) or 1.0
    z_N = (score_N - score_N.mean()) / scale
    share = np.clip(golds_NK.mean(axis=0).cumsum()[:-1], 0.01, 0.99)
    first = np.log(share / (1 - share))
    # The differences are exponentials, so the thresholds ascend even if a class never occurs.
    start = np.concatenate([[0.5, first[0]], np.log(np.maximum(np.diff(first), 1e-3))])

    def unpack(x: Floats) -> tuple[float, Floats]:
        return float(x[0]), np.concatenate([[x[1]], x[1] + np.cumsum(np.exp(x[2:]))])

    def loss(x: Floats) -> float:
        slope, cuts = unpack(x)
        below = expit(cuts[None, :] - slope * z_N[:, None])
        each = np.diff(below, axis=1, prepend=0.0, append=1.0)
        return float(-(golds_NK * np.log(np.maximum(each, _TINY))).sum() / len(z_N) + 1e-4 * (x[0] ** 2))

    slope, cuts = unpack(minimize(loss, start, method="L-BFGS-B").x)
    # Undo the standardisation of the score.
    shift = slope * float(score_N.mean()) / scale
    fitted = head.model_copy(update={"slope": (slope / scale,), "offset": tuple(float(c) + shift for c in cuts)})
    each_NK = class_probabilities(fitted, score_N[:, None])
    # By the task's own metric: correlation is better with the class nearest to the expected value.
    metric = "pearson" if task.metric == "pearson" else "accuracy"
    likeliest, expected = (_class_metrics(task, each_NK, golds_NK, d)[metric] for d in ("likeliest", "expected"))
    return fitted.model_copy(update={"decision": "expected" if expected > likeliest else "likeliest"})


def _class_metrics(task: Task, each_NK: Floats, golds_NK: Floats, decision: str) -> dict[str, float]:
    given_N, value_K = given_classes(task, each_NK, decision), class_values(task)
    right = float((given_N == golds_NK.argmax(axis=1)).mean())
    return {"pearson": correlation(value_K[given_N], golds_NK @ value_K), "accuracy": right}


def _single_label(scores_NK: Floats, golds_NK: Floats) -> dict[str, Any]:
    """Temperature and one bias per label, by maximum likelihood."""
    count = scores_NK.shape[1]

    def loss(x: Floats) -> float:
        log_p = log_softmax(scores_NK * x[0] + x[1:], axis=1)
        return float(-(golds_NK * log_p).sum() / len(scores_NK) + 1e-4 * (x**2).sum())

    x = minimize(loss, np.concatenate([[1.0], np.zeros(count)]), method="L-BFGS-B").x
    return {"slope": (float(x[0]),) * count, "offset": tuple(float(b) for b in x[1:])}


def _label_set(head: Head, scores_NK: Floats, golds_NK: Floats) -> Head:
    """One logistic curve per label (Platt 1999), then the decision with the largest Jaccard index plus macro-F1.

    By the Jaccard index alone rare labels are hardly ever given: moving each label half way to the threshold that is
    best for its own F1 gave .013 of E-c's macro-F1 for .001 of its Jaccard index (LOG.md).
    """
    slopes, offsets = zip(*(_platt(s, g) for s, g in zip(scores_NK.T, golds_NK.T, strict=True)), strict=True)
    fitted = head.model_copy(update={"slope": slopes, "offset": offsets})
    each_NK = label_probabilities(fitted, scores_NK, exclusive=False)
    decided = [fitted.model_copy(update=update) for update in _decisions(each_NK, golds_NK)]
    return max(decided, key=lambda head: _set_quality(head, each_NK, golds_NK))


def _decisions(each_NK: Floats, golds_NK: Floats) -> list[dict[str, Any]]:
    one_K = jaccard_thresholds(each_NK, golds_NK)
    f1_K = f1_thresholds(each_NK, golds_NK)
    lift_K = 0.5 * (logit(one_K) - logit(f1_K))
    mixed_K = 0.7 * np.array(one_K) + 0.3 * f1_K
    return [
        {"decision": "jaccard", "thresholds": one_K},
        {"decision": "jaccard", "thresholds": one_K, "lift": tuple(lift_K.round(3).tolist())},
        {"decision": "thresholds", "thresholds": one_K},
        {"decision": "thresholds", "thresholds": tuple(mixed_K.round(3).tolist())},
    ]


def _set_quality(head: Head, each_NK: Floats, golds_NK: Floats) -> float:
    given_NK = given_labels(head, each_NK)
    return soft_jaccard(given_NK, golds_NK) + macro_f1(given_NK, golds_NK)


def _platt(score_N: Floats, gold_N: Floats) -> tuple[float, float]:
    scale = float(score_N.std()) or 1.0
    z_N = (score_N - score_N.mean()) / scale
    share = float(np.clip(gold_N.mean(), 1e-3, 1 - 1e-3))

    def loss(x: Floats) -> float:
        logit = x[0] * z_N + x[1]
        return float((np.logaddexp(0, logit) - gold_N * logit).mean() + 1e-4 * x[0] ** 2)

    a, b = minimize(loss, np.array([0.5, np.log(share / (1 - share))]), method="L-BFGS-B").x
    return float(a / scale), float(b - a * score_N.mean() / scale)


def jaccard_thresholds(each_NK: Floats, golds_NK: Floats) -> tuple[float, ...]:
    """One threshold for all labels: the one with the largest mean Jaccard index, in steps of .01."""
    grid = np.arange(0.10, 0.61, 0.01)
    best = max(grid.tolist(), key=lambda t: soft_jaccard(each_NK >= t, golds_NK))
    return (round(best, 2),) * int(golds_NK.shape[1])


def f1_thresholds(each_NK: Floats, golds_NK: Floats) -> Floats:
    """[K] the threshold of each label with the largest F1, to .01."""
    grid = np.arange(0.05, 0.70, 0.01)
    f1_TK = np.array([_f1(each_NK >= t, golds_NK) for t in grid])
    best_K: Floats = grid[f1_TK.argmax(axis=0)]
    return best_K


def macro_f1(given_NK: Any, golds_NK: Floats) -> float:
    """The F1 of each label, averaged; 0 of a label that is neither given nor held."""
    return float(_f1(given_NK, golds_NK).mean())


def _f1(given_NK: Any, golds_NK: Floats) -> Floats:
    both_K = np.minimum(given_NK, golds_NK).sum(axis=0)
    f1_K: Floats = 2 * both_K / np.maximum(np.sum(given_NK, axis=0) + golds_NK.sum(axis=0), _TINY)
    return f1_K


def soft_jaccard(given_NK: Any, golds_NK: Floats) -> float:
    """The mean Jaccard index of sets; for soft golds min over max, which is the same for golds of 0 and 1."""
    both = np.minimum(given_NK, golds_NK).sum(axis=1)
    either = np.maximum(given_NK, golds_NK).sum(axis=1)
    return float(np.where(either > 0, both / np.maximum(either, _TINY), 1.0).mean())


def correlation(a_N: Any, b_N: Any) -> float:
    return float(np.corrcoef(a_N, b_N)[0, 1]) if np.ptp(a_N) > 0 and np.ptp(b_N) > 0 else -1.0


def held_out_metrics(task: Task, head: Head, scores_NK: Floats, golds_NK: Floats) -> dict[str, float]:
    """The task's own metric on the texts of these scores, and the coverage of a number's 90% interval."""
    match task.kind:
        case Kind.REGRESSION:
            found = numbers(head, scores_NK)
            unit_N, std_N = found.moments()
            inside_N = np.abs(golds_NK[:, 0] - unit_N) <= 1.645 * std_N
            return {"pearson": correlation(unit_N, golds_NK[:, 0]), "in_90": float(inside_N.mean())}
        case Kind.ORDINAL:
            return _class_metrics(task, class_probabilities(head, scores_NK), golds_NK, head.decision)
        case Kind.SINGLE_LABEL:
            each_NK = label_probabilities(head, scores_NK, exclusive=True)
            return {"accuracy": float((each_NK.argmax(axis=1) == golds_NK.argmax(axis=1)).mean())}
        case Kind.LABEL_SET:
            each_NK = label_probabilities(head, scores_NK, exclusive=False)
            given_NK = given_labels(head, each_NK)
            return {"jaccard": soft_jaccard(given_NK, golds_NK), "macro_f1": macro_f1(given_NK, golds_NK)}

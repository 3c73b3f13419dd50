"""Predictions against several raters: distributions, the human ceiling, and metrics over all posts.

A third of the posts has no majority answer. So a model is compared with the distribution of the ratings, and with one
rater drawn for each post: both are measured against the other raters. No post is dropped because it has no majority:
the all-inclusive rule (Chou et al. 2024) counts every label that more than one in C raters gave.

Shapes: N posts, K classes or labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from emollm.core.answers import to_unit
from emollm.core.conformal import Floats
from emollm.core.tasks import Kind, QuestionKey, Task, Value
from emollm.data.raters import against_the_rest, alpha, label_shares
from emollm.metrics import metrics
from emollm.metrics.agreement import MEASURES, agreement
from emollm.metrics.conformal import by_question
from emollm.metrics.predictions import Prediction

_TINY = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterFigures:
    """The figures of one question on posts with two or more raters; NaN if undefined."""

    question: str
    posts: int
    raters: float
    """Mean number of ratings per post."""
    alpha: float
    measure: str
    """The metric of the next two: Pearson, quadratic kappa, the share of equal labels, or the mean Jaccard index."""
    human: float
    """One rater, drawn for each post, against the value of the others: the ceiling."""
    model: float
    """The model against the same value of the others."""
    cross_entropy: float
    """Of the ratings under the model's distribution, in nats: of classes and labels (a set: each label), of numbers by
    a normal distribution over 0..1."""
    js: float
    """Jensen-Shannon divergence of the model's distribution from the ratings', 0..1 (base 2); of a set each label's
    mean. NaN of numbers."""
    doubt: float
    """Spearman correlation of the model's spread (std, or entropy) with the raters' disagreement."""
    without_majority: int
    """Posts on which no answer has more than half of the raters; 0 for numbers."""
    majority_f1: float
    """Macro-F1 on the other posts only. NaN for numbers."""
    all_inclusive_f1: float
    """Macro-F1 on all posts, where a label is gold that more than one in K raters gave, and predicted from a
    probability of one in K on (of a set: where it is given). NaN of numbers."""

    def as_json(self) -> dict[str, Any]:
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}


def measure_raters(predictions: Sequence[Prediction]) -> list[RaterFigures]:
    """The figures of each question that has posts with several raters."""
    found = []
    for key, mine in by_question(predictions).items():
        rated = [p for p in mine if len(p.question.ratings) >= 2 and p.value is not None]
        if len(rated) >= 2:
            found.append(_question(key, rated))
    return found


def _question(key: QuestionKey, rated: Sequence[Prediction]) -> RaterFigures:
    task = rated[0].question.task
    ratings = [p.question.ratings for p in rated]
    places, ones, rests = against_the_rest(task, ratings)
    said: list[Value] = [rated[n].value for n in places]  # type: ignore[misc]
    return RaterFigures(
        question=str(key),
        posts=len(rated),
        raters=float(np.mean([len(row) for row in ratings])),
        alpha=alpha(task, ratings),
        measure=MEASURES[task.kind],
        human=agreement(task, rests, ones),
        model=agreement(task, rests, said),
        **(_numbers(task, rated) if task.kind is Kind.REGRESSION else _labels(task, rated)),
    )


def _numbers(task: Task, rated: Sequence[Prediction]) -> dict[str, Any]:
    nan = float("nan")
    stds = [p.std for p in rated]
    found = {"cross_entropy": nan, "js": nan, "doubt": nan, "without_majority": 0, "majority_f1": nan,
             "all_inclusive_f1": nan}  # fmt: skip
    if not all(stds):
        return found
    assert task.low is not None and task.high is not None
    std_N = np.array(stds, dtype=float) / (task.high - task.low)
    nats = [
        np.mean([(to_unit(task, r) - to_unit(task, p.value)) ** 2 / (2 * s**2) + math.log(s * math.sqrt(2 * math.pi))  # type: ignore[arg-type]
                 for r in p.question.ratings])
        for p, s in zip(rated, std_N, strict=True)
    ]  # fmt: skip
    spread_N = np.array([np.std(p.question.ratings) for p in rated])  # type: ignore[arg-type]
    return found | {"cross_entropy": float(np.mean(nats)), "doubt": metrics.spearman(spread_N.tolist(), std_N.tolist())}


def _labels(task: Task, rated: Sequence[Prediction]) -> dict[str, Any]:
    names = task.answer_names
    shares = [label_shares(task, p.question.ratings) for p in rated]
    share_NK = np.array([[share[name] for name in names] for share in shares])
    gold, said = _all_inclusive(task, rated, share_NK)
    # Of a set every label has a majority for or against it, but for ties.
    sure_N = (share_NK != 0.5).all(axis=1) if task.kind is Kind.LABEL_SET else share_NK.max(axis=1) > 0.5
    kept = np.flatnonzero(sure_N).tolist()
    found: dict[str, Any] = {
        "without_majority": int((~sure_N).sum()),
        "majority_f1": _majority_f1(task, [rated[n] for n in kept]),
        "all_inclusive_f1": _set_f1(task, gold, said),
    }
    if any(set(p.probabilities) != set(names) for p in rated):
        return found | dict.fromkeys(("cross_entropy", "js", "doubt"), float("nan"))
    p_NK = np.array([[p.probabilities[name] for name in names] for p in rated], dtype=float)
    if task.kind is Kind.LABEL_SET:
        nats_N = (_entropy(share_NK, p_NK) + _entropy(1 - share_NK, 1 - p_NK)).mean(axis=1)
        js_N = _js(np.stack([share_NK, 1 - share_NK], axis=-1), np.stack([p_NK, 1 - p_NK], axis=-1)).mean(axis=1)
        apart_N = (share_NK * (1 - share_NK)).sum(axis=1)
        spread_N = (p_NK * (1 - p_NK)).sum(axis=1)
    else:
        nats_N, js_N = _entropy(share_NK, p_NK).sum(axis=1), _js(share_NK, p_NK)
        apart_N, spread_N = _entropy(share_NK, share_NK).sum(axis=1), _entropy(p_NK, p_NK).sum(axis=1)
    return found | {
        "cross_entropy": float(nats_N.mean()),
        "js": float(js_N.mean()),
        "doubt": metrics.spearman(apart_N.tolist(), spread_N.tolist()),
    }


def _all_inclusive(
    task: Task, rated: Sequence[Prediction], share_NK: Floats
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Gold and predicted sets of answers; of a label set what is given is what is predicted."""
    least = 1 / len(task.answer_names)
    names = task.answer_names
    gold = [tuple(name for name, share in zip(names, row, strict=True) if share > least + _TINY) for row in share_NK]
    said = []
    for p in rated:
        if isinstance(p.value, tuple):
            said.append(p.value)
        else:
            likely = tuple(name for name in names if p.probabilities.get(name, 0.0) > least)
            said.append(likely or (str(p.value),))
    return gold, said


def _majority_f1(task: Task, rated: Sequence[Prediction]) -> float:
    if len(rated) < 2:
        return float("nan")
    golds, said = [p.question.gold for p in rated], [p.value for p in rated]
    if task.kind is Kind.LABEL_SET:
        return _set_f1(task, golds, said)  # type: ignore[arg-type]
    ones = np.ones((1, len(rated)))
    return float(metrics.class_f1_of(golds, said, task.answer_values)(ones)[0])


def _set_f1(task: Task, gold: Sequence[tuple[str, ...]], said: Sequence[tuple[str, ...]]) -> float:
    return float(metrics.macro_f1_of(gold, said, task.answer_names)(np.ones((1, len(gold))))[0])


def _entropy(share: Floats, p: Floats) -> Floats:
    """Terms of the cross-entropy."""
    return -share * np.log(np.clip(p, _TINY, None))


def _js(a: Floats, b: Floats) -> Floats:
    """Jensen-Shannon divergence over the last axis, base 2."""
    middle = (a + b) / 2

    def kl(p: Floats) -> Floats:
        terms = np.where(p > 0, p * np.log2(np.clip(p, _TINY, None) / np.clip(middle, _TINY, None)), 0.0)
        total: Floats = terms.sum(axis=-1)
        return total

    return (kl(a) + kl(b)) / 2

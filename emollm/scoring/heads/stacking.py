"""Stacking: a second ridge regression of each question on the out-of-fold scores of all questions.

A tweet's E-c labels say something about its valence too, and there are six times as many of them. A linear map of
linear scores is linear: the result has the same form of weights, and an answer costs the same.

Shapes: N texts, O scores (all outputs of all questions), F features, K outputs of a question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emollm.core.tasks import QuestionKey
from emollm.scoring.heads.labels import Floats
from emollm.scoring.heads.ridge import (
    explained_variance,
    fold_moments,
    held_out_scores,
    scale_of,
    solve,
)

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
_SCORES = ("scores",)


@dataclass(frozen=True, slots=True)
class First:
    """The first fit of a question."""

    index_N: NDArray[np.intp]
    """The texts with a gold."""
    targets_NK: Floats
    held_out_NK: Floats
    """Out-of-fold scores of all texts."""
    weights_KF: Floats
    """Weights of the unscaled features, then the bias."""
    explained: float
    """Held-out variance explained."""


@dataclass(frozen=True, slots=True)
class Second:
    """The same question, fitted on the scores of all questions."""

    held_out_NK: Floats
    """For the texts with a gold only."""
    weights_KF: Floats
    explained: float


def borrowed(firsts: Mapping[QuestionKey, First], fold_N: NDArray[np.int64]) -> dict[QuestionKey, Second]:
    """The second fit of every question."""
    scores_NO = np.concatenate([first.held_out_NK for first in firsts.values()], axis=1)
    weights_OF = np.concatenate([first.weights_KF for first in firsts.values()])
    features = {"scores": scores_NO.astype(np.float32)}
    scale = scale_of(features, _SCORES)
    found = {}
    for key, first in firsts.items():
        mine = fold_N[first.index_N]
        moments = fold_moments(features, _SCORES, scale, first.index_N, first.targets_NK, mine)
        explained_S = explained_variance(moments, STRENGTHS).mean(axis=1)
        strength = STRENGTHS[int(explained_S.argmax())]
        total = sum(moments[1:], start=moments[0])
        without = [solve(total - part, strength) for part in moments]
        held_out_NK = held_out_scores(features, _SCORES, scale, first.index_N, mine, without)
        fit = solve(total, strength)
        mix_OK = fit.weight_FK / scale.std_F[:, None]
        weights_KF = mix_OK.T @ weights_OF
        weights_KF[:, -1] += fit.bias_K - scale.mean_F @ mix_OK
        found[key] = Second(held_out_NK, weights_KF, float(explained_S.max()))
    return found


def is_better(firsts: Mapping[QuestionKey, First], seconds: Mapping[QuestionKey, Second]) -> bool:
    """Whether the second fits explain more held-out variance, averaged over emotions and then over tasks."""
    own = {key: first.explained for key, first in firsts.items()}
    return per_task({key: second.explained for key, second in seconds.items()}) > per_task(own)


def per_task(explained: Mapping[QuestionKey, float]) -> float:
    tasks: dict[str, list[float]] = {}
    for (task, _), value in explained.items():
        tasks.setdefault(task, []).append(value)
    return float(np.mean([np.mean(values) for values in tasks.values()]))

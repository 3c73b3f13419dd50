"""Sets and intervals with a promise: split-conformal prediction, kept in `affect.json` beside the calibration.

Fitted on validation rows that the model did not learn from, by `emollm calibrate`. A score says how far an answer is
from its truth; the quantile of the validation scores is how far a new truth will be, at most, for that share of posts
(Vovk et al. 2005; Angelopoulos and Bates 2023). The promise holds on average over posts like the validation rows, and
over no others.

Scores: of a class one minus its probability (Sadinle et al. 2019); of a label set the largest one minus probability
of its labels, so that the set holds all true labels; of a number its distance in standard deviations of the answer.

Shapes: N posts, K classes or labels.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emollm.core.frozen import Frozen
from emollm.core.tasks import QuestionKey

Floats = NDArray[np.float64]
LEVELS = ("0.5", "0.8", "0.9", "0.95")
"""Shares of posts that quantiles are kept for."""


class Conformal(Frozen):
    """The quantiles of one task and emotion."""

    task: str
    emotion: str | None = None
    score: Literal["probability", "std", "distance"]
    """What the quantiles are of: one minus a probability; a number's distance in standard deviations, or, where the
    engine gives none, in the task's own unit."""
    rows: int = Field(ge=1)
    """Validation rows they were taken from."""
    quantiles: dict[str, float]
    """By level, such as "0.9"; a level that needs more rows is not there."""

    @property
    def key(self) -> QuestionKey:
        return QuestionKey(self.task, self.emotion)


def quantile(scores_N: Floats, level: float) -> float | None:
    """The smallest score that `level` of new scores will not exceed: the ceil((N + 1) level)-th; None if N is too
    small.
    """
    rank = math.ceil((len(scores_N) + 1) * level - 1e-9)
    return float(np.sort(scores_N)[rank - 1]) if 1 <= rank <= len(scores_N) else None


def quantiles(scores_N: Floats) -> dict[str, float]:
    """By level."""
    found = {level: quantile(scores_N, float(level)) for level in LEVELS}
    return {level: q for level, q in found.items() if q is not None}


def in_set(probabilities_NK: Floats, q: float, *, exclusive: bool) -> NDArray[np.bool_]:
    """[N, K]: the classes or labels in each set. The likeliest class is always in: a set that is empty says nothing."""
    held_NK: NDArray[np.bool_] = probabilities_NK >= 1.0 - q - 1e-6  # columns are kept as float32
    if exclusive:
        held_NK[np.arange(len(held_NK)), probabilities_NK.argmax(axis=1)] = True
    return held_NK


def interval(value_N: Floats, unit_N: Floats, q: float, *, low: float, high: float) -> tuple[Floats, Floats]:
    """Both ends of each interval, within the task's range; `unit_N` is the standard deviation, or 1."""
    return np.clip(value_N - q * unit_N, low, high), np.clip(value_N + q * unit_N, low, high)

"""Sets and intervals with guaranteed coverage: split-conformal prediction, stored in `affect.json`.

`emollm calibrate` fits them on validation rows that were not used for training. A score is the distance of the truth
from the answer; the quantile of the validation scores bounds it on new posts, for that share of posts (Vovk et al.
2005; Angelopoulos and Bates 2023). The guarantee holds on average, and only over posts like the validation rows.

Scores: for a class one minus its probability (Sadinle et al. 2019); for a label set the largest such value of its
labels, so that the set contains all true labels; for a number its distance in standard deviations of the answer.

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
"""Shares of posts for which quantiles are stored."""


class Conformal(Frozen):
    """The quantiles of one task and emotion."""

    task: str
    emotion: str | None = None
    score: Literal["probability", "std", "distance"]
    """The kind of score: one minus a probability; a number's distance in standard deviations, or, if the
    engine gives none, in the task's own unit."""
    rows: int = Field(ge=1)
    """Number of validation rows."""
    quantiles: dict[str, float]
    """By level, such as "0.9"; levels that need more rows are missing."""

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
    """[N, K]: the classes or labels in each set. The most likely class is always included."""
    held_NK: NDArray[np.bool_] = probabilities_NK >= 1.0 - q - 1e-6  # columns are stored as float32
    if exclusive:
        held_NK[np.arange(len(held_NK)), probabilities_NK.argmax(axis=1)] = True
    return held_NK


def interval(value_N: Floats, unit_N: Floats, q: float, *, low: float, high: float) -> tuple[Floats, Floats]:
    """Both ends of each interval, within the task's range; `unit_N` is the standard deviation, or 1."""
    return np.clip(value_N - q * unit_N, low, high), np.clip(value_N + q * unit_N, low, high)

"""Calibration: maps that make a model's probabilities match observed frequencies, stored in `affect.json`.

`emollm calibrate` fits them on validation rows, one set per engine, since engines give different distributions for the
same model; `scoring/calibrated.py` applies those of the engine in use. No map changes which class or labels are
answered, nor the order of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from emollm.core.answers import Answer, from_unit
from emollm.core.conformal import Conformal
from emollm.core.frozen import Frozen
from emollm.core.tasks import Kind, QuestionKey, Task

_TENTHS = (*(f"0.{tenth}" for tenth in range(10)), "1")


class Curve(Frozen):
    """An increasing map from probabilities to probabilities, linear between its knots."""

    x: tuple[float, ...] = Field(min_length=1)
    y: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if len(self.x) != len(self.y) or sorted(self.x) != list(self.x) or sorted(self.y) != list(self.y):
            raise ValueError("a curve has as many y as x, and both rise")
        return self

    def __call__(self, probability: float) -> float:
        return float(np.interp(probability, self.x, self.y))


class QuestionCalibration(Frozen):
    """The maps of one task and emotion; maps for other kinds of tasks keep their defaults."""

    task: str
    emotion: str | None = None
    rows: int = Field(ge=1)
    """Validation rows it was fitted on."""
    temperature: float = Field(1.0, gt=0)
    """Classes and single labels: log probabilities are divided by it (Guo et al., ICML 2017)."""
    labels: dict[str, Curve] = Field(default_factory=dict)
    """Label sets: each label's probability, isotonic."""
    confidence: Curve | None = None
    """Label sets and numbers: the confidence, isotonic; a number is right within .1 (of 0..1)."""
    slope: float = Field(1.0, gt=0)
    """Numbers, in 0..1: value times slope plus offset. Correlations change only by clipping at the ends."""
    offset: float = 0.0
    std_scale: float = Field(1.0, gt=0)
    """Numbers: factor of the standard deviation, in addition to the slope: 90% intervals then contain 90% of golds."""

    @property
    def key(self) -> QuestionKey:
        return QuestionKey(self.task, self.emotion)

    def apply(self, task: Task, answer: Answer) -> Answer:
        """The answer with calibrated value, spread and probabilities; one with an error stays as it is."""
        if answer.value is None:
            return answer
        match task.kind:
            case Kind.REGRESSION:
                return self._number(task, answer)
            case Kind.LABEL_SET:
                probabilities = {
                    label: self.labels[label](p) if label in self.labels else p
                    for label, p in answer.probabilities.items()
                }
                return replace(answer, probabilities=probabilities, confidence=self._confidence(answer.confidence))
            case _:
                probabilities = tempered(answer.probabilities, self.temperature)
                sure = probabilities.get(str(answer.value))
                return replace(
                    answer,
                    probabilities=probabilities,
                    # An engine without a distribution has a confidence alone.
                    confidence=self._confidence(answer.confidence) if sure is None else sure,
                )

    def _number(self, task: Task, answer: Answer) -> Answer:
        if answer.unit is None:
            return answer
        assert task.low is not None and task.high is not None
        unit = min(max(self.slope * answer.unit + self.offset, 0.0), 1.0)
        std = None if answer.std is None else answer.std * self.slope * self.std_scale
        probabilities: Mapping[str, float] = answer.probabilities
        if std and answer.probabilities:
            probabilities = tenths(unit, std / (task.high - task.low))
        return replace(
            answer,
            value=from_unit(task, unit),
            unit=unit,
            std=std,
            probabilities=dict(probabilities),
            confidence=self._confidence(answer.confidence),
        )

    def _confidence(self, confidence: float | None) -> float | None:
        return confidence if confidence is None or self.confidence is None else self.confidence(confidence)


class Abstention(Frozen):
    """Abstention threshold of a task: abstain below `confidence`. Only `--abstain precision=...` applies it."""

    confidence: float = Field(ge=0, le=1)
    """Of a calibrated answer."""
    right_share: float = Field(gt=0, le=1)
    """Requested accuracy of the answers above it; for a label set, of the answered labels."""
    kept: float = Field(ge=0, le=1)
    """Share of the validation rows above it."""


class Calibration(Frozen):
    """All maps of one engine."""

    questions: tuple[QuestionCalibration, ...]
    """None if only thresholds and sets were fitted (`--no-maps`): the engine's answers are unchanged."""
    abstain: dict[str, tuple[Abstention, ...]] = Field(default_factory=dict)
    """By task, for each accuracy that some threshold reaches, ascending; empty if none does. Measured on
    texts that the maps were not fitted on."""
    sets: tuple[Conformal, ...] = ()
    """For each question, the quantiles of its conformal scores. Measured on texts that the maps were not fitted on."""
    fitted_on: dict[str, Any] = Field(default_factory=dict)
    """Where the validation rows came from."""

    def of(self, key: QuestionKey) -> QuestionCalibration | None:
        return next((maps for maps in self.questions if maps.key == key), None)

    def set_of(self, key: QuestionKey) -> Conformal | None:
        return next((one for one in self.sets if one.key == key), None)


def tempered(probabilities: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Probabilities to the power of 1 / temperature, summing to 1 again; empty stays empty."""
    if not probabilities or temperature == 1.0:
        return dict(probabilities)
    powers = temper(np.array([list(probabilities.values())]), temperature)[0]
    return dict(zip(probabilities, map(float, powers), strict=True))


def temper(probabilities_NK: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    logs = np.log(np.clip(probabilities_NK, 1e-12, None)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    normalised: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return normalised


def tenths(unit: float, std: float) -> dict[str, float]:
    """A normal distribution truncated at 0 and 1, as probabilities of the tenths of an `Answer`."""
    from scipy.special import ndtr

    below = ndtr((np.arange(1, 11) / 10 - unit) / std)
    shares = np.diff(below, prepend=0.0, append=1.0)
    return dict(zip(_TENTHS, map(float, shares), strict=True))

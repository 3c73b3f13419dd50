"""Applies the calibration in a model's card to the answers of any engine, as objects and as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from emollm.core.answers import Answer
from emollm.core.calibration import Calibration, Curve, QuestionCalibration, temper
from emollm.core.card import AffectCard
from emollm.core.prompts import Question
from emollm.core.tasks import Kind
from emollm.scoring.arrays import AnswerArrays
from emollm.scoring.asking.scorer import AskingScorer
from emollm.scoring.scorer import Scorer, count_tokens


class CalibratedScorer:
    """Maps the answers to questions that have a calibration; the others are unchanged."""

    def __init__(self, scorer: Scorer, calibration: Calibration) -> None:
        self._scorer = scorer
        self._maps = {maps.key: maps for maps in calibration.questions}

    @property
    def card(self) -> AffectCard:
        return self._scorer.card

    @property
    def batch_tokens(self) -> int:
        """Those of the engine; a stand-in for one has none."""
        return getattr(self._scorer, "batch_tokens", 0)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return count_tokens(self._scorer, texts)

    @property
    def engine(self) -> str:
        """The name under which the card keeps what was fitted for it."""
        return getattr(self._scorer, "engine", "auto")

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        answers = self._scorer.score(questions)
        return [
            maps.apply(question.task, answer) if (maps := self._maps.get(question.key)) else answer
            for question, answer in zip(questions, answers, strict=True)
        ]  # fmt: skip


def inner(scorer: Scorer) -> Scorer:
    """The engine itself, without the wrappers for calibration and for tasks given at call time."""
    if isinstance(scorer, AskingScorer):
        scorer = scorer.wrapped
    return scorer._scorer if isinstance(scorer, CalibratedScorer) else scorer


def calibrated_arrays(found: AnswerArrays, maps: QuestionCalibration) -> AnswerArrays:
    """The result of `maps.apply` for each answer, for all posts at once."""
    sure_N, each_NK = found.confidence_N, found.probabilities_NK
    match found.task.kind:
        case Kind.REGRESSION:
            return _number(found, maps)
        case Kind.LABEL_SET:
            columns = [_mapped(each_NK[:, k], maps.labels.get(label)) for k, label in enumerate(found.names)]
            return replace(
                found, probabilities_NK=np.stack(columns, axis=1), confidence_N=_mapped(sure_N, maps.confidence)
            )
        case _:
            tempered_NK = each_NK if maps.temperature == 1.0 else temper(each_NK, maps.temperature)
            sure_N = np.take_along_axis(tempered_NK, found.value[:, None], axis=1)[:, 0]
            return replace(found, probabilities_NK=tempered_NK, confidence_N=sure_N)


def _number(found: AnswerArrays, maps: QuestionCalibration) -> AnswerArrays:
    task = found.task
    assert task.low is not None and task.high is not None and found.unit_N is not None and found.std_N is not None
    width = task.high - task.low
    unit_N = np.clip(maps.slope * found.unit_N + maps.offset, 0.0, 1.0)
    std_N = found.std_N * maps.slope * maps.std_scale
    below = ndtr((np.arange(1, 11) / 10 - unit_N[:, None]) / np.where(std_N > 0, std_N / width, 1.0)[:, None])
    tenths_NK = np.where(std_N[:, None] > 0, np.diff(below, axis=1, prepend=0.0, append=1.0), found.probabilities_NK)
    return replace(
        found,
        value=task.low + unit_N * width,
        unit_N=unit_N,
        std_N=std_N,
        probabilities_NK=tenths_NK,
        confidence_N=_mapped(found.confidence_N, maps.confidence),
    )


def _mapped(values_N: Any, curve: Curve | None) -> Any:
    return values_N if curve is None else np.interp(values_N, curve.x, curve.y)

"""Any engine's answers through the calibration of its model's card."""

from __future__ import annotations

from collections.abc import Sequence

from emollm.core.answers import Answer
from emollm.core.calibration import Calibration
from emollm.core.card import AffectCard
from emollm.core.prompts import Question
from emollm.scoring.scorer import Scorer


class CalibratedScorer:
    """Answers of questions that the calibration knows are mapped by it; the others stay as the engine gave them."""

    def __init__(self, scorer: Scorer, calibration: Calibration) -> None:
        self._scorer = scorer
        self._maps = {maps.key: maps for maps in calibration.questions}

    @property
    def card(self) -> AffectCard:
        return self._scorer.card

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        answers = self._scorer.score(questions)
        return [
            maps.apply(question.task, answer) if (maps := self._maps.get(question.key)) else answer
            for question, answer in zip(questions, answers, strict=True)
        ]

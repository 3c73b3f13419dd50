"""Calibration of arrays, which the heads engine uses, is that of answers, which the other engines use."""

from __future__ import annotations

import pytest

from emollm.core.calibration import Calibration, Curve, QuestionCalibration
from emollm.core.heads_card import FeatureSpec
from emollm.core.prompts import questions_for
from emollm.core.tasks import select_tasks
from emollm.scoring.heads.engine import HeadsScorer
from tests.scoring.heads.conftest import Load, random_heads
from tests.scoring.heads.conftest import backbone as backbone

BENT = Curve(x=(0.0, 0.4, 1.0), y=(0.1, 0.3, 0.8))
MAPS = (
    QuestionCalibration(task="V-reg", rows=9, slope=1.3, offset=-0.2, std_scale=1.4, confidence=BENT),
    QuestionCalibration(task="V-oc", rows=9, temperature=2.5),
    QuestionCalibration(task="E-c", rows=9, labels={"joy": BENT}, confidence=BENT),
)


def test_arrays_are_calibrated_as_answers_are(backbone: Load) -> None:
    def scorer(calibration: Calibration | None) -> HeadsScorer:
        loaded, head_weights = random_heads(backbone("llama"), (FeatureSpec(layer=1, pooling="last"),))
        return HeadsScorer(loaded, head_weights=head_weights, calibration=calibration)

    bare, mapped = scorer(None), scorer(Calibration(questions=MAPS))
    asked = [q for text in ("Glad.", "so so") for q in questions_for(text, select_tasks(["V-reg", "V-oc", "E-c"]))]
    maps = {m.task: m for m in MAPS}
    for question, before, after in zip(asked, bare.score(asked), mapped.score(asked), strict=True):
        expected = maps[question.task.name].apply(question.task, before)
        assert after.value == (pytest.approx(expected.value) if after.unit is not None else expected.value)
        assert after.std == (None if expected.std is None else pytest.approx(expected.std))
        assert after.confidence == pytest.approx(expected.confidence)
        assert after.probabilities == pytest.approx(expected.probabilities)
        assert after != before

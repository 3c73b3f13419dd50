"""Calibration: fitted on one half, better on the other; applied to any engine; kept in the card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from emollm.core.answers import Answer
from emollm.core.calibration import Calibration, Curve, QuestionCalibration, tempered, tenths
from emollm.core.card import AffectCard, BaseModelInfo, read_card, write_card
from emollm.core.errors import DataError
from emollm.core.prompts import Question
from emollm.core.tasks import TASKS, Value
from emollm.evaluation.calibrate import abstentions
from emollm.evaluation.calibration_maps import cross_fitted, fit_maps, isotonic, mapped, temperature
from emollm.metrics.conformal import fit_sets
from emollm.metrics.metrics import pearson
from emollm.metrics.predictions import Prediction
from emollm.metrics.questions import GoldQuestion
from emollm.metrics.reliability import measure, right
from emollm.scoring.calibrated import CalibratedScorer


def question(task: str, gold: Value, number: int) -> GoldQuestion:
    return GoldQuestion(id=str(number), task=TASKS[task], emotion=None, text=f"text {number}", gold=gold)


def overconfident_classes(rows: int = 600) -> list[Prediction]:
    """Right in six of ten, and sure of it to nine tenths."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(rows):
        value, right = int(rng.integers(0, 5)), rng.random() < 0.6
        shares = {str(c): 0.9 if c == value else 0.025 for c in range(5)}
        gold = value if right else (value + 1 + int(rng.integers(0, 4))) % 5
        found.append(Prediction(question=question("SST5", gold, i), value=value, confidence=0.9, probabilities=shares))
    return found


def shrunk_numbers(rows: int = 600) -> list[Prediction]:
    """A third of the way from .5, with a spread four times too small."""
    rng = np.random.default_rng(1)
    golds = rng.uniform(0.1, 0.9, rows)
    noise = 0.1 * rng.normal(size=rows)
    return [
        Prediction(
            question=question("V-reg", float(g), i), value=0.5 + (g + e - 0.5) / 3, std=0.1 / 3 / 4, confidence=1.0
        )
        for i, (g, e) in enumerate(zip(golds, noise, strict=True))
    ]


def test_temperature_softens_what_is_too_sure_and_changes_no_answer() -> None:
    predictions = overconfident_classes()
    before, after = measure(predictions), measure(cross_fitted(predictions))
    assert before is not None and after is not None
    assert before.ece > 0.25
    assert after.ece < 0.05
    assert [p.value for p in cross_fitted(predictions)] == [p.value for p in predictions]
    (maps,) = fit_maps(predictions).questions
    assert maps.temperature > 1.5


def test_temperature_is_one_where_probabilities_are_right() -> None:
    rng = np.random.default_rng(2)
    shares = rng.dirichlet(np.ones(4), size=4000)
    golds = [int(rng.choice(4, p=row)) for row in shares]
    assert temperature(shares, golds) == pytest.approx(1.0, abs=0.08)
    assert tempered({"a": 0.8, "b": 0.2}, 2.0) == {"a": pytest.approx(2 / 3), "b": pytest.approx(1 / 3)}


def test_numbers_are_rescaled_and_their_intervals_have_the_stated_coverage() -> None:
    predictions = shrunk_numbers()
    moved = cross_fitted(predictions)
    before, after = measure(predictions), measure(moved)
    assert before is not None and after is not None
    assert before.coverage["0.9"] < 0.5
    assert after.coverage["0.9"] == pytest.approx(0.9, abs=0.04)
    golds = [p.question.gold for p in predictions]
    errors = [np.mean([abs(p.value - p.question.gold) for p in side]) for side in (predictions, moved)]  # type: ignore[operator]
    assert errors[1] < 0.7 * errors[0]
    # One map for all rows: the order, and so every correlation, stays.
    maps = fit_maps(predictions)
    again = [mapped(p, maps).value for p in predictions]
    assert pearson(golds, again) == pytest.approx(pearson(golds, [p.value for p in predictions]), abs=1e-3)  # type: ignore[arg-type]


def test_each_label_has_a_curve_of_its_own() -> None:
    rng = np.random.default_rng(3)
    predictions = []
    for i in range(800):
        joy, anger = rng.random(), rng.random()
        gold = tuple(n for n, p in (("anger", anger / 2), ("joy", joy)) if rng.random() < p)
        shares = {"joy": joy, "anger": anger}
        predictions.append(
            Prediction(question=question("E-c", gold, i), value=(), confidence=0.5, probabilities=shares)
        )
    (maps,) = fit_maps(predictions).questions
    assert maps.labels["joy"](0.8) == pytest.approx(0.8, abs=0.12)
    assert maps.labels["anger"](0.8) == pytest.approx(0.4, abs=0.12)
    after, before = measure(cross_fitted(predictions)), measure(predictions)
    assert after is not None and before is not None and after.ece < 0.6 * before.ece


def test_an_isotonic_curve_rises_and_is_straight_between_its_knots() -> None:
    curve = isotonic(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 1.0, 0.0, 1.0]))
    assert list(curve.y) == sorted(curve.y)
    assert curve(0.25) == pytest.approx(0.5)
    with pytest.raises(ValidationError, match="rise"):
        Curve(x=(0.0, 1.0), y=(0.5, 0.2))


def test_groups_of_one_repeated_value_are_one_knot() -> None:
    # Their means differ in the last bit, and one is below that before it.
    curve = isotonic(np.full(987, 0.22383289116797334), np.arange(987) % 2.0)
    assert curve(0.22383289116797334) == pytest.approx(0.5, abs=0.01)


def test_too_few_rows_are_left_alone() -> None:
    sixty = overconfident_classes(60)
    assert cross_fitted(sixty) == sixty
    # Maps whose worth cannot be told are not fitted either.
    with pytest.raises(DataError, match=r"100 validation rows .* 50 in each half"):
        fit_maps(sixty)
    enough = overconfident_classes(130)
    assert len(fit_maps(enough).questions) == 1
    assert cross_fitted(enough) != enough


class Engine:
    """Any engine: it answers what it is given."""

    def __init__(self, card: AffectCard, answers: Sequence[Answer]) -> None:
        self.card = card
        self._answers = answers

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        return list(self._answers[: len(questions)])


def card(calibration: dict[str, Calibration]) -> AffectCard:
    base = BaseModelInfo(name="b", architecture="decoder", licence="l", fingerprint="f")
    return AffectCard(name="m", base=base, calibration=calibration)


def test_a_calibrated_scorer_maps_what_it_knows_and_leaves_the_rest() -> None:
    maps = Calibration(
        questions=(
            QuestionCalibration(task="SST5", rows=60, temperature=2.0),
            QuestionCalibration(task="EmoBank-V", rows=60, slope=2.0, offset=-0.5, std_scale=3.0),
        )
    )
    sure = Answer(value=4, confidence=0.8, probabilities={"3": 0.2, "4": 0.8})
    number = Answer(value=3.4, unit=0.6, std=0.2, confidence=0.5, probabilities=tenths(0.6, 0.05))
    bad = Answer(value=None, error="empty_text")
    other = Answer(value=0.3, unit=0.3, confidence=0.4)
    questions = [Question(TASKS[name], "t") for name in ("SST5", "EmoBank-V", "SST5", "V-reg")]
    found = CalibratedScorer(Engine(card({}), [sure, number, bad, other]), maps).score(questions)
    assert found[0].value == 4
    assert found[0].confidence == pytest.approx(2 / 3)
    assert (found[1].value, found[1].unit, found[1].std) == pytest.approx((3.8, 0.7, 1.2))
    assert sum(found[1].probabilities.values()) == pytest.approx(1.0)
    assert found[2:] == [bad, other]


def test_where_to_abstain_is_taken_on_texts_that_the_maps_have_not_seen(tmp_path: Path) -> None:
    unseen = cross_fitted([*overconfident_classes(), *shrunk_numbers()])
    found = abstentions(unseen)
    assert set(found) == {"SST5", "V-reg"}
    shares = [one.right_share for one in found["V-reg"]]
    assert 0.55 in shares and shares == sorted(shares)
    for one in found["V-reg"]:
        moved = [p for p in unseen if p.question.task.name == "V-reg"]
        kept = [p for p in moved if (p.confidence or 0) >= one.confidence]
        assert len(kept) == pytest.approx(one.kept * len(moved))
        assert np.mean([right(p) for p in kept]) >= one.right_share
    # Nine of ten right is more than any confidence in these classes promises: nothing is kept for them.
    assert max(one.right_share for one in found["SST5"]) < 0.9
    maps = fit_maps(overconfident_classes()).model_copy(update={"abstain": found, "sets": fit_sets(unseen)})
    write_card(tmp_path, card({"heads": maps}))
    assert read_card(tmp_path).calibration["heads"] == maps and len(maps.sets) == 2


def test_the_card_keeps_calibration_by_engine(tmp_path: Path) -> None:
    maps = fit_maps(overconfident_classes(), fitted_on={"data": "mine"})
    write_card(tmp_path, card({"heads": maps}))
    assert read_card(tmp_path).calibration == {"heads": maps}

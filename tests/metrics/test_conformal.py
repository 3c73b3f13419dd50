"""Sets fitted on some predictions and measured on others."""

from __future__ import annotations

import numpy as np
import pytest

from emollm.core.conformal import Conformal
from emollm.core.tasks import TASKS, Value
from emollm.metrics.conformal import expected_coverage, fit_sets, known, measured_coverage
from emollm.metrics.predictions import Prediction
from emollm.metrics.questions import GoldQuestion
from emollm.metrics.reliability import abstain_thresholds, right_part


def prediction(task: str, gold: Value, number: int = 0, **answer: object) -> Prediction:
    question = GoldQuestion(id=str(number), task=TASKS[task], emotion=None, text=f"text {number}", gold=gold)
    return Prediction(question=question, **answer)  # type: ignore[arg-type]


def classes(gold: int, *p: float) -> Prediction:
    probabilities = {str(c): share for c, share in enumerate(p)}
    return prediction("SST5", gold, value=int(np.argmax(p)), probabilities=probabilities)


def test_scores_by_hand() -> None:
    likeliest, second = classes(0, 0.6, 0.2, 0.1, 0.05, 0.05), classes(1, 0.6, 0.2, 0.1, 0.05, 0.05)
    assert known([likeliest, second]).scores_N == pytest.approx([0.0, 0.8])  # type: ignore[union-attr]
    shares = dict.fromkeys(TASKS["E-c"].labels, 0.0) | {"joy": 0.9, "love": 0.3}
    both = prediction("E-c", ("joy", "love"), value=("joy",), probabilities=shares)
    none = prediction("E-c", (), value=("joy",), probabilities=shares)
    assert known([both, none]).scores_N == pytest.approx([0.7, 0.0])  # type: ignore[union-attr]
    number = prediction("V-reg", 0.5, value=0.7, std=0.1)
    assert known([number]).scores_N == pytest.approx([2.0])  # type: ignore[union-attr]
    without_std = prediction("V-reg", 0.5, value=0.7)
    found = known([without_std])
    assert found is not None and found.score == "distance" and found.scores_N == pytest.approx([0.2])
    assert known([prediction("SST5", 1, value=1)]) is None  # an engine without probabilities


def noisy_numbers(rows: int, seed: int, shift: float = 0.0) -> list[Prediction]:
    rng = np.random.default_rng(seed)
    golds, stds = rng.uniform(0.3, 0.7, rows), rng.uniform(0.02, 0.08, rows)
    noise = stds * rng.normal(size=rows)
    return [
        prediction("V-reg", float(g), n, value=float(g + e + shift), std=float(s))
        for n, (g, e, s) in enumerate(zip(golds, noise, stds, strict=True))
    ]


def test_sets_hold_what_they_promise_on_new_rows_and_not_on_shifted_ones() -> None:
    sets = fit_sets(noisy_numbers(2000, 0))
    (found,) = sets
    assert found.score == "std" and found.rows == 2000
    # 1.645 standard deviations either way hold 90% of a normal distribution.
    assert found.quantiles["0.9"] == pytest.approx(1.645, abs=0.08)
    (held,) = measured_coverage(noisy_numbers(2000, 1), sets, 0.9)
    assert held.coverage == pytest.approx(0.9, abs=0.02) and held.low < held.coverage < held.high
    (broken,) = measured_coverage(noisy_numbers(2000, 2, shift=0.1), sets, 0.9)
    assert broken.coverage < 0.6
    (halves,) = expected_coverage(noisy_numbers(2000, 3), 0.9)
    assert halves.coverage == pytest.approx(0.9, abs=0.02)
    assert halves.size == pytest.approx(2 * 1.645 * 0.05, abs=0.01)


def test_a_question_with_few_rows_gets_no_set() -> None:
    assert fit_sets(noisy_numbers(99, 0)) == () and expected_coverage(noisy_numbers(99, 0), 0.9) == []
    other = Conformal(task="V-oc", score="probability", rows=100, quantiles={"0.9": 0.5})
    assert measured_coverage(noisy_numbers(99, 0), [other], 0.9) == []


def test_what_is_right_of_a_set_is_the_share_of_its_labels() -> None:
    assert right_part(prediction("E-c", ("joy", "love"), value=("joy", "anger"))) == 0.5
    assert right_part(prediction("E-c", ("joy",), value=())) == 0.0
    assert right_part(prediction("E-c", (), value=())) == 1.0
    assert right_part(prediction("V-reg", 0.5, value=0.6)) == 1.0


def test_a_threshold_that_few_rows_pass_is_not_used() -> None:
    # The surest 40 are right, the other 60 wrong: .8 right is reached at 50 rows, of which 40 are right.
    rows = [
        prediction("SST5", int(n >= 40), n, value=0, confidence=1 - n / 100)
        for n in range(100)
    ]  # fmt: skip
    (found,) = abstain_thresholds(rows, (0.8,))
    assert (found.threshold, found.coverage) == (pytest.approx(0.51), 0.5)
    assert abstain_thresholds(rows[11:], (1.0,)) == []  # 29 rows

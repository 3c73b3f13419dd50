"""Reliability figures against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from emollm.core.tasks import TASKS
from emollm.metrics.predictions import Prediction
from emollm.metrics.questions import GoldQuestion
from emollm.metrics.reliability import (
    abstain_threshold,
    brier,
    ece,
    events,
    interval_coverage,
    measure,
    reliability_bins,
    risk_coverage,
)


def test_ece_by_hand() -> None:
    # Two events near .95, one true: .45 off. Two near .15, none true: .15 off. Half of the events each.
    probability, true = np.array([0.95, 0.95, 0.15, 0.15]), np.array([1.0, 0.0, 0.0, 0.0])
    assert ece(probability, true) == pytest.approx(0.5 * 0.45 + 0.5 * 0.15)
    assert [(b.share, b.events) for b in reliability_bins(probability, true)] == [(0.0, 2), (0.5, 2)]
    assert ece(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0.0  # the last bin is closed


def test_brier_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    probability, true = rng.random(200), (rng.random(200) < 0.4).astype(float)
    assert brier(probability, true) == pytest.approx(brier_score_loss(true, probability))


def test_risk_falls_with_coverage_where_confidence_means_something() -> None:
    sure, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 1.0, 0.0, 0.0])
    assert risk_coverage(sure, right, points=4) == [
        (0.25, 0.0), (0.5, 0.0), (0.75, pytest.approx(1 / 3)), (1.0, 0.5),
    ]  # fmt: skip


def test_the_abstain_threshold_keeps_as_many_rows_as_the_right_share_allows() -> None:
    sure, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 0.0])
    found = abstain_threshold(sure, right, 0.6)
    assert found is not None and (found.threshold, found.coverage) == (0.7, 0.75)
    assert abstain_threshold(sure, right, 0.9).threshold == 0.9  # type: ignore[union-attr]
    # Rows of one confidence cannot be parted: two of them, one wrong, are never nine tenths right.
    assert abstain_threshold(np.array([0.9, 0.9]), np.array([1.0, 0.0]), 0.9) is None


def number(gold: float, value: float, std: float) -> Prediction:
    question = GoldQuestion(id="x", task=TASKS["V-reg"], emotion=None, text="t", gold=gold)
    return Prediction(question=question, value=value, std=std)


def test_interval_coverage_by_hand() -> None:
    # One standard deviation off: inside 80% (1.28), 90%, 95%, outside 50% (0.67).
    assert interval_coverage([number(0.5, 0.6, 0.1), number(0.5, 0.5, 0.1)]) == {
        "0.5": 0.5, "0.8": 1.0, "0.9": 1.0, "0.95": 1.0,
    }  # fmt: skip
    # At the normal distribution's own quantiles the coverage is the level.
    rng = np.random.default_rng(1)
    drawn = [number(0.5, 0.5 + e, 0.05) for e in 0.05 * rng.normal(size=4000)]
    assert interval_coverage(drawn)["0.9"] == pytest.approx(0.9, abs=0.02)


def test_events_of_a_label_set_are_its_labels() -> None:
    question = GoldQuestion(id="x", task=TASKS["E-c"], emotion=None, text="t", gold=("joy",))
    said = Prediction(question=question, value=("joy",), confidence=0.4, probabilities={"joy": 0.9, "anger": 0.2})
    probability, true = events([said])
    assert (probability.tolist(), true.tolist()) == ([0.9, 0.2], [1.0, 0.0])
    found = measure([said])
    assert found is not None and found.events == 2 and found.coverage == {}


def test_a_system_without_probabilities_has_no_figures() -> None:
    question = GoldQuestion(id="x", task=TASKS["SST5"], emotion=None, text="t", gold=1)
    assert measure([Prediction(question=question, value=1)]) is None

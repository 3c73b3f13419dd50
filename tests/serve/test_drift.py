"""Drift against numbers worked out by hand."""

from __future__ import annotations

import random

import pytest

from emollm.serve.drift import WINDOW, Drift


def test_drift_is_unknown_until_both_windows_are_full() -> None:
    drift = Drift(window=2)
    for _ in range(3):
        drift.add(["joy"], 0.5)
        assert drift.of_answers is None
        assert drift.of_confidence is None
    drift.add(["joy"], 0.5)
    assert drift.of_answers == 0
    assert drift.of_confidence == 0


def test_drift_compares_the_first_answers_with_the_last() -> None:
    drift = Drift(window=4)
    for answer in ("a", "a", "a", "b"):  # 3/4 and 1/4
        drift.add([answer], 0.9)
    for answer in ("x", "a", "b", "c", "c"):  # "x" falls out: 1/4, 1/4, 2/4
        drift.add([answer], 0.5)
    assert drift.of_answers == pytest.approx((2 / 4 + 0 + 2 / 4) / 2)
    assert drift.of_confidence == pytest.approx(-0.4)


def test_nothing_in_common_is_one_and_sets_count_by_label() -> None:
    drift = Drift(window=2)
    for answers in (["a", "b"], ["a", "b"], ["c"], ["d"]):
        drift.add(answers, 1.0)
    assert drift.of_answers == 1


def test_drift_by_chance_stays_near_zero() -> None:
    draw = random.Random(0)
    found = []
    for _ in range(50):
        drift = Drift()
        for _ in range(2 * WINDOW):
            drift.add([draw.choice("abcde")], 0.5)
        found.append(drift.of_answers or 0.0)
    assert sum(found) / len(found) == pytest.approx(0.05, abs=0.01)
    assert max(found) < 0.1

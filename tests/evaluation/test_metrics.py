"""Metrics against numbers worked out by hand, then against scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from emollm.evaluation.metrics import accuracy, f1_scores, jaccard, pearson


def test_pearson_by_hand() -> None:
    # Deviations (-1, 0, 1) and (-1, 1, 0): sum of products 1, norms sqrt(2) each.
    assert pearson([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert pearson([0, 1], [1, 0]) == pytest.approx(-1.0)


def test_pearson_of_a_constant_or_a_single_row_is_undefined() -> None:
    assert math.isnan(pearson([0.1, 0.5, 0.9], [0.3, 0.3, 0.3]))
    assert math.isnan(pearson([0.5], [0.5]))
    assert math.isnan(pearson([], []))
    with pytest.raises(ValueError, match="3 gold values but 2"):
        pearson([1, 2, 3], [1, 2])


def test_pearson_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    gold = rng.random(500)
    predicted = gold + rng.normal(size=500)
    assert pearson(gold.tolist(), predicted.tolist()) == pytest.approx(stats.pearsonr(gold, predicted).statistic)


def test_jaccard_by_hand() -> None:
    # 1/2, then two empty sets count 1, then nothing shared.
    gold = [("anger", "joy"), (), ("fear",)]
    assert jaccard(gold, [("anger",), (), ()]) == pytest.approx((0.5 + 1 + 0) / 3)


def test_accuracy_by_hand() -> None:
    assert accuracy([0, 1, 2, 3], [0, 1, 0, None]) == 0.5


def test_f1_by_hand_and_against_scikit_learn() -> None:
    labels = ("a", "b", "c")
    gold = [("a",), ("a", "b"), ()]
    predicted = [("a", "b"), ("a",), ("b",)]
    # a: 2 hits. b: 0 hits, 2 wrong, 1 missed. c: nowhere. Micro: 4 / (4 + 2 + 1).
    assert f1_scores(gold, predicted, labels) == (pytest.approx(4 / 7), pytest.approx(1 / 3))

    rng = np.random.default_rng(1)
    g, p = rng.random((200, 3)) < 0.4, rng.random((200, 3)) < 0.5

    def sets(matrix: np.ndarray) -> list[tuple[str, ...]]:
        return [tuple(label for label, on in zip(labels, row, strict=True) if on) for row in matrix]

    micro, macro = f1_scores(sets(g), sets(p), labels)
    assert micro == pytest.approx(f1_score(g, p, average="micro"))
    assert macro == pytest.approx(f1_score(g, p, average="macro"))

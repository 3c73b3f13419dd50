"""Metrics against numbers worked out by hand, then against scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score, f1_score, jaccard_score

from emollm.metrics.metrics import (
    accuracy,
    class_f1,
    concordance,
    f1_scores,
    jaccard,
    label_jaccard,
    mean_absolute_error,
    pearson,
    pearson_of,
    quadratic_kappa,
    spearman,
)


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


def test_spearman_by_hand_and_against_scipy() -> None:
    # Ranks 1, 2, 3 against 1, 3, 2: the same 0.5, however far apart the values are.
    assert spearman([1, 2, 300], [0.1, 0.9, 0.2]) == pytest.approx(0.5)
    assert math.isnan(spearman([1, 2, 3], [5, 5, 5]))
    rng = np.random.default_rng(2)
    gold, predicted = rng.integers(0, 4, 300), rng.integers(0, 7, 300) / 7  # many ties
    assert spearman(gold.tolist(), predicted.tolist()) == pytest.approx(stats.spearmanr(gold, predicted).statistic)


def test_mean_absolute_error_by_hand() -> None:
    assert mean_absolute_error([0.0, 0.5, 1.0], [0.5, 0.5, 0.0]) == pytest.approx(0.5)
    assert math.isnan(mean_absolute_error([], []))


def test_concordance_by_hand() -> None:
    # Means 2 and 3, both variances 2/3, covariance 2/3: 2 * 2/3 / (2/3 + 2/3 + 1).
    assert concordance([1, 2, 3], [2, 3, 4]) == pytest.approx(4 / 7)
    assert concordance([1, 2, 3], [1, 2, 3]) == pytest.approx(1.0)
    # A constant has no correlation, but it does have a concordance: none.
    assert concordance([1, 2, 3], [2, 2, 2]) == pytest.approx(0.0)
    assert math.isnan(concordance([2, 2], [2, 2]))


def test_quadratic_kappa_by_hand_and_against_scikit_learn() -> None:
    # One pair of four differs. By chance, with margins 2:2 and 1:3, half would: 2/4 * 3/4 + 2/4 * 1/4.
    assert quadratic_kappa([0, 0, 2, 2], [0, 2, 2, 2]) == pytest.approx(1 - (1 / 4) / (1 / 2))
    assert math.isnan(quadratic_kappa([1, 1], [1, 1]))
    rng = np.random.default_rng(3)
    gold, predicted = rng.integers(-3, 4, 400), rng.integers(-3, 4, 400)
    expected = cohen_kappa_score(gold, predicted, weights="quadratic")
    assert quadratic_kappa(gold.tolist(), predicted.tolist()) == pytest.approx(expected)


def test_class_f1_against_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    gold, predicted = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    expected = f1_score(gold, predicted, average="macro")
    assert class_f1(gold.tolist(), predicted.tolist(), [0, 1, 2, 3]) == pytest.approx(expected)
    # An unread answer misses its class and is wrong of no other: F1 of 0 is 2/3, of 1 is 1.
    assert class_f1([0, 0, 1], [0, None, 1], [0, 1]) == pytest.approx((2 / 3 + 1) / 2)


def test_label_jaccard_by_hand_and_against_scikit_learn() -> None:
    # a: 1 of 3, support 2. b: 1 of 1, support 1. Weighted: (2 * 1/3 + 1 * 1) / 3.
    gold, predicted = [("a",), ("a", "b"), ()], [("a",), ("b",), ("a",)]
    assert label_jaccard(gold, predicted, ["a", "b"]) == pytest.approx((2 / 3 + 1) / 3)
    rng = np.random.default_rng(5)
    g, p = rng.random((200, 4)) < 0.4, rng.random((200, 4)) < 0.5
    labels = list("abcd")
    sets = [[tuple(n for n, on in zip(labels, row, strict=True) if on) for row in side] for side in (g, p)]
    assert label_jaccard(*sets, labels) == pytest.approx(jaccard_score(g, p, average="weighted"))


def test_pearson_among_high_golds_takes_those_rows_alone() -> None:
    gold, predicted = [0.1, 0.5, 0.7, 0.9], [0.9, 0.2, 0.1, 0.3]
    among = pearson_of(gold, predicted, among=[g >= 0.5 for g in gold])
    assert among(np.ones((1, 4)))[0] == pytest.approx(pearson(gold[1:], predicted[1:]))


def test_one_number_out_of_range_ruins_a_correlation() -> None:
    rng = np.random.default_rng(6)
    gold = rng.random(975)
    predicted = gold + 0.2 * rng.normal(size=975)
    assert pearson(gold.tolist(), predicted.tolist()) > 0.75
    predicted[0] = 48
    assert pearson(gold.tolist(), predicted.tolist()) < 0.3

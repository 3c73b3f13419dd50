"""Bootstrap: the same formula as the estimate, the same draws for the same seed, intervals as theory has them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from emollm.metrics import metrics
from emollm.metrics.bootstrap import Group, estimate, interval, resample, sign_p_value


def group(rng: np.random.Generator, rows: int, noise: float = 1.0) -> Group:
    gold = rng.normal(size=rows)
    predicted = gold + noise * rng.normal(size=rows)
    g, p = np.digitize(gold, [-0.5, 0.5]).tolist(), np.digitize(predicted, [-0.5, 0.5]).tolist()
    return Group(
        rows,
        {
            "pearson": metrics.pearson_of(gold.tolist(), predicted.tolist()),
            "spearman": metrics.spearman_of(gold.tolist(), predicted.tolist()),
            "CCC": metrics.ccc_of(gold.tolist(), predicted.tolist()),
            "kappa": metrics.kappa_of(g, p),
            "f1": metrics.class_f1_of(g, p, [0, 1, 2]),
        },
    )


def test_a_resample_is_the_metric_of_the_rows_that_were_drawn() -> None:
    rng = np.random.default_rng(0)
    gold, predicted = rng.normal(size=40), rng.normal(size=40)
    classes = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    drawn = rng.integers(0, 40, 40)
    counts = np.bincount(drawn, minlength=40)[None].astype(float)
    for of, by_hand, (g, p) in (
        (metrics.pearson_of, metrics.pearson, (gold, predicted)),
        (metrics.spearman_of, metrics.spearman, (gold, predicted)),
        (metrics.spearman_of, metrics.spearman, classes),
        (metrics.mae_of, metrics.mean_absolute_error, (gold, predicted)),
        (metrics.ccc_of, metrics.concordance, (gold, predicted)),
        (metrics.kappa_of, metrics.quadratic_kappa, classes),
        (metrics.accuracy_of, metrics.accuracy, classes),
    ):
        assert of(g.tolist(), p.tolist())(counts)[0] == pytest.approx(by_hand(g[drawn].tolist(), p[drawn].tolist()))
    assert metrics.spearman_of(gold.tolist(), predicted.tolist())(counts)[0] == pytest.approx(
        stats.spearmanr(gold[drawn], predicted[drawn]).statistic
    )


def test_a_seed_gives_the_same_resamples_however_many_there_are() -> None:
    groups = [group(np.random.default_rng(0), 60), group(np.random.default_rng(1), 30)]
    once, again, other = (resample(groups, resamples=120, seed=seed) for seed in (7, 7, 8))
    assert all((once[name] == again[name]).all() for name in once)
    assert not (once["pearson"] == other["pearson"]).all()
    assert (resample(groups, resamples=50, seed=7)["f1"] == once["f1"][:50]).all()
    assert len(once["CCC"]) == 120


def test_the_mean_over_emotions_is_resampled_within_each() -> None:
    small, large = group(np.random.default_rng(0), 20), group(np.random.default_rng(1), 200)
    both = estimate([small, large])["pearson"]
    assert both == pytest.approx((estimate([small])["pearson"] + estimate([large])["pearson"]) / 2)
    counts: list[float] = []
    watched = Group(20, {"rows": lambda c: counts.extend(c.sum(axis=1)) or c.sum(axis=1)})  # type: ignore[func-returns-value]
    resample([watched], resamples=10, seed=0)
    assert counts == [20.0] * 10


def test_an_interval_is_near_the_one_that_theory_gives() -> None:
    # Fisher's z for a correlation of normal variables: half-width about 1.96 / sqrt(n - 3) in atanh.
    found = group(np.random.default_rng(3), 400)
    value = estimate([found])["pearson"]
    drawn = interval(resample([found], resamples=2000, seed=0)["pearson"])
    assert drawn is not None
    z, half = math.atanh(value), 1.96 / math.sqrt(397)
    assert drawn.low == pytest.approx(math.tanh(z - half), abs=0.02)
    assert drawn.high == pytest.approx(math.tanh(z + half), abs=0.02)


def test_undefined_resamples_are_left_out_and_too_many_give_no_interval() -> None:
    values = np.linspace(0, 1, 100)
    values[:3] = np.nan
    found = interval(values)
    assert found is not None and 0 < found.low < found.high < 1
    values[:10] = np.nan
    assert interval(values) is None
    assert interval(np.full(10, np.nan)) is None


def test_the_p_value_of_a_difference_counts_the_resamples_on_the_other_side() -> None:
    differences = np.array([0.1] * 95 + [-0.1] * 5)
    assert sign_p_value(differences) == pytest.approx(2 * 6 / 101)
    assert sign_p_value(np.full(99, 0.2)) == pytest.approx(2 / 100)  # never 0: no sample proves so much
    assert sign_p_value(np.array([0.1, -0.1])) == 1.0
    assert math.isnan(sign_p_value(np.array([np.nan])))

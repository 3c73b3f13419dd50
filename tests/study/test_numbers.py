"""The numbers of a report against ones worked out by hand or by brute force."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from emollm.core.errors import DataError
from emollm.study.cells import BUCKETS, Buckets, Cube
from emollm.study.correction import LabelledMeasure, correct, draw_labelled
from emollm.study.estimates import Estimator, intervals
from emollm.study.sample import Sample
from emollm.study.source import QuestionColumn, Values
from emollm.study.words import log_odds_ratios, words_of

NUMBER = [QuestionColumn("v_reg", "number")]


def of(numbers: np.ndarray) -> Values:  # type: ignore[type-arg]
    column = np.asarray(numbers, float)[:, None]
    return Values(~np.isnan(column), np.nan_to_num(column), np.nan_to_num(column))


def labelled(gold: list[float], value: list[float]) -> LabelledMeasure:
    return LabelledMeasure(np.array(gold), np.array(value), np.array(value), np.full(len(gold), -1))


def test_the_adjusted_count_by_hand() -> None:
    # Of 20 with the label the model finds 16, of 80 without it calls 8 so: .8 and .1; it says 40%, so (.4 - .1) / .7.
    rows = labelled([1.0] * 20 + [0.0] * 80, [1.0] * 16 + [0.0] * 4 + [1.0] * 8 + [0.0] * 72)
    weights = draw_labelled(100, 50, 0)
    given, drawn = np.array([0.4]), np.full((50, 1), 0.4)
    found = correct("adjusted", rows, (given, given), (drawn, drawn), np.array([1000.0]), None,
                    is_share=True, weights_RL=weights)  # fmt: skip
    assert found.estimate_C[0] == pytest.approx(0.3 / 0.7)
    assert weights.sum(axis=1).tolist() == [100.0] * 50 and found.draws_RC.std() > 0


def test_prediction_powered_inference_by_hand() -> None:
    rng = np.random.default_rng(0)
    value = rng.random(100)
    gold = 0.8 * value + 0.3 + rng.normal(0, 0.01, 100)
    rows = LabelledMeasure(gold, value, value, np.zeros(100, np.intp))
    weights, mean = draw_labelled(100, 50, 0), np.array([0.5])
    drawn = np.full((50, 1), 0.5)
    args = (mean, mean), (drawn, drawn), np.array([1e9])
    tuned = correct("ppi", rows, *args, None, is_share=False, weights_RL=weights)
    power = np.cov(gold, value, ddof=0)[0, 1] / value.var()
    assert tuned.estimate_C[0] == pytest.approx(power * 0.5 + (gold - power * value).mean())
    plain = correct("ppi", rows, *args, np.array([0]), is_share=False, weights_RL=weights)
    assert plain.estimate_C[0] == pytest.approx(0.5 + (gold - value).mean())
    assert tuned.draws_RC.std() < plain.draws_RC.std()  # what power is for


@pytest.mark.parametrize(
    ("gold", "value", "why"),
    [
        ([1.0] * 3 + [0.0] * 97, [1.0] * 50 + [0.0] * 50, "3 of 100 labelled rows have it"),
        ([1.0, 0.0] * 50, [1.0] * 100, "hardly tells it apart"),
        ([1.0, 0.0] * 10, [1.0, 0.0] * 10, "fewer than 30"),
    ],
)
def test_what_cannot_be_corrected_says_why(gold: list[float], value: list[float], why: str) -> None:
    rows, given, drawn = labelled(gold, value), np.array([0.4]), np.full((50, 1), 0.4)
    found = correct("pacc", rows, (given, given), (drawn, drawn), np.array([1000.0]), None, is_share=True,
                    weights_RL=draw_labelled(len(gold), 50, 0))  # fmt: skip
    assert found.why_not and why in found.why_not and math.isnan(found.estimate_C[0])


def test_the_expanded_interval_of_few_authors_is_that_of_students_t() -> None:
    draws = np.random.default_rng(0).normal(0, 1, (200_000, 1, 1))
    for authors in (5, 10, 1000):
        low, high = intervals(draws, np.array([[authors]]))
        wide = stats.t.ppf(0.975, authors - 1) * math.sqrt(authors / (authors - 1))
        assert high[0, 0] == pytest.approx(wide, rel=0.06) and low[0, 0] == pytest.approx(-wide, rel=0.06)
    assert np.isnan(intervals(draws, np.array([[1]]))[0])


def test_the_bootstrap_has_the_standard_error_of_a_mean() -> None:
    numbers = np.random.default_rng(1).normal(0.5, 0.2, 20_000)
    cube = Cube(1, 1, NUMBER)
    cube.add(np.zeros(20_000, np.intp), Buckets(cube.buckets).places(20_000), of(numbers))
    [[one]] = Estimator(NUMBER[0].measures, cube.buckets, resamples=2000, seed=0).estimates(cube.by_cell())
    error = numbers.std() / math.sqrt(20_000)
    assert one.value == pytest.approx(numbers.mean()) and one.spread == pytest.approx(numbers.std())
    assert (one.high - one.low) / 2 == pytest.approx(1.96 * error, rel=0.12)


def test_sums_do_not_depend_on_batches() -> None:
    rng = np.random.default_rng(0)
    numbers, cells = rng.random(1000), rng.integers(0, 6, 1000)
    authors = pa.array([f"u{i}" for i in rng.integers(0, 400, 1000)])
    found = []
    for step in (1000, 7):
        cube, buckets = Cube(3, 2, NUMBER), Buckets(BUCKETS)
        for start in range(0, 1000, step):
            part = slice(start, start + step)
            places = buckets.places(len(cells[part]), authors[start : start + step])
            cube.add(cells[part], places, of(numbers[part]))
        found.append(cube)
    by_cell = found[0].by_cell()
    assert by_cell.values_CKM.sum(axis=1)[:, 0] == pytest.approx(np.bincount(cells, numbers))
    for view in ("by_cell", "by_group", "by_period"):
        one, other = (getattr(cube, view)() for cube in found)
        assert np.allclose(one.values_CKM, other.values_CKM) and np.allclose(one.rows_CK, other.rows_CK)
    assert found[0].by_group().rows_CK.sum(axis=1).tolist() == [
        np.isin(cells, [2 * g, 2 * g + 1]).sum() for g in range(3)
    ]


def test_an_author_is_in_one_bucket_and_the_first_have_each_their_own() -> None:
    buckets = Buckets(BUCKETS)
    names = [f"u{i}" for i in range(BUCKETS)]
    first = buckets.places(BUCKETS, pa.array(names))
    assert len(set(first.tolist())) == BUCKETS
    assert buckets.places(BUCKETS, pa.array(names)).tolist() == first.tolist()
    more = buckets.places(1000, pa.array([f"v{i % 500}" for i in range(1000)]))
    assert more[:500].tolist() == more[500:].tolist() and buckets.authors == BUCKETS + 500


def test_too_many_cells_are_refused_and_many_get_fewer_buckets() -> None:
    assert Cube(1000, 400, NUMBER).buckets < BUCKETS
    with pytest.raises(DataError, match=r"1,000 groups x 1,000 periods x 1 answers need more than 1 GB"):
        Cube(1000, 1000, NUMBER)


def test_log_odds_by_hand() -> None:
    mine, theirs = np.array([30.0, 70.0]), np.array([10.0, 90.0])
    odds, z = log_odds_ratios(mine, theirs, mine + theirs)
    prior = 500 * np.array([40, 160]) / 200  # 100 and 400
    first = math.log((30 + prior[0]) / (70 + prior[1])) - math.log((10 + prior[0]) / (90 + prior[1]))
    assert odds[0] == pytest.approx(first)
    assert z[0] == pytest.approx(first / math.sqrt(1 / (30 + prior[0]) + 1 / (10 + prior[0])))
    assert z[1] < 0 < z[0]


def test_words_pairs_emoji_and_names() -> None:
    assert words_of("Don't @you STOP 🙂 https://a.b/c") == {
        "don't", "@user", "stop", "http", "don't @user", "@user stop", "stop http", "🙂",
    }  # fmt: skip


def test_a_sample_is_the_same_whatever_the_batches_and_fair() -> None:
    found = []
    for step in (5000, 613):
        sample = Sample(500, seed=0)
        for start in range(0, 5000, step):
            ids = pa.array([str(i) for i in range(start, min(start + step, 5000))])
            places = np.zeros(len(ids), np.intp)
            sample.add(ids, ids, places, places, np.zeros((len(ids), 1)))
        posts = sample.posts()
        assert posts is not None
        found.append(posts.ids)
    assert found[0] == found[1] and len(set(found[0])) == 500
    assert abs(np.mean([int(i) for i in found[0]]) - 2500) < 250 and found[0] != sorted(found[0], key=int)
    assert Sample(0, seed=0).posts() is None

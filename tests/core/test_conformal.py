"""Conformal quantiles and sets, on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from emollm.core.conformal import in_set, interval, quantile, quantiles


def test_the_quantile_is_the_score_of_rank_n_plus_one_times_the_level() -> None:
    scores = np.array([0.9, 0.1, 0.3, 0.2, 0.5, 0.4, 0.8, 0.6, 0.7])
    # (9 + 1) x .9 is rank 9, x .5 rank 5, x .8 rank 8; .95 asks for a tenth score.
    assert (quantile(scores, 0.9), quantile(scores, 0.5), quantile(scores, 0.8)) == (0.9, 0.5, 0.8)
    assert quantile(scores, 0.95) is None
    assert quantiles(scores) == {"0.5": 0.5, "0.8": 0.8, "0.9": 0.9}


def test_a_set_has_the_likely_classes_and_is_never_empty() -> None:
    p = np.array([[0.6, 0.3, 0.1], [0.4, 0.35, 0.25]])
    assert in_set(p, 0.7, exclusive=True).tolist() == [[True, True, False], [True, True, False]]
    assert in_set(p, 0.1, exclusive=True).tolist() == [[True, False, False], [True, False, False]]
    # No label need hold, so a set of labels may be empty.
    assert in_set(p, 0.1, exclusive=False).tolist() == [[False] * 3, [False] * 3]


def test_an_interval_stays_within_the_range() -> None:
    low, high = interval(np.array([0.5, 0.9]), np.array([0.1, 0.1]), 2.0, low=0.0, high=1.0)
    assert low == pytest.approx([0.3, 0.7]) and high == pytest.approx([0.7, 1.0])

"""Answers as a matrix of indicators."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from emollm.core.errors import DataError
from emollm.core.indicators import indicators


def test_a_row_holds_its_answer_or_the_labels_of_its_list() -> None:
    one = indicators(pa.array([2, None, -1, 2], pa.int32()).slice(1), (-1, 0, 2))
    assert one.tolist() == [[False, False, False], [True, False, False], [False, False, True]]
    sets = pa.array([["joy"], [], None, ["love", "joy"]], pa.list_(pa.string()))
    assert indicators(sets, ("joy", "love")).tolist() == [[True, False], [False, False], [False, False], [True, True]]
    assert np.array_equal(indicators(sets.slice(3), ("joy", "love")), [[True, True]])


def test_a_stranger_is_named() -> None:
    with pytest.raises(DataError, match="column 'e_c' holds 'glee', none of: joy, love"):
        indicators(pa.array([["joy", "glee"]]), ("joy", "love"), what="column 'e_c'")

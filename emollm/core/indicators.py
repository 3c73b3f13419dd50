"""A column of answers as a matrix. Shapes: N rows, K classes or labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emollm.core.errors import DataError


def indicators(column: Any, answers: Sequence[Any], *, what: str = "an answer") -> NDArray[np.bool_]:
    """[N, K]: which of the K `answers` each row is or, in a column of lists, contains; a null has none.

    Raises DataError, in which `what` is the column, for a value that is none of them.
    """
    if pa.types.is_list(column.type):
        rows, values = np.asarray(pc.list_parent_indices(column)), pc.list_flatten(column)
    else:
        present = pc.is_valid(column)
        rows, values = np.flatnonzero(np.asarray(present)), pc.filter(column, present)
    places = pc.index_in(values, pa.array(answers, values.type))
    if places.null_count:
        stranger = pc.filter(values, pc.is_null(places))[0].as_py()
        raise DataError(f"{what} holds {stranger!r}, none of: {', '.join(map(str, answers))}")
    held_NK = np.zeros((len(column), len(answers)), bool)
    held_NK[rows, np.asarray(places)] = True
    return held_NK

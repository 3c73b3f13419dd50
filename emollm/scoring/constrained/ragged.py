"""Lists of different lengths side by side in flat arrays, so that many of them are taken in one step.

Shapes: C lists, N entries of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def ranges(first_C: Ints, count_C: Ints) -> Ints:
    """[N] the numbers from `first_C[c]` on, `count_C[c]` of them, for one c after the other."""
    return np.repeat(first_C, count_C) + within(count_C)


def within(count_C: Ints) -> Ints:
    """[N] the number of each entry within its list, from 0."""
    ends_C = count_C.cumsum()
    return np.arange(ends_C[-1] if len(ends_C) else 0) - np.repeat(ends_C - count_C, count_C)


def lists_of(count_C: Ints) -> Ints:
    """[N] the list of each entry."""
    return np.repeat(np.arange(len(count_C)), count_C)


class Growing:
    """An array to which more is added at its end."""

    def __init__(self, dtype: type) -> None:
        self._room: NDArray[Any] = np.zeros(256, dtype)
        self._size = 0

    @property
    def values(self) -> NDArray[Any]:
        """A view: valid until more is added."""
        return self._room[: self._size]

    def __len__(self) -> int:
        return self._size

    def add(self, values: Sequence[Any]) -> None:
        end = self._size + len(values)
        if end > len(self._room):
            self._room = np.concatenate([self.values, np.zeros(end, self._room.dtype)])
        self._room[self._size : end] = values
        self._size = end


class Ragged:
    """Lists in order of their numbers, each entry with a value in every column."""

    def __init__(self, *dtypes: type) -> None:
        self._first, self._count = Growing(int), Growing(int)
        self._columns = [Growing(dtype) for dtype in dtypes]

    def add(self, *columns: Sequence[Any]) -> None:
        """One more list."""
        self._first.add([len(self._columns[0])])
        self._count.add([len(columns[0])])
        for column, values in zip(self._columns, columns, strict=True):
            column.add(values)

    def take(self, lists_C: Ints) -> tuple[Ints, list[NDArray[Any]]]:
        """[C] the lengths of these lists, and for each column the [N] values of all of them."""
        count_C = self._count.values[lists_C]
        entries_N = ranges(self._first.values[lists_C], count_C)
        return count_C, [column.values[entries_N] for column in self._columns]

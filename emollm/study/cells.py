"""Sums over a corpus by group, period and bucket of authors: all that estimates need, in memory that is bounded.

Authors are dealt into K buckets, each whole into one; without authors, posts are. Buckets are drawn again for the
intervals, as authors would be: K sums per cell stand for any number of rows, and up to K authors each has its own.

Shapes: G groups, P periods, K buckets, Q questions, M measures, N rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from emollm.core.errors import DataError
from emollm.study.source import Floats, QuestionColumn, Values

BUCKETS = 251
"""With so many the standard error of a standard error is 4.5%. A prime, against periods in the order of rows."""
_FEWEST_BUCKETS = 61
_BYTES = 1 << 30
_REMEMBERED_AUTHORS = 1_000_000


class Buckets:
    """Which bucket each row goes to."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.authors = 0
        """Different authors met; exact up to a million, then no longer counted."""
        self.without_author = 0
        self._row = 0
        self._first: dict[int, int] = {}
        """The first authors, one bucket each."""
        self._seen: set[int] = set()

    def places(self, rows: int, authors: Any = None) -> NDArray[np.intp]:
        """[N] of the next rows; `authors` are strings, and a row without one is an author of its own."""
        own = (np.arange(self._row, self._row + rows) % self.count).astype(np.intp)
        self._row += rows
        if authors is None:
            return own
        coded = pc.dictionary_encode(authors)
        codes = np.asarray(pc.fill_null(coded.indices, -1))
        self.without_author += int((codes < 0).sum())
        hashes = pd.util.hash_array(np.asarray(coded.dictionary.to_pandas(), object), categorize=False)
        each = np.append((hashes % np.uint64(self.count)).astype(np.intp), 0)
        if len(self._first) < self.count:
            for one in hashes.tolist():
                if len(self._first) == self.count:
                    break
                self._first.setdefault(one, len(self._first))
        known = np.fromiter(self._first, np.uint64, len(self._first))
        is_first = np.flatnonzero(np.isin(hashes, known))
        each[is_first] = [self._first[int(hashes[i])] for i in is_first]
        if len(self._seen) < _REMEMBERED_AUTHORS:
            self._seen.update(hashes.tolist())
            self.authors = len(self._seen)
        return np.where(codes < 0, own, each[codes])


@dataclass(frozen=True, slots=True)
class Sums:
    """What stands in some cells: the cube, or its sums over groups or periods."""

    rows_CK: Floats
    answered_CKM: Floats
    values_CKM: Floats
    expected_CKM: Floats
    squares_CM: Floats

    def total(self, cells: Sequence[int] | NDArray[Any] | slice = slice(None)) -> Sums:
        """These cells as one."""
        return Sums(
            *(part[cells].sum(axis=0, keepdims=True) for part in (
                self.rows_CK, self.answered_CKM, self.values_CKM, self.expected_CKM, self.squares_CM,
            ))
        )  # fmt: skip

    def cell(self, number: int) -> Sums:
        return self.total([number])


class Cube:
    """Sums of every group in every period."""

    def __init__(self, groups: int, periods: int, questions: Sequence[QuestionColumn]) -> None:
        """Raises DataError where there are more cells than memory is given for."""
        self.groups, self.periods = groups, periods
        self._questions, self._measures = len(questions), sum(len(q.measures) for q in questions)
        self._of_measure = np.repeat(np.arange(len(questions)), [len(q.measures) for q in questions])
        width = 1 + self._questions + 2 * self._measures
        fit = _BYTES // (8 * width * groups * periods)
        if fit < _FEWEST_BUCKETS:
            raise DataError(
                f"{groups:,} groups x {periods:,} periods x {self._measures} answers need more than 1 GB; choose a "
                "longer --period or fewer --max-groups"
            )
        self.buckets = min(BUCKETS, int(fit))
        self._sums = np.zeros((groups * periods * self.buckets, width))
        self._squares = np.zeros((groups * periods, self._measures))

    def add(self, cells: NDArray[np.intp], buckets: NDArray[np.intp], values: Values) -> None:
        """Rows with their cell, group x periods + period, and bucket."""
        ones = np.ones((len(cells), 1))
        columns = np.concatenate([ones, values.valid_NQ, values.values_NM, values.expected_NM], axis=1)
        _add_rows(self._sums, cells * self.buckets + buckets, columns)
        _add_rows(self._squares, cells, values.values_NM**2)

    def by_cell(self) -> Sums:
        return self._view(self._sums, self._squares)

    def by_group(self) -> Sums:
        return self._over((self.groups, self.periods), axis=1)

    def by_period(self) -> Sums:
        return self._over((self.groups, self.periods), axis=0)

    def _over(self, shape: tuple[int, int], axis: int) -> Sums:
        sums = self._sums.reshape(*shape, self.buckets, -1).sum(axis=axis)
        return self._view(sums.reshape(-1, sums.shape[-1]), self._squares.reshape(*shape, -1).sum(axis=axis))

    def _view(self, sums: Floats, squares: Floats) -> Sums:
        cube = sums.reshape(len(squares), self.buckets, -1)
        ends = np.cumsum([1, self._questions, self._measures])
        rows, answered, values, expected = np.split(cube, ends, axis=2)
        return Sums(rows[:, :, 0], answered[:, :, self._of_measure], values, expected, squares)


def _add_rows(into: Floats, places: NDArray[np.intp], rows: Floats) -> None:
    """Rows of equal place summed up first: `numpy.add.at` row by row is many times slower."""
    order = np.argsort(places, kind="stable")
    places = places[order]
    firsts = np.flatnonzero(np.concatenate([[True], places[1:] != places[:-1]]))
    into[places[firsts]] += np.add.reduceat(rows[order], firsts, axis=0)

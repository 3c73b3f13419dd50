"""Posts drawn at random while a corpus streams by, for words and examples.

Shapes: N posts of the sample, M measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from emollm.study.source import Floats

_MOST_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class SampledPosts:
    texts: list[str]
    ids: list[str]
    group_N: NDArray[np.intp]
    period_N: NDArray[np.intp]
    values_NM: Floats
    """NaN where there is no answer."""


class Sample:
    """Each row has a key that looks random; the rows with the smallest keys are kept."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, np.uint64(seed * 2 + 1)
        self._row = 0
        self._below = np.uint64(2**64 - 1)
        self._parts: list[tuple[NDArray[np.uint64], list[str], list[str], NDArray[Any], NDArray[Any]]] = []
        self._held = 0

    def add(self, texts: Any, ids: Any, group_N: NDArray[np.intp], period_N: NDArray[np.intp], values: Floats) -> None:
        """The next rows; `texts` and `ids` are Arrow arrays."""
        count = len(group_N)
        keys = _mixed(np.arange(self._row, self._row + count, dtype=np.uint64) * np.uint64(2) + self._seed)
        self._row += count
        kept = np.flatnonzero(keys < self._below) if self._size else np.zeros(0, np.intp)
        if not len(kept):
            return
        words = pc.utf8_slice_codeunits(pc.fill_null(pc.cast(texts.take(kept), "string"), ""), 0, _MOST_CHARACTERS)
        names = pc.fill_null(pc.cast(ids.take(kept), "string"), "")
        places = np.stack([group_N[kept], period_N[kept]], axis=1).astype(np.int32)
        self._parts.append((keys[kept], words.to_pylist(), names.to_pylist(), places, values[kept].astype(np.float32)))
        self._held += len(kept)
        if self._held > 2 * self._size:
            self._shrink()

    def _shrink(self) -> None:
        keys = np.concatenate([part[0] for part in self._parts])
        order = np.argsort(keys, kind="stable")[: self._size]
        texts = [text for part in self._parts for text in part[1]]
        ids = [one for part in self._parts for one in part[2]]
        places, values = (np.concatenate([part[i] for part in self._parts])[order] for i in (3, 4))
        self._parts = [(keys[order], [texts[i] for i in order], [ids[i] for i in order], places, values)]
        self._held = len(order)
        if len(order) == self._size:
            self._below = keys[order[-1]]

    def posts(self) -> SampledPosts | None:
        """In an order that looks random and is always the same. None where there are none."""
        if not self._held:
            return None
        self._shrink()
        _, texts, ids, places, values = self._parts[0]
        group, period = places[:, 0].astype(np.intp), places[:, 1].astype(np.intp)
        return SampledPosts(texts, ids, group, period, values.astype(np.float64))


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's step (Steele, Lea and Flood, OOPSLA 2014): neighbours get keys far apart."""
    with np.errstate(over="ignore"):
        numbers = numbers * np.uint64(0x9E3779B97F4A7C15)
        mixed = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))

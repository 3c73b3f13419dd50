"""The key-value cache of a batch of token trees: what each row holds, and what each of its tokens may see.

Shapes: B rows, K places of a row, H key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

KeyValues = list[tuple[torch.Tensor, torch.Tensor]]
"""A layer each: keys and values, [rows, H, K, D]."""

_SPARE = 24
"""Places added beyond need when rows grow, since answers grow by few tokens at a time."""


class TreeCache:
    """Rows fill up independently; places beyond `used[row]` hold nothing."""

    def __init__(
        self, prefixes: Sequence[tuple[int, ...]], computed: Mapping[tuple[int, ...], KeyValues], *, room: int
    ) -> None:
        """One row for each of `prefixes`, copied from `computed` (one row each), with room for so many more tokens."""
        self.used = [len(prefix) for prefix in prefixes]
        length = max(self.used) + room
        self._layers: KeyValues = [
            (_started([computed[p][i][0] for p in prefixes], length),
             _started([computed[p][i][1] for p in prefixes], length))
            for i in range(len(computed[prefixes[0]]))
        ]  # fmt: skip
        self.depth_BK = np.tile(np.arange(length, dtype=np.int64), (len(prefixes), 1))
        self.seen_BKK = np.tile(np.tri(length, dtype=bool), (len(prefixes), 1, 1))

    def past(self, rows: Sequence[int]) -> DynamicCache:
        """A cache of transformers with these rows, as long as the longest of them."""
        length = max(self.used[row] for row in rows)
        index = torch.tensor(rows, device=self._layers[0][0].device)
        cache = DynamicCache()
        for keys, values in self._layers:
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys[:, :, :length][index], values[:, :, :length][index]
            cache.layers.append(layer)
        return cache

    def store(
        self, cache: DynamicCache, rows: Sequence[int], counts: Sequence[int],
        depth_BT: np.ndarray, seen_BTK: np.ndarray,
    ) -> None:  # fmt: skip
        """Keep the first `counts[i]` of the new tokens of rows[i] in a cache that `past(rows)` began."""
        past = max(self.used[row] for row in rows)
        self._reserve(max(self.used[row] + count for row, count in zip(rows, counts, strict=True)))
        for i, (row, count) in enumerate(zip(rows, counts, strict=True)):
            start, end = self.used[row], self.used[row] + count
            for (keys, values), layer in zip(self._layers, cache.layers, strict=True):
                keys[row, :, start:end] = layer.keys[i, :, past : past + count]
                values[row, :, start:end] = layer.values[i, :, past : past + count]
            self.depth_BK[row, start:end] = depth_BT[i, :count]
            self.seen_BKK[row, start:end, :start] = seen_BTK[i, :count, :start]
            self.seen_BKK[row, start:end, start:end] = seen_BTK[i, :count, past : past + count]
            self.used[row] = end

    def _reserve(self, length: int) -> None:
        more = length - self.depth_BK.shape[1]
        if more <= 0:
            return
        more += _SPARE
        self._layers = [(_longer(keys, more), _longer(values, more)) for keys, values in self._layers]
        self.depth_BK = np.pad(self.depth_BK, ((0, 0), (0, more)))
        self.seen_BKK = np.pad(self.seen_BKK, ((0, 0), (0, more), (0, more)))


def _longer(states: torch.Tensor, more: int) -> torch.Tensor:
    # Zeros, not whatever was in memory: a masked place weighs nothing, but nothing times NaN is NaN.
    return torch.cat([states, states.new_zeros((*states.shape[:2], more, states.shape[3]))], dim=2)


def _started(states: Sequence[torch.Tensor], length: int) -> torch.Tensor:
    """[1, H, k, D] each to the beginning of a row of [rows, H, length, D]."""
    _, heads, _, size = states[0].shape
    rows = states[0].new_zeros((len(states), heads, length, size))
    for row, state in zip(rows, states, strict=True):
        row[:, : state.shape[2]] = state[0]
    return rows

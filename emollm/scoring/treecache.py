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


class TreeCache:
    """Rows fill up independently; places beyond `used[row]` hold nothing."""

    def __init__(self, prefixes: Sequence[tuple[int, ...]], computed: Mapping[tuple[int, ...], KeyValues]) -> None:
        """One row for each of `prefixes`, which are copied from `computed` (one row each)."""
        self.used = [len(prefix) for prefix in prefixes]
        longest = max(self.used)
        distinct = list(dict.fromkeys(prefixes))
        first = computed[distinct[0]][0][0]
        rows = torch.tensor([distinct.index(prefix) for prefix in prefixes], device=first.device)
        self._layers: KeyValues = [
            (_stacked([computed[p][i][0] for p in distinct], longest)[rows],
             _stacked([computed[p][i][1] for p in distinct], longest)[rows])
            for i in range(len(computed[distinct[0]]))
        ]  # fmt: skip
        self.depth_BK = np.tile(np.arange(longest, dtype=np.int64), (len(prefixes), 1))
        self.seen_BKK = np.tile(np.tri(longest, dtype=bool), (len(prefixes), 1, 1))

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
        if more > 0:
            pad = torch.nn.functional.pad
            self._layers = [(pad(k, (0, 0, 0, more)), pad(v, (0, 0, 0, more))) for k, v in self._layers]
            self.depth_BK = np.pad(self.depth_BK, ((0, 0), (0, more)))
            self.seen_BKK = np.pad(self.seen_BKK, ((0, 0), (0, more), (0, more)))


def _stacked(states: Sequence[torch.Tensor], length: int) -> torch.Tensor:
    return torch.cat([torch.nn.functional.pad(s, (0, 0, 0, length - s.shape[2])) for s in states])

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
        # The rows of each prefix: they are few, and so are the copies.
        of_prefix: dict[tuple[int, ...], list[int]] = {}
        for row, prefix in enumerate(prefixes):
            of_prefix.setdefault(prefix, []).append(row)
        rows = {prefix: torch.tensor(mine) for prefix, mine in of_prefix.items()}
        self._layers: KeyValues = [
            (_started([(rows[p], layers[i][0]) for p, layers in computed.items()], len(prefixes), length),
             _started([(rows[p], layers[i][1]) for p, layers in computed.items()], len(prefixes), length))
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
        used, count = np.array([self.used[row] for row in rows]), np.array(counts)
        self._reserve(int((used + count).max()))
        # One entry per kept token: the row it is in, here and in the cache, and its place in both.
        here_N = np.repeat(np.arange(len(rows)), count)
        new_N = np.arange(len(here_N)) - np.repeat(count.cumsum() - count, count)
        row_N, place_N = np.array(rows)[here_N], used[here_N] + new_N
        self.depth_BK[row_N, place_N] = depth_BT[here_N, new_N]
        self.seen_BKK[row_N, place_N, :past] = seen_BTK[here_N, new_N, :past]
        for i, row in enumerate(rows):  # what is new stands behind each row's own past
            start, end = used[i], used[i] + count[i]
            self.seen_BKK[row, start:end, start:end] = seen_BTK[i, : count[i], past : past + count[i]]
            self.used[row] = int(end)
        device = self._layers[0][0].device
        to = tuple(torch.from_numpy(index).to(device) for index in (row_N, place_N))
        of = tuple(torch.from_numpy(index).to(device) for index in (here_N, past + new_N))
        for (keys, values), layer in zip(self._layers, cache.layers, strict=True):
            keys[to[0], :, to[1]] = layer.keys[of[0], :, of[1]]
            values[to[0], :, to[1]] = layer.values[of[0], :, of[1]]

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


def _started(states: Sequence[tuple[torch.Tensor, torch.Tensor]], count: int, length: int) -> torch.Tensor:
    """[count, H, length, D] that begin with these: rows, and the [1, H, k, D] that they begin with."""
    first = states[0][1]
    started = first.new_zeros((count, first.shape[1], length, first.shape[3]))
    for rows, state in states:
        started[rows.to(state.device), :, : state.shape[2]] = state
    return started

"""The key-value cache of a batch of token trees.

The keys and values of all layers are in one tensor, so that a pass copies rows in a few calls and not in a few per
layer: on a GPU every call is a kernel launch.

Shapes: S keys or values of layers, B rows, K places of a row, H key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

KeyValues = list[torch.Tensor]
"""[S, rows, H, K, D] of all layers, keys before values; more than one tensor if layers differ in H or D."""

_SPARE = 24
"""Spare positions that are added when rows grow, since answers grow by few tokens at a time."""


def alike(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Layers that share a tensor, by the shapes of their keys."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for layer, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(layer)
    return list(groups.values())


def stacked(cache: DynamicCache, start: int = 0) -> KeyValues:
    """The content of a cache of transformers from position `start` on."""
    shapes = [(layer.keys.shape[1], layer.keys.shape[3]) for layer in cache.layers]
    return [
        torch.stack(
            [cache.layers[i].keys[:, :, start:] for i in layers]
            + [cache.layers[i].values[:, :, start:] for i in layers]
        )
        for layers in alike(shapes)
    ]


class _LayerWithRoom(DynamicLayer):  # type: ignore[misc]
    """New tokens go into places that are there: one of transformers would copy all its keys and values for them."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._whole, self._used = (keys, values), used
        self.keys, self.values = keys[:, :, :used], values[:, :, :used]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for whole, new in zip(self._whole, (key_states, value_states), strict=True):
            whole[:, :, self._used :] = new
        self.keys, self.values = self._whole
        return self._whole


class TreeCache:
    """Rows fill up independently; positions beyond `used[row]` are empty."""

    def __init__(
        self, prefixes: Sequence[tuple[int, ...]], computed: Mapping[tuple[int, ...], KeyValues], *, room: int
    ) -> None:
        """One row for each of `prefixes`, copied from `computed` (one row each), with space for further tokens."""
        self.used = [len(prefix) for prefix in prefixes]
        length = max(self.used) + room
        # The rows of each prefix: there are few prefixes, so there are few copies.
        of_prefix: dict[tuple[int, ...], list[int]] = {}
        for row, prefix in enumerate(prefixes):
            of_prefix.setdefault(prefix, []).append(row)
        rows = {prefix: torch.tensor(mine) for prefix, mine in of_prefix.items()}
        self._states: KeyValues = [
            _started([(rows[p], states[i]) for p, states in computed.items()], len(prefixes), length)
            for i in range(len(computed[prefixes[0]]))
        ]
        self.depth_BK = np.tile(np.arange(length, dtype=np.int64), (len(prefixes), 1))
        self.seen_BKK = np.tile(np.tri(length, dtype=bool), (len(prefixes), 1, 1))

    def past(self, rows: Sequence[int], layers: Sequence[Sequence[int]], *, new: int) -> DynamicCache:
        """A cache of transformers with these rows, as long as the longest of them, for `new` tokens to be added once.

        `layers` are those of `alike`.
        """
        length = max(self.used[row] for row in rows)
        self._reserve(length + new)
        index = torch.tensor(rows, device=self._states[0].device)
        found: dict[int, DynamicLayer] = {}
        for states, mine in zip(self._states, layers, strict=True):
            taken = taken_rows(states, index, length + new)
            for place, number in enumerate(mine):
                found[number] = _LayerWithRoom(taken[place], taken[len(mine) + place], length)
        cache = DynamicCache()
        cache.layers = [found[number] for number in range(len(found))]
        return cache

    def store(
        self, cache: DynamicCache, rows: Sequence[int], counts: Sequence[int],
        depth_BT: np.ndarray, seen_BTK: np.ndarray,
    ) -> None:  # fmt: skip
        """Keep the first `counts[i]` of the new tokens of rows[i] in a cache that `past(rows)` began."""
        past = max(self.used[row] for row in rows)
        used, count = np.array([self.used[row] for row in rows]), np.array(counts)
        if not count.any():
            return
        self._reserve(int((used + count).max()))
        # One entry per kept token: its row, here and in the cache, and its position in both.
        here_N = np.repeat(np.arange(len(rows)), count)
        new_N = np.arange(len(here_N)) - np.repeat(count.cumsum() - count, count)
        row_N, place_N = np.array(rows)[here_N], used[here_N] + new_N
        self.depth_BK[row_N, place_N] = depth_BT[here_N, new_N]
        self.seen_BKK[row_N, place_N, :past] = seen_BTK[here_N, new_N, :past]
        for i, row in enumerate(rows):  # new tokens come after each row's own past
            start, end = used[i], used[i] + count[i]
            self.seen_BKK[row, start:end, start:end] = seen_BTK[i, : count[i], past : past + count[i]]
            self.used[row] = int(end)
        device = self._states[0].device
        places = torch.from_numpy(np.stack([row_N, place_N, here_N, new_N])).to(device)
        put_tokens(self._states, cache, past, places)

    def _reserve(self, length: int) -> None:
        more = length - self.depth_BK.shape[1]
        if more <= 0:
            return
        more += _SPARE
        # Zeros instead of uninitialised memory: a masked position has weight 0, but 0 times NaN is NaN.
        self._states = [torch.nn.functional.pad(states, (0, 0, 0, more)) for states in self._states]
        self.depth_BK = np.pad(self.depth_BK, ((0, 0), (0, more)))
        self.seen_BKK = np.pad(self.seen_BKK, ((0, 0), (0, more), (0, more)))


def taken_rows(states: torch.Tensor, rows: torch.Tensor, length: int) -> torch.Tensor:
    """Copies of these rows, up to the place `length`."""
    # Not `index_select`, which on a CPU first makes a part of a tensor contiguous: a copy of all rows.
    return states[:, :, :, :length][:, rows]


def put_tokens(into: KeyValues, cache: DynamicCache, start: int, places_4N: torch.Tensor) -> None:
    """Copy tokens of a cache: `places_4N` are row and place in `into`, then row and place behind `start` in `cache`."""
    to_row, to_place, of_row, of_place = places_4N
    for states, new in zip(into, stacked(cache, start), strict=True):
        states[:, to_row, :, to_place] = new[:, of_row, :, of_place]


def _started(prefixes: Sequence[tuple[torch.Tensor, torch.Tensor]], count: int, length: int) -> torch.Tensor:
    """[S, count, H, length, D] that begin with these: rows, and the [S, 1, H, k, D] that they begin with."""
    first = prefixes[0][1]
    started = first.new_zeros((first.shape[0], count, first.shape[2], length, first.shape[4]))
    for rows, states in prefixes:
        started[:, rows.to(first.device), :, : states.shape[3]] = states
    return started

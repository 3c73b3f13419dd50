"""The key-value cache of a batch of token trees.

The keys and values of all layers are in one tensor, so that a pass copies rows in a few calls and not in a few per
layer: on a GPU every call is a kernel launch.

Shapes: S keys or values of layers, B rows, K places of a row, H key-value heads, D head size, N tokens, C chains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from emollm.scoring.constrained.ragged import Bools, Ints

KeyValues = list[torch.Tensor]
"""[S, rows, H, K, D] of all layers, keys before values; more than one tensor if layers differ in H or D."""

_DEPTH, _FIRST, _ANCHOR = range(3)
"""What is known of a place: the number of tokens before it on its path, the first place of its chain, and the place to
which the chain is attached."""
_NOTHING = -1
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

    def __init__(self, whole: Sequence[torch.Tensor], used: Sequence[torch.Tensor]) -> None:
        """Keys and values with room behind what is used of them, and this part alone."""
        super().__init__()
        self._whole, (self.keys, self.values) = whole, used
        self.dtype, self.device, self.is_initialized = self.keys.dtype, self.keys.device, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        used = self.keys.shape[2]
        for whole, new in zip(self._whole, (key_states, value_states), strict=True):
            whole[:, :, used:] = new
        self.keys, self.values = self._whole
        return self.keys, self.values


class Kept(NamedTuple):
    """Tokens of a pass that are kept, those of a chain side by side."""

    here_N: Ints
    """The row of each in the pass."""
    new_N: Ints
    """Its place among the row's new tokens."""
    within_N: Ints
    """Its place in its chain, a run of tokens each of which sees the one before."""
    anchor_N: Ints
    """The place in the row to which its chain is attached."""
    depth_N: Ints
    """The number of tokens that it comes after."""


class TreeCache:
    """Rows fill up independently; positions beyond `used_B[row]` are empty."""

    def __init__(
        self, prefixes: Sequence[tuple[int, ...]], computed: Mapping[tuple[int, ...], KeyValues], *, room: int
    ) -> None:
        """One row for each of `prefixes`, copied from `computed` (one row each), with space for further tokens."""
        self.used_B = np.array([len(prefix) for prefix in prefixes])
        length = int(self.used_B.max()) + room
        # The rows of each prefix: there are few prefixes, so there are few copies.
        of_prefix: dict[tuple[int, ...], list[int]] = {}
        for row, prefix in enumerate(prefixes):
            of_prefix.setdefault(prefix, []).append(row)
        rows = {prefix: torch.tensor(mine) for prefix, mine in of_prefix.items()}
        self._states: KeyValues = [
            _started([(rows[p], states[i]) for p, states in computed.items()], len(prefixes), length)
            for i in range(len(computed[prefixes[0]]))
        ]
        # A prefix is a chain that is attached to nothing.
        self._places_3BK = np.zeros((3, len(prefixes), length), np.int64)
        self._places_3BK[_DEPTH], self._places_3BK[_ANCHOR] = np.arange(length), _NOTHING

    def depth(self, row_N: Ints, place_N: Ints) -> Ints:
        found_N: Ints = self._places_3BK[_DEPTH, row_N, place_N]
        return found_N

    def depths(self, row_B: Ints, length: int) -> Ints:
        found_BK: Ints = self._places_3BK[_DEPTH, row_B, :length]
        return found_BK

    def seen(self, row_C: Ints, place_C: Ints, length: int) -> Bools:
        """[C, length] the places that a token sees that comes after `place_C` of its row: the chains on its path."""
        edges_CK = np.zeros((len(row_C), length + 1), np.int8)
        on = np.arange(len(row_C))
        while len(on):
            _, first, anchor = self._places_3BK[:, row_C, place_C]
            edges_CK[on, first] += 1
            edges_CK[on, place_C + 1] -= 1
            goes_on = anchor != _NOTHING
            on, row_C, place_C = on[goes_on], row_C[goes_on], anchor[goes_on]
        return edges_CK[:, :length].cumsum(1, dtype=np.int8).view(bool)

    def past(self, row_B: Ints, layers: Sequence[Sequence[int]], *, new: int) -> DynamicCache:
        """A cache of transformers with these rows, as long as the longest of them, for `new` tokens to be added once.

        `layers` are those of `alike`.
        """
        length = int(self.used_B[row_B].max()) + new
        self._reserve(length)
        index = torch.from_numpy(row_B).to(self._states[0].device)
        found: dict[int, DynamicLayer] = {}
        for states, mine in zip(self._states, layers, strict=True):
            taken = taken_rows(states, index, length)
            whole, used = taken.unbind(), taken[:, :, :, : length - new].unbind()
            for place, number in enumerate(mine):
                here = slice(place, None, len(mine))  # its keys and its values
                found[number] = _LayerWithRoom(whole[here], used[here])
        cache = DynamicCache()
        cache.layers = [found[number] for number in range(len(found))]
        return cache

    def store(self, cache: DynamicCache, row_B: Ints, kept: Kept) -> None:
        """Keep tokens of a cache that `past(row_B)` began; those of a row come first in it, and in `kept`."""
        past = int(self.used_B[row_B].max())
        row_N, place_N = row_B[kept.here_N], self.used_B[row_B][kept.here_N] + kept.new_N
        if not len(row_N):
            return
        self._reserve(int(place_N.max()) + 1)
        self._places_3BK[:, row_N, place_N] = kept.depth_N, place_N - kept.within_N, kept.anchor_N
        np.maximum.at(self.used_B, row_N, place_N + 1)
        places = torch.from_numpy(np.stack([row_N, place_N, kept.here_N, kept.new_N]))
        put_tokens(self._states, cache, past, places.to(self._states[0].device))

    def _reserve(self, length: int) -> None:
        more = length - self._places_3BK.shape[2]
        if more <= 0:
            return
        more += _SPARE
        # Zeros instead of uninitialised memory: a masked position has weight 0, but 0 times NaN is NaN.
        self._states = [torch.nn.functional.pad(states, (0, 0, 0, more)) for states in self._states]
        self._places_3BK = np.pad(self._places_3BK, ((0, 0), (0, 0), (0, more)))


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

"""Rows of a cache go out and come back as they were, also where layers differ in their sizes."""

from __future__ import annotations

import numpy as np
import torch
from transformers import DynamicCache

from emollm.scoring.constrained.treecache import TreeCache, alike, stacked

SIZES = (4, 8, 4)
"""Head size of each layer: the first and the last share a tensor."""


def cache_of(generator: torch.Generator, rows: int, tokens: int) -> DynamicCache:
    cache = DynamicCache()
    for layer, size in enumerate(SIZES):
        cache.update(*torch.randn(2, rows, 2, tokens, size, generator=generator), layer)
    return cache


def test_rows_keep_what_is_stored_in_them_and_grow() -> None:
    generator = torch.Generator().manual_seed(0)
    prefix = cache_of(generator, rows=1, tokens=3)
    layers = alike([(layer.keys.shape[1], layer.keys.shape[3]) for layer in prefix.layers])
    assert layers == [[0, 2], [1]]
    trees = TreeCache([(1, 2, 3)] * 2, {(1, 2, 3): stacked(prefix)}, room=1)
    past, new = trees.past([1, 0], layers, new=2), cache_of(generator, rows=2, tokens=2)
    for number, layer in enumerate(past.layers):
        torch.testing.assert_close(layer.keys, prefix.layers[number].keys.expand(2, -1, -1, -1))
        keys, _ = layer.update(new.layers[number].keys, new.layers[number].values)
        assert keys.shape[2] == layer.get_seq_length() == 5
    depth_BT, seen_BTK = np.array([[3, 4], [3, 4]]), np.tri(2, 5, 3, dtype=bool)[None].repeat(2, axis=0)
    trees.store(past, [1, 0], [2, 1], depth_BT, seen_BTK)  # two tokens of row 1, one of row 0: more than there was room
    assert trees.used == [4, 5]
    assert trees.depth_BK[1, :5].tolist() == [0, 1, 2, 3, 4] and trees.seen_BKK[1, 4, :5].all()
    again = trees.past([0, 1], layers, new=1)
    for number, layer in enumerate(again.layers):
        for states, first, added in (
            (layer.keys, prefix.layers[number].keys, new.layers[number].keys),
            (layer.values, prefix.layers[number].values, new.layers[number].values),
        ):
            torch.testing.assert_close(states[:, :, :3], first.expand(2, -1, -1, -1))
            torch.testing.assert_close(states[1, :, 3:5], added[0])
            torch.testing.assert_close(states[0, :, 3], added[1, :, 0])
            assert states.shape[2] == 5

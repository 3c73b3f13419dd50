"""Rows of a cache go out and come back as they were, also where layers differ in their sizes."""

from __future__ import annotations

import numpy as np
import torch
from transformers import DynamicCache

from emollm.scoring.constrained.treecache import Kept, TreeCache, alike, stacked

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
    rows = np.array([1, 0])
    past, new = trees.past(rows, layers, new=2), cache_of(generator, rows=2, tokens=2)
    for number, layer in enumerate(past.layers):
        torch.testing.assert_close(layer.keys, prefix.layers[number].keys.expand(2, -1, -1, -1))
        keys, _ = layer.update(new.layers[number].keys, new.layers[number].values)
        assert keys.shape[2] == layer.get_seq_length() == 5
    # Two tokens of row 1, one of row 0: more than there was room.
    here, place = np.array([0, 0, 1]), np.array([0, 1, 0])
    trees.store(past, rows, Kept(here, place, within_N=place, anchor_N=np.full(3, 2), depth_N=3 + place))
    assert trees.used_B.tolist() == [4, 5]
    assert trees.depths(rows, 5)[0].tolist() == [0, 1, 2, 3, 4] and trees.seen(rows, np.array([4, 3]), 5)[0].all()
    again = trees.past(np.array([0, 1]), layers, new=1)
    for number, layer in enumerate(again.layers):
        for states, first, added in (
            (layer.keys, prefix.layers[number].keys, new.layers[number].keys),
            (layer.values, prefix.layers[number].values, new.layers[number].values),
        ):
            torch.testing.assert_close(states[:, :, :3], first.expand(2, -1, -1, -1))
            torch.testing.assert_close(states[1, :, 3:5], added[0])
            torch.testing.assert_close(states[0, :, 3], added[1, :, 0])
            assert states.shape[2] == 5


def test_a_token_sees_the_chains_on_its_path_alone() -> None:
    cache = cache_of(torch.Generator().manual_seed(0), rows=1, tokens=2)
    layers = alike([(layer.keys.shape[1], layer.keys.shape[3]) for layer in cache.layers])
    trees, row = TreeCache([(1, 2)], {(1, 2): stacked(cache)}, room=1), np.array([0])
    # 0 1 ─┬─ 2 ─┬─ 3
    #      │     └─ 6
    #      └─ 4 ─── 5
    for within, anchor, depth in (([0, 1, 0, 1], 1, [2, 3, 2, 3]), ([0], 2, [3])):
        past, tokens = trees.past(row, layers, new=len(within)), len(within)
        new = cache_of(torch.Generator(), rows=1, tokens=tokens)
        for mine, theirs in zip(past.layers, new.layers, strict=True):
            mine.update(theirs.keys, theirs.values)
        here = np.zeros(tokens, int)
        trees.store(past, row, Kept(here, np.arange(tokens), np.array(within), here + anchor, np.array(depth)))
    seen = {place: np.flatnonzero(trees.seen(row, np.array([place]), 7)[0]).tolist() for place in range(7)}
    assert seen == {0: [0], 1: [0, 1], 2: [0, 1, 2], 3: [0, 1, 2, 3], 4: [0, 1, 4], 5: [0, 1, 4, 5], 6: [0, 1, 2, 6]}
    assert trees.depths(row, 7).tolist() == [[0, 1, 2, 3, 2, 3, 3]]

"""Batches of like lengths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from emollm.models.batching import with_least_padding

BUDGET, PASS = 60, 7


def cost(batches: list[list[int]], lengths: list[int]) -> int:
    return sum(PASS + len(batch) * max(lengths[i] for i in batch) for batch in batches)


@pytest.mark.parametrize("seed", range(5))
def test_every_row_once_within_the_budget_and_nearly_as_cheap_as_can_be(seed: int) -> None:
    lengths = np.random.default_rng(seed).choice([1, 2, 3, 20, 40], 9).tolist()
    batches = with_least_padding(lengths, batch_tokens=BUDGET, pass_tokens=PASS)
    assert sorted(itertools.chain(*batches)) == list(range(9))
    assert all(len(batch) * max(lengths[i] for i in batch) <= BUDGET for batch in batches)
    order = sorted(range(9), key=lambda i: -lengths[i])
    all_cuts = (
        [order[a:b] for a, b in itertools.pairwise((0, *(i for i in range(1, 9) if cuts >> (i - 1) & 1), 9))]
        for cuts in range(256)
    )
    fitting = [c for c in all_cuts if all(len(b) * lengths[b[0]] <= BUDGET for b in c)]
    assert cost(batches, lengths) <= 1.15 * min(cost(c, lengths) for c in fitting)

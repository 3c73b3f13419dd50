"""Common prefixes of prompts are computed once: a micro-batch is one tree of tokens.

    "Task: how much joy ..." ─┬─ "Tweet: what a day" ─ answer
                              └─ "Tweet: oh dear"    ─ answer

All tokens are in one sequence; a mask lets each attend to its ancestors only, and its position is its depth.
So every token has the hidden state that it would have in a row of its own, and the gradients are the same. Half
of an instruction row is its wording, and there are ten wordings per question: a step of a few hundred rows has each
wording many times. (`emollm.scoring.constrained.causal` reads posts in the same way.)

Shapes: T tokens of the tree, N rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from emollm.training.batches import IGNORED, EncodedRow, MicroBatch, Tokens

_WORTH_IT = 0.8
"""A tree needs a mask and a sorted step, so it must save at least a fifth of the work."""
_MASKED = {"cpu": 1.0, "cuda": 4.0}
"""Relative time of attention with a custom mask, compared with padded rows without one. On a GPU the flash kernels
accept no mask and skip masked parts (an estimate; benchmarks/training.py measures it on a GPU)."""


def can_share(lm: Any) -> bool:
    """Whether the model, a decoder, accepts custom positions and masks."""
    decoder = lm.get_decoder()
    takes_positions = "position_ids" in inspect.signature(decoder.forward).parameters
    return takes_positions and lm.config._attn_implementation == "sdpa"


def is_worth_it(rows: Sequence[EncodedRow], *, width: int, device: str = "cpu") -> bool:
    """Whether a model of hidden size `width` computes rows faster as a tree than padded to the longest.

    Attention is dense over all tokens of a tree. In a layer a token needs about 24 width^2 FLOPs for products with
    weights and 4 T width for attention over T tokens, so attention adds T / (6 width).
    """
    longest = max(map(len, rows))
    tree, padded = num_tokens(rows), len(rows) * longest
    masked = _MASKED[device.partition(":")[0]]
    return tree * (1 + masked * tree / (6 * width)) <= _WORTH_IT * padded * (1 + longest / (6 * width))


def num_tokens(rows: Sequence[EncodedRow]) -> int:
    """Tokens of the tree, which are fewest if rows with common prefixes are neighbours."""
    before: Tokens = ()
    total = 0
    for row in rows:
        total += len(row) - _shared(before, row)
        before = row.prompt
    return total


def collate_tree(rows: Sequence[EncodedRow]) -> MicroBatch:
    """All rows as one sequence, each branching off the previous row where their prompts differ."""
    total = num_tokens(rows)
    ids = np.zeros(total, dtype=np.int64)
    depth = np.zeros(total, dtype=np.int64)
    labels = np.full(total, IGNORED, dtype=np.int64)
    seen_TT = np.zeros((total, total), dtype=bool)
    before: Tokens = ()
    path = np.zeros(0, dtype=np.int64)
    start = 0
    for row in rows:
        shared = _shared(before, row)
        end = start + len(row) - shared
        ids[start:end] = np.concatenate([row.prompt[shared:], row.answer])
        path = np.concatenate([path[:shared], np.arange(start, end)])
        depth[start:end] = np.arange(shared, len(path))
        if shared:  # what the token sees at which the row branches off, itself included
            seen_TT[start:end, :start] = seen_TT[path[shared - 1], :start]
        seen_TT[start:end, start:end] = np.tri(end - start, dtype=bool)
        # The position before a token predicts it: the first answer token is predicted by the prompt's last.
        labels[path[len(row.prompt) - 1 : -1]] = row.answer
        before, start = row.prompt, end
    inputs = {"input_ids": ids[None], "position_ids": depth[None], "attention_mask": seen_TT[None, None]}
    return MicroBatch({name: torch.from_numpy(array) for name, array in inputs.items()}, torch.from_numpy(labels[None]))


def _shared(before: Tokens, row: EncodedRow) -> int:
    """Common tokens at the start of both prompts, without the last token of each, which predicts its own answer."""
    limit = min(len(before), len(row.prompt)) - 1
    if limit < 1:
        return 0
    differ = np.asarray(before[:limit]) != np.asarray(row.prompt[:limit])
    first = int(differ.argmax())
    return first if differ[first] else limit

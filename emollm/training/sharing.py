"""Common beginnings of prompts, computed once: a micro-batch as one tree of tokens.

    "Task: how much joy ..." ─┬─ "Tweet: what a day" ─ answer
                              └─ "Tweet: oh dear"    ─ answer

All tokens lie side by side in one sequence; a mask lets each see its ancestors only, and its position is its depth.
So every token has the hidden state it would have in a row of its own, and gradients add up as they would there. Half
of an instruction row is its wording, of which there are ten a question: a step of a few hundred rows holds each
wording many times over. (`emollm.scoring.constrained.causal` reads posts the same way.)

Shapes: T tokens of the tree, N rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from emollm.training.batches import IGNORED, EncodedRow, MicroBatch

_WORTH_IT = 0.8
"""A tree needs a mask and a sorted step, so it must save a fifth of the work."""


def can_share(lm: Any) -> bool:
    """Whether the model, a decoder, can be given positions and a mask of one's own."""
    decoder = lm.get_decoder()
    takes_positions = "position_ids" in inspect.signature(decoder.forward).parameters
    return takes_positions and lm.config._attn_implementation == "sdpa"


def is_worth_it(rows: Sequence[EncodedRow], *, width: int) -> bool:
    """Whether rows are computed faster as a tree than padded to the longest, by a model of hidden size `width`.

    Attention is dense over all tokens of a tree. In a layer a token takes about 24 width^2 FLOPs in products with
    weights and 4 T width in attention over T tokens, so that T / (6 width) is what it adds.
    """
    longest = max(len(row.prompt) + len(row.answer) for row in rows)
    tree, padded = num_tokens(rows), len(rows) * longest
    return tree * (1 + tree / (6 * width)) <= _WORTH_IT * padded * (1 + longest / (6 * width))


def num_tokens(rows: Sequence[EncodedRow]) -> int:
    """Tokens of the tree; least where rows that begin alike are neighbours."""
    before: list[int] = []
    total = 0
    for row in rows:
        total += len(row.prompt) + len(row.answer) - _shared(before, row)
        before = row.prompt
    return total


def collate_tree(rows: Sequence[EncodedRow], *, device: str) -> MicroBatch:
    """All rows as one sequence, each branching off the row before it where their prompts part."""
    total = num_tokens(rows)
    ids = np.zeros(total, dtype=np.int64)
    depth = np.zeros(total, dtype=np.int64)
    labels = np.full(total, IGNORED, dtype=np.int64)
    seen_TT = np.zeros((total, total), dtype=bool)
    before: list[int] = []
    path = np.zeros(0, dtype=np.int64)
    start = 0
    for row in rows:
        shared = _shared(before, row)
        new = row.prompt[shared:] + row.answer
        end = start + len(new)
        ids[start:end] = new
        path = np.concatenate([path[:shared], np.arange(start, end)])
        depth[start:end] = np.arange(shared, len(path))
        seen_TT[start:end, path[:shared]] = True
        seen_TT[start:end, start:end] = np.tri(len(new), dtype=bool)
        # The position before a token predicts it: the first answer token is predicted by the prompt's last.
        labels[path[len(row.prompt) - 1 : -1]] = row.answer
        before, start = row.prompt, end
    inputs = {"input_ids": ids[None], "position_ids": depth[None], "attention_mask": seen_TT[None, None]}
    return MicroBatch(
        {name: torch.from_numpy(array).to(device) for name, array in inputs.items()},
        torch.from_numpy(labels[None]).to(device),
    )


def _shared(before: Sequence[int], row: EncodedRow) -> int:
    """Tokens at the start of both prompts, but never the last of either: it predicts an answer of its own."""
    limit = min(len(before), len(row.prompt)) - 1
    for i in range(limit):
        if before[i] != row.prompt[i]:
            return i
    return max(limit, 0)

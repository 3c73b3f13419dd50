"""The interface between a search and a model of any architecture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch

from emollm.core.encoding import EncodedPrompt
from emollm.core.errors import ModelError


class Request(NamedTuple):
    """Read `tokens` after the position `parent`."""

    parent: Any
    tokens: list[int]
    wanted: list[list[int]]
    """For each of `tokens`, the ids whose probabilities after it are requested."""
    keep: bool
    """Whether anything will be read after the last token."""


class Read(NamedTuple):
    slot: Any
    """The position after the token, a parent of later requests."""
    log_ps: list[float]
    """Log-probabilities of the wanted ids, under the full softmax."""


class Reader(Protocol):
    """A model that has read some prompts and continues from there, with many answers at a time."""

    def open(self, prompts: Sequence[EncodedPrompt], wanted: Sequence[list[int]]) -> list[Read]:
        """Read the prompts, dropping all earlier ones; `wanted` are the ids requested after each."""

    def read(self, requests: Sequence[Request]) -> list[list[Read]]:
        """One `Read` per token of each request."""


def wanted_log_ps(logits_NV: torch.Tensor, wanted: Sequence[list[int]]) -> torch.Tensor:
    """Log-probabilities of the wanted ids at each of N positions, concatenated and still on the device.

    Normalised over the whole vocabulary in float32.
    """
    logits_NV = logits_NV.float()
    rows = torch.tensor([n for n, ids in enumerate(wanted) for _ in ids], device=logits_NV.device)
    columns = torch.tensor([i for ids in wanted for i in ids], device=logits_NV.device)
    return logits_NV[rows, columns] - logits_NV.logsumexp(-1)[rows]


def split_like(flat: torch.Tensor, wanted: Sequence[list[int]]) -> list[list[float]]:
    """The values of each of the wanted lists."""
    values, split, start = flat.tolist(), [], 0
    for ids in wanted:
        split.append(values[start : start + len(ids)])
        start += len(ids)
    if not math.isfinite(sum(values)):
        raise ModelError("the model gives probabilities that are not numbers; try --precision float32")
    return split

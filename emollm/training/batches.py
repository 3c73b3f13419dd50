"""Instruction rows to tensors: which rows make up a step, and how a micro-batch is padded.

Shapes: B rows of a micro-batch, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from emollm.core.encoding import PromptEncoder
from emollm.core.prompts import Pieces

IGNORED = -100


@dataclass(frozen=True, slots=True)
class EncodedRow:
    id: str
    prompt: list[int]
    answer: list[int]
    """Answer and end token: all that has a loss."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    inputs: dict[str, Any]
    """Keyword arguments of the model; with heads see `joint.Joint.collate`."""
    labels_BT: torch.Tensor
    """Aligned with the logits: what the model should say next at each position; IGNORED where it is not asked."""


def encode_rows(table: pa.Table, encoder: PromptEncoder) -> list[EncodedRow]:
    """The rows of a data folder, in order."""
    columns = (table[name].to_pylist() for name in ("id", "prefix", "post", "suffix", "answer"))
    return [
        EncodedRow(row_id, encoder.prompt(Pieces(prefix, post, suffix)).ids, encoder.answer(answer))
        for row_id, prefix, post, suffix, answer in zip(*columns, strict=True)
    ]


def steps(
    rows: Sequence[EncodedRow], *, global_batch_size: int, num_steps: int, seed: int
) -> Iterator[list[EncodedRow]]:
    """The rows of each optimizer step: epochs without end, each in an order of its own, cut into full batches.

    What a step holds depends on the seed alone, not on the number of workers.
    """
    rng = np.random.default_rng(seed)
    order: list[int] = []
    for _ in range(num_steps):
        while len(order) < global_batch_size:
            order.extend(rng.permutation(len(rows)).tolist())
        yield [rows[i] for i in order[:global_batch_size]]
        del order[:global_batch_size]


def cut_by_length(batch: Sequence[EncodedRow], micro_batch_size: int) -> list[list[EncodedRow]]:
    """Micro-batches that pad little: neighbours in length together."""
    return _cut(sorted(batch, key=lambda row: len(row.prompt) + len(row.answer)), micro_batch_size)


def cut_by_prompt(batch: Sequence[EncodedRow], micro_batch_size: int) -> list[list[EncodedRow]]:
    """Micro-batches whose prompts begin alike."""
    return _cut(sorted(batch, key=lambda row: row.prompt), micro_batch_size)


def _cut(batch: list[EncodedRow], size: int) -> list[list[EncodedRow]]:
    return [batch[i : i + size] for i in range(0, len(batch), size)]


def collate_decoder(rows: Sequence[EncodedRow], *, pad: int, device: str) -> MicroBatch:
    """Prompt and answer in one sequence, padded on the right."""
    longest = max(len(row.prompt) + len(row.answer) for row in rows)
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED)
    for i, row in enumerate(rows):
        end = len(row.prompt) + len(row.answer)
        ids[i, :end] = torch.tensor(row.prompt + row.answer)
        mask[i, :end] = 1
        # The position before a token predicts it: the first answer token is predicted by the prompt's last.
        labels[i, len(row.prompt) - 1 : end - 1] = torch.tensor(row.answer)
    return MicroBatch({"input_ids": ids.to(device), "attention_mask": mask.to(device)}, labels.to(device))


def collate_encoder_decoder(rows: Sequence[EncodedRow], *, pad: int, start: int, device: str) -> MicroBatch:
    """Prompts for the encoder; for the decoder its start token and the answer, shifted by one."""
    longest_prompt = max(len(row.prompt) for row in rows)
    longest_answer = max(len(row.answer) for row in rows)
    ids = torch.full((len(rows), longest_prompt), pad)
    mask = torch.zeros((len(rows), longest_prompt), dtype=torch.long)
    decoder_ids = torch.full((len(rows), longest_answer), pad)
    labels = torch.full((len(rows), longest_answer), IGNORED)
    for i, row in enumerate(rows):
        ids[i, : len(row.prompt)] = torch.tensor(row.prompt)
        mask[i, : len(row.prompt)] = 1
        decoder_ids[i, : len(row.answer)] = torch.tensor([start, *row.answer[:-1]])
        labels[i, : len(row.answer)] = torch.tensor(row.answer)
    inputs = {
        "input_ids": ids.to(device),
        "attention_mask": mask.to(device),
        "decoder_input_ids": decoder_ids.to(device),
    }
    return MicroBatch(inputs, labels.to(device))

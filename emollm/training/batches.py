"""Instruction rows to tensors: the rows of a step, and the padding of a micro-batch.

Micro-batches are created on the CPU; `feed.py` moves them to the device.

Shapes: B rows of a micro-batch, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

IGNORED = -100
Tokens = Sequence[int] | NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class EncodedRow:
    id: str
    prompt: Tokens
    answer: Tokens
    """Answer and end token, the only tokens with a loss."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    inputs: dict[str, Any]
    """Keyword arguments of the model; with heads see `joint.Joint.collate`."""
    labels_BT: torch.Tensor
    """Aligned with the logits: the next token at each position; IGNORED if it has no loss."""

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> MicroBatch:
        """A copy with a function applied to every tensor, such as a move to a device."""
        return MicroBatch(_each(self.inputs, change), change(self.labels_BT))


def _each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, dict):
        return {name: _each(inner, change) for name, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_each(inner, change) for inner in value)
    return change(value)


def steps(
    rows: Sequence[EncodedRow], *, global_batch_size: int, num_steps: int, seed: int
) -> Iterator[list[EncodedRow]]:
    """The rows of each optimizer step: an endless sequence of epochs, each in its own order, cut into full batches.

    The rows of a step depend only on the seed, not on the number of workers.
    """
    rng = np.random.default_rng(seed)
    order: list[int] = []
    for _ in range(num_steps):
        while len(order) < global_batch_size:
            order.extend(rng.permutation(len(rows)).tolist())
        yield [rows[i] for i in order[:global_batch_size]]
        del order[:global_batch_size]


def cut_by_length(batch: Sequence[EncodedRow], micro_batch_size: int) -> list[list[EncodedRow]]:
    """Micro-batches of rows with similar lengths, to reduce padding, as many as with `micro_batch_size` rows each.

    Workers wait for the slowest, so the largest micro-batch, padding included, is made as small as possible: of short
    rows it has up to half as many again, and of long rows fewer.
    """
    rows = sorted(batch, key=len, reverse=True)
    count, at_most = -(-len(rows) // micro_batch_size), -(-3 * micro_batch_size // 2)
    low, high = (len(rows[0]), len(rows[0]) * micro_batch_size) if rows else (0, 0)
    while low < high:
        middle = (low + high) // 2
        if len(_filled(rows, middle, at_most)) <= count:
            high = middle
        else:
            low = middle + 1
    parts = _filled(rows, low, at_most)
    while len(parts) < count:
        largest = max(range(len(parts)), key=lambda i: len(parts[i][0]) * len(parts[i]) * (len(parts[i]) > 1))
        half = len(parts[largest]) // 2
        parts[largest : largest + 1] = [parts[largest][:half], parts[largest][half:]]
    return parts


def _filled(rows: Sequence[EncodedRow], tokens: int, at_most: int) -> list[list[EncodedRow]]:
    """Rows, longest first, in parts of at most so many tokens, padding included, and so many rows."""
    parts, first = [], 0
    while first < len(rows):
        size = max(1, min(tokens // len(rows[first]), at_most))
        parts.append(list(rows[first : first + size]))
        first += size
    return parts


def cut_by_prompt(batch: Sequence[EncodedRow], micro_batch_size: int) -> list[list[EncodedRow]]:
    """Micro-batches of rows whose prompts have common prefixes."""
    # Bytes of big-endian numbers are ordered as the numbers are, and compared in one call.
    return _cut(sorted(batch, key=lambda row: np.asarray(row.prompt, ">u4").tobytes()), micro_batch_size)


def _cut(batch: list[EncodedRow], size: int) -> list[list[EncodedRow]]:
    return [batch[i : i + size] for i in range(0, len(batch), size)]


def collate_decoder(rows: Sequence[EncodedRow], *, pad: int) -> MicroBatch:
    """Prompt and answer in one sequence, padded on the right.

    There is no mask: padding comes after all labels, which a causal model does not attend to, and without a mask
    PyTorch's attention uses its flash kernels.
    """
    ids = np.full((len(rows), max(map(len, rows))), pad, dtype=np.int64)
    labels = np.full(ids.shape, IGNORED, dtype=np.int64)
    for i, row in enumerate(rows):
        start, end = len(row.prompt), len(row)
        ids[i, :start] = row.prompt
        ids[i, start:end] = row.answer
        # The position before a token predicts it: the first answer token is predicted by the prompt's last.
        labels[i, start - 1 : end - 1] = row.answer
    return MicroBatch({"input_ids": torch.from_numpy(ids)}, torch.from_numpy(labels))


def collate_encoder_decoder(rows: Sequence[EncodedRow], *, pad: int, start: int) -> MicroBatch:
    """Prompts for the encoder; for the decoder its start token and the answer, shifted by one."""
    ids = np.full((len(rows), max(len(row.prompt) for row in rows)), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    decoder_ids = np.full((len(rows), max(len(row.answer) for row in rows)), pad, dtype=np.int64)
    labels = np.full(decoder_ids.shape, IGNORED, dtype=np.int64)
    for i, row in enumerate(rows):
        asked, answered = len(row.prompt), len(row.answer)
        ids[i, :asked] = row.prompt
        mask[i, :asked] = 1
        decoder_ids[i, 0] = start
        decoder_ids[i, 1:answered] = row.answer[:-1]
        labels[i, :answered] = row.answer
    inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": decoder_ids}
    return MicroBatch({name: torch.from_numpy(array) for name, array in inputs.items()}, torch.from_numpy(labels))

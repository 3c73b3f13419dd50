"""Which rows make up a step, and what is learnt of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from emollm.data.instructions import pieces_of, read_rows
from emollm.models.load import load_base, prompt_encoder
from emollm.training.batches import (
    IGNORED,
    EncodedRow,
    collate_decoder,
    collate_encoder_decoder,
    cut_by_length,
    cut_by_prompt,
    steps,
)
from emollm.training.row_tokens import encode_rows

ROWS = [
    EncodedRow("long", prompt=[11, 12, 13, 14], answer=[21, 2]),
    EncodedRow("short", prompt=[31], answer=[41, 42, 2]),
]


def test_a_decoder_learns_the_answer_from_the_position_before_it() -> None:
    batch = collate_decoder(ROWS, pad=0)
    assert batch.inputs["input_ids"].tolist() == [[11, 12, 13, 14, 21, 2], [31, 41, 42, 2, 0, 0]]
    assert set(batch.inputs) == {"input_ids"}  # without a mask attention is causal, and as fast as it gets
    _ = IGNORED
    assert batch.labels_BT.tolist() == [[_, _, _, 21, 2, _], [41, 42, 2, _, _, _]]


def test_an_encoder_decoder_reads_the_prompt_and_learns_the_answer() -> None:
    batch = collate_encoder_decoder(ROWS, pad=0, start=7)
    assert batch.inputs["input_ids"].tolist() == [[11, 12, 13, 14], [31, 0, 0, 0]]
    assert batch.inputs["decoder_input_ids"].tolist() == [[7, 21, 0], [7, 41, 42]]
    assert batch.labels_BT.tolist() == [[21, 2, IGNORED], [41, 42, 2]]


def test_every_epoch_shows_each_row_once_in_an_order_of_its_own() -> None:
    rows = [EncodedRow(str(i), prompt=[5] * (i % 7 + 1), answer=[2]) for i in range(24)]
    seen = [row.id for batch in steps(rows, global_batch_size=8, num_steps=6, seed=1) for row in batch]
    assert sorted(seen[:24], key=int) == sorted(seen[24:], key=int) == [str(i) for i in range(24)]
    assert seen[:24] != seen[24:]


@pytest.mark.parametrize("cut", [cut_by_length, cut_by_prompt])
def test_a_step_is_cut_without_gap_or_overlap(cut: Callable[..., list[list[EncodedRow]]]) -> None:
    rows = [EncodedRow(str(i), prompt=[5] * (i + 1), answer=[2]) for i in range(16)]
    (batch,) = steps(rows, global_batch_size=16, num_steps=1, seed=3)
    parts = cut(batch, 2)
    assert sorted(row.id for micro in parts for row in micro) == sorted(row.id for row in rows)
    # Neighbours in length, or in what they begin with, go together: that is what saves padding.
    assert all(abs(len(a.prompt) - len(b.prompt)) == 1 for part in parts for a, b in itertools.pairwise(part))


def test_micro_batches_cost_alike_whatever_the_lengths_and_are_as_many_as_asked_for() -> None:
    rng = np.random.default_rng(5)
    for size, count in ((4, 32), (8, 32), (5, 23), (16, 16), (1, 3)):
        rows = [EncodedRow(str(i), prompt=[5] * int(n), answer=[2]) for i, n in enumerate(rng.geometric(0.05, count))]
        parts = cut_by_length(rows, size)
        assert sorted(row.id for part in parts for row in part) == sorted(row.id for row in rows)
        assert len(parts) == -(-count // size) and max(map(len, parts)) <= -(-3 * size // 2)
        by_count = sorted(rows, key=len, reverse=True)
        even = [by_count[i : i + size] for i in range(0, count, size)]
        assert max(map(_tokens, parts)) <= max(map(_tokens, even))
    lengths = [60, 60, 60, 60, 20, 20, 20, 20, 20, 20, 20, 20]
    rows = [EncodedRow(str(i), prompt=[5] * (n - 1), answer=[2]) for i, n in enumerate(lengths)]
    assert [_tokens(part) for part in cut_by_length(rows, 4)] == [180, 180, 120]
    assert cut_by_length([], 4) == []


def _tokens(rows: list[EncodedRow]) -> int:
    """Padding included."""
    return len(rows) * max(map(len, rows))


def test_training_ids_are_the_scorers_ids_then_the_answer(tiny_base: Path, sample_data: Path) -> None:
    encoder = prompt_encoder(load_base(str(tiny_base)))
    table = read_rows(sample_data, "train").slice(0, 50)
    for row, encoded in zip(table.to_pylist(), encode_rows(table, encoder), strict=True):
        assert encoded.prompt.tolist() == encoder.prompt(pieces_of(row)).ids
        assert encoder.decode(encoded.answer.tolist()) == row["answer"]
        assert torch.tensor(encoded.answer)[-1] == 2

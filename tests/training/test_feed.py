"""Micro-batches are made on a thread, in order, and what goes wrong there is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from emollm.models.load import load_base
from emollm.training.batches import EncodedRow, MicroBatch, steps
from emollm.training.feed import ahead, fed_steps
from emollm.training.objective import Answers
from tests.training.ranks import options


def test_items_come_in_order_from_another_thread_and_at_most_two_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[tuple[int, int]]:
        for number in range(6):
            made.append(number)
            yield number, threading.get_ident()

    found = ahead(items())
    assert made == []
    number, thread = next(found)
    time.sleep(0.05)
    assert (number, thread != threading.get_ident(), len(made) <= 3) == (0, True, True)
    assert [number for number, _ in found] == [1, 2, 3, 4, 5]


def test_an_error_on_the_thread_comes_after_what_was_made_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("a row without an answer")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="a row without an answer"):
        next(found)


@pytest.mark.parametrize("world_size", [1, 2])
def test_each_rank_gets_its_micro_batches_of_every_step(tiny_base: Path, sample_data: Path, world_size: int) -> None:
    workers = {"cluster": {"num_workers": world_size}}
    config = options(tiny_base, sample_data, global_batch_size=8, micro_batch_size=2, **workers)
    objective = Answers(load_base(str(tiny_base)), "cpu")
    rows = [EncodedRow(str(i), list(range(5, 8 + i)), [300 + i, 2]) for i in range(20)]
    found: list[set[int]] = [set() for _ in range(2)]
    for rank in range(world_size):
        batches = steps(rows, global_batch_size=8, num_steps=2, seed=1)
        feed = fed_steps(batches, objective, config, rank=rank, world_size=world_size, device="cpu")
        for step, (batch, micros) in enumerate(feed):
            assert len(batch) == 8
            taken = list(micros)
            assert len(taken) == config.accumulation_steps == 4 // world_size
            found[step] |= {int(label) for micro in taken for label in micro.labels_BT.flatten() if label >= 300}
    expected = steps(rows, global_batch_size=8, num_steps=2, seed=1)
    assert found == [{300 + int(row.id) for row in batch} for batch in expected]


def test_every_tensor_of_a_micro_batch_is_moved() -> None:
    inputs: dict[str, Any] = {"batch": (torch.zeros(2), torch.ones(1)), "answers": {"input_ids": torch.ones(3)}}
    moved = MicroBatch(inputs, torch.ones(4)).each(lambda tensor: tensor.to("meta"))
    tensors = [*moved.inputs["batch"], moved.inputs["answers"]["input_ids"], moved.labels_BT]
    assert {tensor.device.type for tensor in tensors} == {"meta"}

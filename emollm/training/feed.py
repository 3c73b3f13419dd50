"""Moves micro-batches to the device: the next ones are prepared on a thread while the model is busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any, TypeVar

from emollm.training.batches import EncodedRow, MicroBatch
from emollm.training.objective import Objective
from emollm.training.options import TrainConfig

_AHEAD = 2
"""Micro-batches that wait for the model."""

T = TypeVar("T")


def fed_steps(
    batches: Iterable[list[EncodedRow]], objective: Objective, config: TrainConfig, *, rank: int, world_size: int,
    device: str,
) -> Iterator[tuple[list[EncodedRow], Iterator[MicroBatch]]]:  # fmt: skip
    """For each step its rows and this rank's micro-batches, on the device. All of them must be consumed."""

    def made() -> Iterator[tuple[list[EncodedRow], MicroBatch]]:
        for batch in batches:
            for micro in objective.cut(batch, config.micro_batch_size)[rank::world_size]:
                yield batch, pinned(objective.collate(micro), device)

    micros = ((batch, moved(micro, device)) for batch, micro in ahead(made()))
    for batch, first in micros:
        rest = (micro for _, micro in islice(micros, config.accumulation_steps - 1))
        yield batch, chain([first], rest)


def fed(parts: Sequence[Sequence[EncodedRow]], objective: Objective, *, device: str) -> Iterator[MicroBatch]:
    """A micro-batch of each part, on the device."""
    made = (pinned(objective.collate(part), device) for part in parts)
    return (moved(micro, device) for micro in ahead(made))


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, with the next ones computed on a thread."""
    end: Any = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="micro-batches") as thread:
        waiting = deque(thread.submit(next, items, end) for _ in range(_AHEAD))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield item


def pinned(micro: MicroBatch, device: str) -> MicroBatch:
    """In pinned memory, from which a GPU can copy while it computes; unchanged for a CPU."""
    return micro if device == "cpu" else micro.each(lambda tensor: tensor.pin_memory())


def moved(micro: MicroBatch, device: str) -> MicroBatch:
    return micro if device == "cpu" else micro.each(lambda tensor: tensor.to(device, non_blocking=True))

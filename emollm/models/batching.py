"""Which prompts go through the model together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class PassCount:
    """What went through models in this process; every engine's batches are counted where they are cut."""

    tokens: int = 0
    """Without padding."""
    padded: int = 0
    """With padding: a batch is as long as its longest."""

    def add(self, lengths: Sequence[int], batch: Sequence[int]) -> None:
        chosen = [lengths[i] for i in batch]
        self.tokens += sum(chosen)
        self.padded += len(chosen) * max(chosen)


PASSES = PassCount()
"""Read it before and after: it only grows."""


def by_length(lengths: Sequence[int], *, batch_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of like length: at most `batch_tokens` tokens each, padding included.

    Longest first, so that memory peaks at once and not after an hour. A prompt longer than the budget goes alone.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[batch[0]] if batch else lengths[index]
        if batch and longest * (len(batch) + 1) > batch_tokens:
            PASSES.add(lengths, batch)
            yield batch
            batch = []
        batch.append(index)
    if batch:
        PASSES.add(lengths, batch)
        yield batch


def with_least_padding(lengths: Sequence[int], *, batch_tokens: int, pass_tokens: int) -> list[list[int]]:
    """As `by_length`, but cut where the padding saved is worth another pass, which costs as much as `pass_tokens`.

    Where a batch may hold most of the rows, as on a GPU, it would be padded to the longest of all. Rows of one length
    are cut where a batch is full, so that what is searched grows with the different lengths alone.
    """
    rows: dict[int, list[int]] = {}
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        rows.setdefault(lengths[index], []).append(index)
    longest_first, counts = list(rows), [len(mine) for mine in rows.values()]

    def most(length: int) -> int:
        return max(1, batch_tokens // max(1, length))

    # cheapest[i]: least cost of what is not longer than longest_first[i]; cut[i]: where what is padded to it ends.
    cheapest, cut = [0.0] * (len(counts) + 1), [0] * len(counts)
    for start in reversed(range(len(counts))):
        length, together, best = longest_first[start], 0, math.inf
        size = most(length)
        for end in range(start + 1, len(counts) + 1):
            together += counts[end - 1]
            cost = pass_tokens * -(-together // size) + length * together + cheapest[end]
            if cost < best:
                best, cut[start] = cost, end
        cheapest[start] = best
    batches, start = [], 0
    while start < len(counts):
        alike = [index for length in longest_first[start : cut[start]] for index in rows[length]]
        size = most(longest_first[start])
        for i in range(0, len(alike), size):
            batches.append(alike[i : i + size])
            PASSES.add(lengths, batches[-1])
        start = cut[start]
    return batches

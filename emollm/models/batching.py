"""Which prompts go through the model together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PASS_TOKENS = 48
"""What a pass costs besides its tokens, in tokens: reading the weights (135M parameters on a CPU core)."""


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


def with_least_padding(lengths: Sequence[int], *, batch_tokens: int) -> list[list[int]]:
    """As `by_length`, but cut where the padding saved is worth another pass; optimal, and quadratic in the batch size.

    For lengths that differ much: reading answers, one row may have one token to read and the next a hundred.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    # cheapest[i]: least cost of order[i:]; cut[i]: where its first batch ends.
    cheapest = [0.0] * (len(order) + 1)
    cut = [0] * len(order)
    for start in reversed(range(len(order))):
        longest = lengths[order[start]]
        most = max(1, batch_tokens // max(1, longest))
        ends = range(start + 1, min(len(order), start + most) + 1)
        cut[start] = min(ends, key=lambda end: PASS_TOKENS + longest * (end - start) + cheapest[end])
        cheapest[start] = PASS_TOKENS + longest * (cut[start] - start) + cheapest[cut[start]]
    batches, start = [], 0
    while start < len(order):
        batches.append(order[start : cut[start]])
        PASSES.add(lengths, batches[-1])
        start = cut[start]
    return batches

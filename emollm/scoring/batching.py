"""Which prompts go through the model together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def by_length(lengths: Sequence[int], *, batch_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of like length: at most `batch_tokens` tokens each, padding included.

    Longest first, so that memory peaks at once and not after an hour. A prompt longer than the budget goes alone.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[batch[0]] if batch else lengths[index]
        if batch and longest * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch

"""The tokens of instruction rows in two arrays, which the workers of a run share through files.

    tokens.npy      prompt and answer of all rows, concatenated
    ends.npy        for each row the ends of its prompt and of its answer

Rows are tokenized once per run, by its first worker; the others, and those of a continued run, map the files.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import torch.distributed as dist
from numpy.typing import NDArray

from emollm.core.encoding import PromptEncoder
from emollm.core.errors import TrainingError
from emollm.data.instructions import PIECES, pieces_of
from emollm.training.batches import EncodedRow

_AT_ONCE = 65_536
"""Rows per call; equal posts among them are tokenized once."""
_COMPARED = 16
"""Rows that are tokenized again to check that files were written with this tokenizer."""


@dataclass(frozen=True, slots=True)
class RowTokens(Sequence[EncodedRow]):
    """Rows in the order of their table."""

    ids: pa.ChunkedArray
    tokens: NDArray[np.int32]
    ends_N2: NDArray[np.int64]
    """Ends of the prompt and the answer of a row in `tokens`."""

    def __len__(self) -> int:
        return len(self.ends_N2)

    @overload
    def __getitem__(self, place: int) -> EncodedRow: ...
    @overload
    def __getitem__(self, place: slice) -> list[EncodedRow]: ...
    def __getitem__(self, place: int | slice) -> EncodedRow | list[EncodedRow]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        start = int(self.ends_N2[place - 1, 1]) if place else 0
        middle, end = self.ends_N2[place].tolist()
        return EncodedRow(self.ids[place].as_py(), self.tokens[start:middle], self.tokens[middle:end])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[N, 2]: tokens of each row's prompt and answer."""
        return np.diff(self.ends_N2.reshape(-1), prepend=0).reshape(-1, 2)


def encode_rows(table: pa.Table, encoder: PromptEncoder) -> RowTokens:
    """The rows of a data folder, in order."""
    tokens: list[NDArray[np.int32]] = []
    lengths: list[int] = []
    for first in range(0, table.num_rows, _AT_ONCE):
        part = table.slice(first, _AT_ONCE)
        rows = part.select([*PIECES, "answer"]).to_pylist()
        prompts = encoder.prompts([pieces_of(row) for row in rows])
        # Wordings and answers are repeated in many rows.
        parts = [
            (prompt.prefix, prompt.post, prompt.suffix, encoder.answer(row["answer"]))
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        lengths += chain.from_iterable((len(p) + len(post) + len(s), len(answer)) for p, post, s, answer in parts)
        tokens.append(np.fromiter(chain.from_iterable(chain.from_iterable(parts)), np.int32))
    ends_N2 = np.cumsum(np.array(lengths, dtype=np.int64)).reshape(-1, 2)
    return RowTokens(table["id"], np.concatenate([*tokens, np.zeros(0, np.int32)]), ends_N2)


def shared_rows(table: pa.Table, encoder: PromptEncoder, folder: Path, *, rank: int) -> RowTokens:
    """Like `encode_rows`, through the files in `folder`, which all ranks must share. Collective.

    Raises TrainingError if rank 0 cannot write them or another rank does not see them.
    """
    failed: list[str | None] = [None]
    if rank == 0 and not _are_of(folder, table, encoder):
        try:
            _write(folder, encode_rows(table, encoder))
        except OSError as error:
            failed = [f"cannot write the tokens of the rows to {folder}: {error}; free some space, then run again"]
    if dist.is_initialized():
        dist.broadcast_object_list(failed, src=0)
    if failed[0]:
        raise TrainingError(failed[0])
    try:
        return _read(folder, table)
    except OSError as error:
        raise TrainingError(f"{folder} is not there ({error}); all nodes must share the folder of --out") from None


def _read(folder: Path, table: pa.Table) -> RowTokens:
    tokens, ends_N2 = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("tokens", "ends"))
    return RowTokens(table["id"], tokens, ends_N2)


def _write(folder: Path, rows: RowTokens) -> None:
    unfinished = folder.with_name(f".{folder.name}")
    for path in (folder, unfinished):
        shutil.rmtree(path, ignore_errors=True)
    unfinished.mkdir(parents=True)
    np.save(unfinished / "tokens.npy", rows.tokens)
    np.save(unfinished / "ends.npy", rows.ends_N2)
    unfinished.rename(folder)


def _are_of(folder: Path, table: pa.Table, encoder: PromptEncoder) -> bool:
    """Whether the files exist and fit these rows: a tokenizer may have changed since a run was stopped."""
    try:
        found = _read(folder, table)
        if len(found) != table.num_rows or len(found.tokens) != (found.ends_N2[-1, 1] if len(found) else 0):
            return False
    except (OSError, ValueError):
        return False
    places = np.linspace(0, len(found) - 1, min(_COMPARED, len(found))).astype(int)
    again = encode_rows(table.take(places), encoder)
    return all(_same(found[int(place)], row) for place, row in zip(places, again, strict=True))


def _same(one: EncodedRow, other: EncodedRow) -> bool:
    return np.array_equal(one.prompt, other.prompt) and np.array_equal(one.answer, other.answer)

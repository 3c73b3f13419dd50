"""Ids of posts: derived if there are none, and checked for missing and repeated ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emollm.core.errors import DataError
from emollm.data.files.columns import CARRIED
from emollm.data.files.split import SENTENCE

Hashes = NDArray[np.uint64]

_PARTS = 64


def derive_ids(file_name: str, table: pa.Table) -> pa.Array:
    """`posts.txt:17:3f2a9c1b`: file, place in it, and 32 bits of the text's BLAKE2b; of a sentence with `#3` behind.

    The same for the same file in any location; it changes if a line is inserted before it.
    """
    texts = table["text"].to_pylist()
    places = table["place"].to_pylist()
    digests = (hashlib.blake2b((text or "").encode(), digest_size=4).hexdigest() for text in texts)
    numbers = table[CARRIED + SENTENCE].to_pylist() if CARRIED + SENTENCE in table.column_names else None
    ends = [f"#{number}" for number in numbers] if numbers else [""] * table.num_rows
    return pa.array(
        [f"{file_name}:{place}:{digest}{end}" for place, digest, end in zip(places, digests, ends, strict=True)],
        pa.string(),
    )


def refuse_missing(source: str, column: str | None, count: int, places: Sequence[str]) -> None:
    """Raise DataError if posts lack the id that the others have; `places` name some of them."""
    if count:
        raise DataError(
            f"{source}: {count:,} posts have no {column}, such as {', '.join(places[:5])}; fix them, name another "
            "--id-column, or give --id-column '' to derive ids"
        )


def refuse_repeated(source: str, column: str | None, counts: Mapping[str, int]) -> None:
    """Raise DataError if an id occurs more than once."""
    if doubles := [id_ for id_, count in counts.items() if count > 1]:
        raise DataError(
            f"{source}: {len(doubles):,} ids occur more than once in {column!r}, such as {', '.join(doubles[:5])}; "
            "make them unique, or name another --id-column"
        )


def hash_ids(ids: pa.ChunkedArray | pa.Array) -> Hashes:
    """64-bit hashes of the ids. Nulls must have been dropped."""
    from pandas.util import hash_array

    return hash_array(ids.to_numpy(zero_copy_only=False), categorize=False) if len(ids) else np.empty(0, np.uint64)


class IdHashes:
    """The hashes of a corpus: 8 bytes per id, 8 MB per million, and a 64th of that while they are compared."""

    def __init__(self) -> None:
        self._parts: list[list[Hashes]] = [[] for _ in range(_PARTS)]
        self.count = 0

    def add(self, hashes: Hashes) -> None:
        self.count += len(hashes)
        which = (hashes % np.uint64(_PARTS)).astype(np.intp)
        order = np.argsort(which, kind="stable")
        for part, chosen in enumerate(np.split(hashes[order], np.searchsorted(which[order], np.arange(1, _PARTS)))):
            if len(chosen):
                self._parts[part].append(chosen.copy())

    def repeated(self) -> Hashes:
        """Repeated hashes, ascending: equal ids, or, once in 10^4 corpora of 50 million, a collision."""
        return np.sort(np.concatenate([np.empty(0, np.uint64), *self._repeated_by_part()]))

    def _repeated_by_part(self) -> Iterator[Hashes]:
        for part, chunks in enumerate(self._parts):
            if chunks:
                hashes = np.sort(np.concatenate(chunks))
                self._parts[part] = [hashes]
                yield np.unique(hashes[1:][hashes[1:] == hashes[:-1]])

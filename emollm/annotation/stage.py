"""Stages the input once as numbered rows in Parquet; after that any row is found by its number.

Reading the whole input first gives the number of posts and finds missing and repeated ids before any post is scored.
And no later step has to read a compressed file from its start to get to its middle.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emollm.core.errors import DataError
from emollm.data.files.carry import Seen, carried_columns, type_from_text, type_to_text
from emollm.data.files.columns import NOT_TEXT, Columns, Notes
from emollm.data.files.ids import Hashes, IdHashes, derive_ids, hash_ids, refuse_missing, refuse_repeated
from emollm.data.files.inputs import InputFile
from emollm.data.files.readers import read_rows

GROUP_ROWS = 1024
"""Rows per Parquet row group: the smallest unit that is read to get a row."""


@dataclass(frozen=True, slots=True)
class Staged:
    """One staged file: rows `start` to `start + rows` of the corpus."""

    name: str
    start: int
    rows: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """The staged input."""

    files: tuple[Staged, ...]
    carried: dict[str, str]
    """Carried columns and their types, as `carry.type_to_text` writes them."""

    @property
    def posts(self) -> int:
        return self.files[-1].start + self.files[-1].rows if self.files else 0

    def types(self) -> dict[str, pa.DataType]:
        return {name: type_from_text(text) for name, text in self.carried.items()}

    def fields(self) -> list[pa.Field]:
        return [pa.field(name, type_) for name, type_ in self.types().items()]


@dataclass(slots=True)
class GroupFacts:
    """Facts gathered while a group of files was staged."""

    files: list[int] = field(default_factory=list)
    """Rows of each staged file."""
    texts: int = 0
    """Rows whose text is a string."""
    hashes: list[Hashes] = field(default_factory=list)
    """Hashes of the input's ids; derived ids cannot be equal."""
    without_id: list[str] = field(default_factory=list)
    """Places of the first few rows without an id."""
    num_without_id: int = 0
    seen: Seen = field(default_factory=Seen)
    notes: Notes = field(default_factory=Notes)

    @property
    def rows(self) -> int:
        return sum(self.files)


def stage_group(
    source: Any,
    files: Sequence[InputFile],
    columns: Columns,
    target: Any,
    folder: str,
    number: int,
    max_rows: int | None,
) -> GroupFacts:
    """Write the rows of these files, the `number`th group, to `folder`, at most `max_rows`.

    A staged file has one schema: a new one is started if a carried column has another type than in the file before.
    Raises DataError naming the file that is broken.
    """
    facts = GroupFacts()
    staged: _StagedFile | None = None
    try:
        for file, table in _tables(source, files, columns, max_rows, facts.notes):
            table = _staged_columns(table, file, columns, facts)
            if staged is None or not staged.schema.equals(table.schema):
                if staged:
                    staged.close()
                staged = _StagedFile(target, f"{folder}/{staged_name(number, len(facts.files))}", table.schema)
                facts.files.append(0)
            staged.add(table)
            facts.files[-1] += table.num_rows
    finally:
        if staged:
            staged.close()
    return facts


def _tables(
    source: Any, files: Sequence[InputFile], columns: Columns, max_rows: int | None, notes: Notes
) -> Iterator[tuple[InputFile, pa.Table]]:
    left = max_rows
    for file in files:
        for table in read_rows(source, file, columns, notes):
            table = table.slice(0, left)
            left = left if left is None else left - table.num_rows
            if table.num_rows:
                yield file, table
            if left == 0:
                return


class _StagedFile:
    """Buffers rows of one schema and writes them to a file in whole row groups."""

    def __init__(self, target: Any, path: str, schema: pa.Schema) -> None:
        self.schema = schema
        self._stream = target.open_output_stream(path)
        self._writer = pq.ParquetWriter(self._stream, schema, compression="zstd")
        self._rest = schema.empty_table()

    def add(self, table: pa.Table) -> None:
        whole = pa.concat_tables([self._rest, table])
        ready = whole.num_rows - whole.num_rows % GROUP_ROWS
        if ready:
            self._writer.write_table(whole.slice(0, ready), row_group_size=GROUP_ROWS)
        self._rest = whole.slice(ready)

    def close(self) -> None:
        if self._rest.num_rows:
            self._writer.write_table(self._rest)
            self._rest = self.schema.empty_table()
        self._writer.close()
        self._stream.close()


def _staged_columns(table: pa.Table, file: InputFile, columns: Columns, facts: GroupFacts) -> pa.Table:
    if columns.id is None or file.format == "txt":
        table = table.set_column(1, "id", derive_ids(file.name, table))
    else:
        missing = table["id"].is_null().to_pylist() if table["id"].null_count else []
        if missing:
            places = [place for place, gone in zip(table["place"].to_pylist(), missing, strict=True) if gone]
            facts.num_without_id += len(places)
            facts.without_id = [*facts.without_id, *(f"{file.name}:{place}" for place in places)][:5]
        facts.hashes.append(hash_ids(table["id"].drop_null()))
    facts.texts += pc.sum(pc.and_(pc.is_valid(table["text"]), pc.invert(_is_not_text(table)))).as_py() or 0
    facts.seen.look(table, file.path, columns.carry)
    return table.drop_columns(["place"])


def _is_not_text(table: pa.Table) -> Any:
    return pc.fill_null(pc.starts_with(table["problem"], NOT_TEXT), False)


def read_staged(filesystem: Any, folder: str, corpus: Corpus, first: int, stop: int) -> pa.Table:
    """`id`, `text` and the carried columns of rows `first` to `stop`, in their order."""
    types = corpus.types()
    schema = pa.schema([pa.field("id", pa.string()), pa.field("text", pa.string()), *corpus.fields()])
    tables = [schema.empty_table()]
    for file in corpus.files:
        low, high = max(first - file.start, 0), min(stop - file.start, file.rows)
        if low >= high:
            continue
        with filesystem.open_input_file(posixpath.join(folder, file.name)) as opened:
            parquet = pq.ParquetFile(opened)
            size = parquet.metadata.row_group(0).num_rows
            table = parquet.read_row_groups(range(low // size, (high - 1) // size + 1))
        table = table.slice(low - low // size * size, high - low)
        tables.append(pa.table([table["id"], table["text"], *carried_columns(table, types)], schema=schema))
    return pa.concat_tables(tables)


def stage_corpus(
    groups: Sequence[Sequence[InputFile]],
    columns: Columns,
    stage: Callable[[Sequence[tuple[int, Sequence[InputFile]]], Callable[[int, GroupFacts], None]], None],
    read_ids: Callable[[str], Any],
    *,
    max_posts: int | None,
    source: str,
    notes: Notes,
) -> Corpus:
    """Have `stage` write every group, and check the facts it gathered.

    `stage` gets (number, files) of all groups and calls back with (number, facts) in any order; `read_ids` opens a
    staged file's ids. `source` names the input in errors; `notes` gets messages for the user. Raises DataError if
    there are no posts, if the text column holds no text, or if ids are missing or occur twice.
    """
    rows: list[list[int]] = [[] for _ in groups]
    texts, ids = 0, IdHashes()
    without: list[str] = []
    num_without = 0
    seen = Seen()

    def take(number: int, facts: GroupFacts) -> None:
        nonlocal texts, num_without
        rows[number] = facts.files
        texts += facts.texts
        num_without += facts.num_without_id
        without.extend(facts.without_id[: 5 - len(without)])
        for hashes in facts.hashes:
            ids.add(hashes)
        seen.add(facts.seen)
        notes.add(facts.notes)

    stage(list(enumerate(groups)), take)
    if not any(rows):
        raise DataError(f"{source} holds no posts")
    if not texts:
        raise DataError(f"{source}: no row has text in column {columns.text!r}; give --text-column")
    refuse_missing(source, columns.id, num_without, without)
    types = seen.common_types(columns.carry, source=source)
    files = {staged_name(number, part): n for number, parts in enumerate(rows) for part, n in enumerate(parts)}
    _refuse_repeated(ids.repeated(), list(files), read_ids, source=source, column=columns.id)
    carried = {name: type_to_text(type_) for name, type_ in types.items()}
    return Corpus(files=tuple(_numbered(files, max_posts)), carried=carried)


def staged_name(group: int, part: int) -> str:
    return f"posts-{group:06}-{part:03}.parquet"


def _numbered(rows: dict[str, int], max_posts: int | None) -> list[Staged]:
    files, start = [], 0
    for name, count in rows.items():
        kept = count if max_posts is None else min(count, max_posts - start)
        if kept:
            files.append(Staged(name, start, kept))
        start += kept
    return files


def _refuse_repeated(
    repeated: Hashes, names: Sequence[str], read_ids: Callable[[str], Any], *, source: str, column: str | None
) -> None:
    if not len(repeated):
        return
    counts: Counter[str] = Counter()
    for name in names:
        for batch in read_ids(name):
            hashes = hash_ids(batch)
            counts.update(batch.filter(pa.array(np.isin(hashes, repeated))).to_pylist())
    refuse_repeated(source, column, counts)

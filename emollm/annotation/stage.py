"""The input as numbered rows in Parquet, made once: after it, any row is found by its number.

Reading everything before anything is scored tells how many posts there are, and which ids are missing or occur twice,
while it is cheap to say so. And no later step has to read a compressed file from its start to get to its middle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emollm.annotation.carry import common_type, json_kinds, type_from_text, type_to_text
from emollm.annotation.ids import Hashes, IdHashes, derive_ids, hash_ids
from emollm.annotation.inputs import InputFile
from emollm.annotation.readers import Columns, read_rows
from emollm.errors import DataError

GROUP_ROWS = 1024
"""Rows of a Parquet row group: the least that is read to get at a row."""
_JSON = ("json", "jsonl")


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
    json_carried: tuple[str, ...]
    """Those that stand as JSON text in the staged files."""

    @property
    def posts(self) -> int:
        return self.files[-1].start + self.files[-1].rows if self.files else 0

    def fields(self) -> list[pa.Field]:
        return [pa.field(name, type_from_text(text)) for name, text in self.carried.items()]


@dataclass(slots=True)
class GroupFacts:
    """What was seen while a group of files was staged."""

    rows: int = 0
    texts: int = 0
    """Rows whose text is text."""
    hashes: list[Hashes] = field(default_factory=list)
    """Of ids that the input gave; derived ones cannot be equal."""
    without_id: list[str] = field(default_factory=list)
    """Places of the first few rows without an id."""
    num_without_id: int = 0
    kinds: dict[str, set[str]] = field(default_factory=dict)
    types: dict[str, list[str]] = field(default_factory=dict)


def stage_group(
    source: Any, files: Sequence[InputFile], columns: Columns, target: Any, path: str, max_rows: int | None
) -> GroupFacts:
    """Write the rows of these files to `path`, at most `max_rows`. Raises DataError naming the file that is broken."""
    facts = GroupFacts(kinds={name: set() for name in columns.carry}, types={name: [] for name in columns.carry})
    writer: pq.ParquetWriter | None = None
    pending: list[pa.Table] = []
    with target.open_output_stream(path) as stream:
        for file in files:
            for table in read_rows(source, file, columns):
                table = table.slice(0, None if max_rows is None else max_rows - facts.rows)
                facts.rows += table.num_rows
                pending.append(_staged_columns(table, file, columns, facts))
                try:
                    whole = pa.concat_tables(pending, promote_options="permissive")
                    ready = whole.num_rows - whole.num_rows % GROUP_ROWS
                    if ready:
                        writer = writer or pq.ParquetWriter(stream, whole.schema, compression="zstd")
                        writer.write_table(whole.slice(0, ready).cast(writer.schema), row_group_size=GROUP_ROWS)
                except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
                    raise DataError(
                        f"{file.path}: a column to carry has another type than in the files before; leave it out, or "
                        "make the files alike"
                    ) from None
                pending = [whole.slice(ready)]
                if facts.rows == max_rows:
                    break
            if facts.rows == max_rows:
                break
        if pending:
            writer = writer or pq.ParquetWriter(stream, pending[0].schema, compression="zstd")
            writer.write_table(pending[0].cast(writer.schema), row_group_size=GROUP_ROWS)
        if writer:
            writer.close()
    return facts


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
    facts.texts += sum(
        text is not None and not (problem or "").startswith("not_text")
        for text, problem in zip(table["text"].to_pylist(), table["problem"].to_pylist(), strict=True)
    )
    for name in columns.carry:
        if file.format in _JSON:
            facts.kinds[name] |= json_kinds(table[name].to_pylist())
        elif (type_ := type_to_text(table[name].type)) not in facts.types[name]:
            facts.types[name].append(type_)
    return table.drop_columns(["place"])


def stage_corpus(
    groups: Sequence[Sequence[InputFile]],
    columns: Columns,
    stage: Callable[[Sequence[tuple[int, Sequence[InputFile]]], Callable[[int, GroupFacts], None]], None],
    read_ids: Callable[[str], Any],
    *,
    max_posts: int | None,
    source: str,
) -> Corpus:
    """Have `stage` write every group, and judge what was seen.

    `stage` gets (number, files) of all groups and calls back with (number, facts) in any order; `read_ids` opens a
    staged file's ids. `source` names the input in errors. Raises DataError if there are no posts, if the text column
    holds no text, or if ids are missing or occur twice.
    """
    rows, texts, ids = [0] * len(groups), 0, IdHashes()
    without: list[str] = []
    num_without = 0
    kinds: dict[str, set[str]] = {name: set() for name in columns.carry}
    types: dict[str, list[pa.DataType]] = {name: [] for name in columns.carry}

    def take(number: int, facts: GroupFacts) -> None:
        nonlocal texts, num_without
        rows[number] = facts.rows
        texts += facts.texts
        num_without += facts.num_without_id
        without.extend(facts.without_id[: 5 - len(without)])
        for hashes in facts.hashes:
            ids.add(hashes)
        for name in columns.carry:
            kinds[name] |= facts.kinds[name]
            types[name] += [type_from_text(text) for text in facts.types[name]]

    stage(list(enumerate(groups)), take)
    if not sum(rows):
        raise DataError(f"{source} holds no posts")
    if not texts:
        raise DataError(f"{source}: no row has text in column {columns.text!r}; give --text-column")
    if num_without:
        raise DataError(
            f"{source}: {num_without:,} posts have no {columns.id}, such as {', '.join(without)}; mend them, or name "
            "another --id-column"
        )
    for name in columns.carry:
        if not kinds[name] and all(pa.types.is_null(t) for t in types[name]):
            raise DataError(f"{source}: no row has anything in column {name!r}, which is to be carried")
    names = [staged_name(number) for number in range(len(groups))]
    _refuse_repeated(ids.repeated(), names, read_ids, source=source, column=columns.id)
    json_carried = tuple(name for name in columns.carry if kinds[name])
    if any(types[name] for name in json_carried):
        raise DataError(f"{source} mixes JSON lines with other files; columns cannot be carried out of both")
    return Corpus(
        files=tuple(_numbered(names, rows, max_posts)),
        carried={name: type_to_text(common_type(name, types[name], frozenset(kinds[name]))) for name in columns.carry},
        json_carried=json_carried,
    )


def staged_name(number: int) -> str:
    return f"posts-{number:06}.parquet"


def _numbered(names: Sequence[str], rows: Sequence[int], max_posts: int | None) -> list[Staged]:
    files, start = [], 0
    for name, count in zip(names, rows, strict=True):
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
    doubles = [id_ for id_, count in counts.items() if count > 1]
    if doubles:
        raise DataError(
            f"{source}: {len(doubles):,} ids occur more than once in {column!r}, such as {', '.join(doubles[:5])}; "
            "make them differ, or name another --id-column"
        )

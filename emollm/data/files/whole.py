"""Reads a whole input into memory for `emollm.annotate(Path(...))`, with the rows of an annotation job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from emollm.core.errors import DataError
from emollm.data.files.carry import Seen, carried_columns
from emollm.data.files.columns import NOT_TEXT, Columns, Notes, Reading
from emollm.data.files.delimited import no_column, refuse_twice
from emollm.data.files.ids import derive_ids
from emollm.data.files.inputs import find_files
from emollm.data.files.readers import first_with_columns, read_rows


@dataclass(frozen=True, slots=True)
class Posts:
    """All rows of an input."""

    table: pa.Table
    """All columns of the files, including the text; for plain text `id` and `text`."""
    problems: list[str | None]
    """Why a row cannot be scored; None if it can."""


def read_posts(location: str, text_column: str, reading: Reading, notes: Notes) -> Posts:
    """The posts of a file, folder or pattern. Raises DataError if there are none, or if no row has text."""
    filesystem, files = find_files(location, reading, notes)
    first, names = first_with_columns(filesystem, files, reading, text_column)
    if names and text_column not in names:
        raise no_column(first.path, text_column, names)
    refuse_twice(first.path, names)
    plain = all(file.format == "txt" for file in files)
    carry = tuple(name for name in names if name != text_column)
    columns, seen, tables = Columns(id=None, text=text_column, carry=carry, reading=reading), Seen(), []
    for file in files:
        for table in read_rows(filesystem, file, columns, notes):
            seen.look(table, file.path, carry)
            tables.append(table.set_column(1, "id", derive_ids(file.name, table)) if plain else table)
    if not tables:
        raise DataError(f"{location} holds no posts")
    types = seen.common_types(carry, source=location)
    problems = [problem for table in tables for problem in table["problem"].to_pylist()]
    texts = pa.chunked_array([chunk for table in tables for chunk in table["text"].chunks], pa.string())
    if all(text is None or (why or "").startswith(NOT_TEXT) for text, why in zip(texts, problems, strict=True)):
        raise DataError(f"{location}: no row has text in column {text_column!r}; give --text-column")
    if plain:
        return Posts(pa.table({"id": pa.concat_tables(tables)["id"], "text": texts}), problems)
    parts = [pa.table(carried_columns(table, types), names=list(types)) for table in tables] if carry else []
    carried: dict[str, Any] = {name: pa.concat_tables(parts)[name] for name in carry}
    return Posts(pa.table({name: carried.get(name, texts) for name in names}), problems)

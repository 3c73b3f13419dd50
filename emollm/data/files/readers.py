"""Reads a file of posts in batches of rows (see columns.py); no content of a row stops the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emollm.core.errors import DataError
from emollm.data.files.columns import (
    BATCH_ROWS,
    CARRIED,
    INVALID_UTF8,
    MALFORMED_ROW,
    Columns,
    Notes,
    Reading,
)
from emollm.data.files.delimited import Record, Table, no_column, read_delimited, refuse_twice
from emollm.data.files.formats import begins_as_named, compression_of
from emollm.data.files.inputs import InputFile
from emollm.data.files.lines import from_rows, json_items, json_rows, text_rows
from emollm.data.files.split import MADE, by_sentence
from emollm.data.files.streams import MARK, Text, open_text, unmarked

_PEEK_ROWS = 100
_NUMBER = r"^[\s.,:+/%()-]*\d[\d\s.,:+/%()-]*$"
"""Also a date or a time."""
_EXACT = 2**53
"""From this size on, floats cannot represent all integers."""


def column_names(filesystem: Any, file: InputFile, reading: Reading, text_column: str = "text") -> list[str]:
    """The columns of a file; for JSON, those of the first hundred rows; none if it is plain text or empty.

    Raises DataError if it cannot be read.
    """
    notes = Notes()
    with _readable(file):
        if _holds_nothing(filesystem, file, notes):
            return []
        if file.format == "parquet":
            with filesystem.open_input_file(file.path) as source:
                return list(pq.read_schema(source).names)
        if file.format == "txt":
            return []
        with open_text(filesystem, file, reading, notes) as text:
            if file.format == "csv":
                return [name for name in _table(text, file, reading, text_column, notes).names if name]
            names: dict[str, None] = {}
            for place, item, _, _ in islice(json_items(text, file, text_column, notes), _PEEK_ROWS):
                if not isinstance(item, dict) and not names:
                    raise DataError(
                        f"{file.path} cannot be read: line {place} is not a JSON object; there must be one object "
                        "per line, or one array of objects"
                    )
                names.update(dict.fromkeys(item if isinstance(item, dict) else ()))
            return list(names)


def first_with_columns(
    filesystem: Any, files: Sequence[InputFile], reading: Reading, text_column: str
) -> tuple[InputFile, list[str]]:
    """The first file that has columns, and its columns; empty parts and plain text have none."""
    for file in files:
        if names := column_names(filesystem, file, reading, text_column):
            return file, names
    return files[0], []


def read_rows(filesystem: Any, file: InputFile, columns: Columns, notes: Notes | None = None) -> Iterator[pa.Table]:
    """The rows of a file in order; `notes` gets messages for the user. Raises DataError for a broken file."""
    notes = Notes() if notes is None else notes
    if not columns.by_sentence:
        yield from _whole_rows(filesystem, file, columns, notes)
        return
    in_file = replace(columns, carry=tuple(name for name in columns.carry if name not in MADE))
    yield from map(by_sentence, _whole_rows(filesystem, file, in_file, notes))


def _whole_rows(filesystem: Any, file: InputFile, columns: Columns, notes: Notes) -> Iterator[pa.Table]:
    texts = numbers = 0
    for table in _any_rows(filesystem, file, columns, notes):
        texts += _count(table["text"], r"\S")
        numbers += _count(table["text"], _NUMBER)
        yield table
    if texts and numbers == texts:
        what = "it has" if file.format == "txt" else f"the column {columns.text!r} has"
        notes.say(file.name, f"{what} numbers and no words; is this the text? --text-column names another")


def _count(texts: Any, pattern: str) -> int:
    return pc.sum(pc.match_substring_regex(texts, pattern)).as_py() or 0


def _any_rows(filesystem: Any, file: InputFile, columns: Columns, notes: Notes) -> Iterator[pa.Table]:
    with _readable(file):
        if _holds_nothing(filesystem, file, notes):
            return
        if file.format == "parquet":
            yield from _parquet_rows(filesystem, file, columns)
            return
        with open_text(filesystem, file, columns.reading, notes) as text:
            match file.format:
                case "csv":
                    tables = _csv_rows(text, file, columns, notes)
                case "txt":
                    tables = text_rows(text)
                case _:
                    tables = json_rows(text, file, columns, notes)
            undecodable = 0
            for table in tables:
                undecodable += pc.sum(pc.equal(table["problem"], text.problem)).as_py() or 0
                yield table
            if undecodable and columns.reading.encoding is None:
                notes.say(file.name, f"has rows that are not {text.encoding.upper()}; --encoding windows-1252 may help")


def count_rows(filesystem: Any, file: InputFile, columns: Columns) -> int:
    """The number of rows that `read_rows` gives. Raises DataError if the file is broken."""
    if file.format == "parquet" and file.size and not columns.by_sentence:
        with _readable(file), filesystem.open_input_file(file.path) as source:
            return int(pq.read_metadata(source).num_rows)
    return sum(table.num_rows for table in read_rows(filesystem, file, columns))


def _holds_nothing(filesystem: Any, file: InputFile, notes: Notes) -> bool:
    """Whether a file is empty, or was found in a folder and is not compressed as its name says."""
    if not file.size or not file.listed or not compression_of(file.path):
        return not file.size
    with filesystem.open_input_stream(file.path, compression=None) as stream:
        if begins_as_named(file.path, stream.read(4)):
            return False
    notes.say(file.name, f"left out: it is not compressed with {compression_of(file.path)}, as its name says")
    return True


class _readable:  # noqa: N801 (used as a with statement's words)
    """Turns errors of Arrow and the system about a broken file into a DataError that names the file."""

    def __init__(self, file: InputFile) -> None:
        self._file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, _cls: Any, error: BaseException | None, _traceback: Any) -> None:
        if isinstance(error, pa.ArrowException | OSError | UnicodeError):
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{self._file.path} cannot be read: {first[:200]}") from None


def _table(text: Text, file: InputFile, reading: Reading, wanted: str, notes: Notes) -> Table:
    table = read_delimited(text.stream, file.path, reading, wanted=wanted, tab=".tsv" in file.path.lower()[-9:])
    if table.delimiter:
        notes.say(file.name, f"read with a {table.delimiter} as delimiter; --delimiter sets another")
    return table


def _csv_rows(text: Text, file: InputFile, columns: Columns, notes: Notes) -> Iterator[pa.Table]:
    names, rows, _ = _table(text, file, columns.reading, columns.text, notes)
    if not names:
        return
    for option, name in (("--id-column", columns.id), ("--text-column", columns.text)):
        if name and name not in names:
            raise no_column(file.path, name, names, option)
    places = {name: names.index(name) for name in columns.named if name in names}
    while batch := list(islice(rows, BATCH_ROWS)):
        yield _from_records(batch, file, columns, places, len(names), text.problem)


def _from_records(
    batch: Sequence[Record], file: InputFile, columns: Columns, places: dict[str, int], count: int, undecodable: str
) -> pa.Table:
    all_cells: list[list[Any]] = []
    problems: list[str | None] = []
    for line, cells, problem in batch:
        row: list[Any] = cells
        if problem:
            row = [None] * count
            row[places[columns.text]] = cells[0]
            if columns.id:
                row[places[columns.id]] = f"{file.name}:{line}"
            problem = f"{MALFORMED_ROW}: {problem}"
        if any(not cell.isascii() and MARK in cell for cell in cells):
            row = [cell if cell is None else unmarked(cell) for cell in row]
            problem = problem or undecodable
        all_cells.append(row)
        problems.append(problem)
    text = places[columns.text]
    ids: list[str | None] = [None] * len(batch)
    if columns.id:
        at = places[columns.id]
        ids = [cells[at] if cells[at].strip() else None for cells in all_cells]
    rows = [
        (record.line, id_, cells[text], problem)
        for record, id_, cells, problem in zip(batch, ids, all_cells, problems, strict=True)
    ]
    carried = {
        CARRIED + name: pa.array([cells[places[name]] for cells in all_cells], pa.string())
        for name in columns.carry
        if name in places
    }
    return from_rows(rows, carried)


def _parquet_rows(filesystem: Any, file: InputFile, columns: Columns) -> Iterator[pa.Table]:
    with filesystem.open_input_file(file.path) as source:
        parquet = pq.ParquetFile(source)
        schema = parquet.schema_arrow
        refuse_twice(file.path, schema.names)
        for option, name in (("--id-column", columns.id), ("--text-column", columns.text)):
            if name and name not in schema.names:
                raise no_column(file.path, name, schema.names, option)
        type_ = schema.field(columns.text).type
        if not _is_text(type_):
            raise DataError(f"{file.path}: column {columns.text!r} is {type_}, not text; give another --text-column")
        wanted = [name for name in columns.named if name in schema.names]
        place = 1
        # A row group at a time: pyarrow keeps what it read of a file's earlier ones until it is through.
        groups = (
            parquet.iter_batches(BATCH_ROWS, row_groups=[i], columns=wanted) for i in range(parquet.num_row_groups)
        )
        for batch in chain.from_iterable(groups):
            text, bad = _to_text(batch[columns.text])
            problem = [INVALID_UTF8 if wrong else None for wrong in bad] if bad else pa.nulls(len(text), pa.string())
            ids = pa.nulls(len(text), pa.string())
            if columns.id:
                ids = _ids(batch[columns.id], f"{file.path}: column {columns.id!r}")
            yield pa.table(
                {
                    "place": pa.array(range(place, place + len(text)), pa.int64()),
                    "id": ids,
                    "text": text,
                    "problem": pa.array(problem, pa.string()),
                    **{CARRIED + name: batch[name] for name in columns.carry if name in wanted},
                }
            )
            place += len(batch)


def _ids(array: Any, where: str) -> Any:
    """Ids as text, empty ones as null. Raises DataError, beginning with `where`, for a type that cannot be an id."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_nested(array.type):
        raise DataError(f"{where} is {array.type}, which cannot be an id; give another --id-column")
    if pa.types.is_floating(array.type) and (pc.max(pc.abs(array)).as_py() or 0) >= _EXACT:
        raise DataError(f"{where} is {array.type}, which has lost digits of its ids; save them as integers or text")
    if _is_text(array.type) or pa.types.is_fixed_size_binary(array.type):
        ids, bad = _to_text(array)
        if any(bad):
            raise DataError(f"{where} is {array.type} and holds bytes that are not UTF-8; give another --id-column")
    else:
        ids = array.cast(pa.string())
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(ids), ""), pa.scalar(None, pa.string()), ids)


def _is_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return any(
        test(type_)
        for test in (
            pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
            pa.types.is_binary, pa.types.is_large_binary, pa.types.is_null,
        )
    )  # fmt: skip


def _to_text(array: Any) -> tuple[Any, list[bool]]:
    """Texts as valid UTF-8, and which rows were invalid; an empty list if none was."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.string()), []
    raw = array.cast(pa.binary()) if pa.types.is_fixed_size_binary(array.type) else array
    raw = raw.cast(pa.large_binary())
    try:
        return raw.cast(pa.large_string()).cast(pa.string()), []
    except pa.ArrowInvalid:
        rows = [None if value is None else _decoded(value) for value in raw.to_pylist()]
        return pa.array([row and row[0] for row in rows], pa.string()), [bool(row and row[1]) for row in rows]


def _decoded(raw: bytes) -> tuple[str, bool]:
    """The text with U+FFFD for each byte that is not UTF-8, and whether there was one."""
    try:
        return raw.decode("utf-8"), False
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace"), True

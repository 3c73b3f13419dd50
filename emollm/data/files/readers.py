"""One file of posts to rows, a batch at a time: nothing a row holds stops the file.

columns.py says what a batch holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from emollm.core.errors import DataError
from emollm.data.files.columns import BATCH_ROWS, INVALID_UTF8, Columns, decoded
from emollm.data.files.inputs import InputFile
from emollm.data.files.lines import json_rows, lines_of, parse, text_rows

# A record longer than a block stops pyarrow's reader.
_CSV_BLOCK_BYTES = 16 << 20
_PEEK_ROWS = 100


def column_names(filesystem: Any, file: InputFile) -> list[str]:
    """The columns of a file; of JSON lines, those of its first hundred rows. Raises DataError if it cannot be read."""
    with _readable(file):
        match file.format:
            case "parquet":
                with filesystem.open_input_file(file.path) as source:
                    return list(pq.read_schema(source).names)
            case "csv":
                with filesystem.open_input_stream(file.path) as stream:
                    return list(_open_csv(stream, {}).schema.names)
            case "txt":
                return []
            case _:
                names: dict[str, None] = {}
                for line, raw in lines_of(filesystem, file):
                    row, _ = parse(raw)
                    if row is None and not names:
                        raise DataError(f"{file.path} cannot be read: line {line} is not a JSON object")
                    names.update(dict.fromkeys(row or ()))
                    if line >= _PEEK_ROWS:
                        break
                return list(names)


def first_with_columns(files: Sequence[InputFile]) -> InputFile:
    """The file whose columns are those of all: the first, or, after plain text, the first that has any."""
    return next((file for file in files if file.format != "txt"), files[0])


def read_rows(filesystem: Any, file: InputFile, columns: Columns) -> Iterator[pa.Table]:
    """The rows of a file in order. Raises DataError where the file itself is broken."""
    with _readable(file):
        match file.format:
            case "parquet":
                yield from _parquet_rows(filesystem, file, columns)
            case "csv":
                yield from _csv_rows(filesystem, file, columns)
            case "txt":
                yield from text_rows(filesystem, file, columns)
            case _:
                yield from json_rows(filesystem, file, columns)


def count_rows(filesystem: Any, file: InputFile, columns: Columns) -> int:
    """How many rows `read_rows` gives. Raises DataError where the file is broken."""
    with _readable(file):
        match file.format:
            case "parquet":
                with filesystem.open_input_file(file.path) as source:
                    return int(pq.read_metadata(source).num_rows)
            case "csv":
                return sum(table.num_rows for table in _csv_rows(filesystem, file, columns))
            case _:
                return sum(1 for _ in lines_of(filesystem, file))


class _readable:  # noqa: N801 (used as a with statement's words)
    """What Arrow and the system raise of a broken file, as a DataError that names it."""

    def __init__(self, file: InputFile) -> None:
        self._file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, _cls: Any, error: BaseException | None, _traceback: Any) -> None:
        if isinstance(error, pa.ArrowException | OSError):
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{self._file.path} cannot be read: {first[:200]}") from None


def _parquet_rows(filesystem: Any, file: InputFile, columns: Columns) -> Iterator[pa.Table]:
    with filesystem.open_input_file(file.path) as source:
        parquet = pq.ParquetFile(source)
        schema = parquet.schema_arrow
        missing = [name for name in columns.named if name not in schema.names and name not in columns.carry]
        if missing:
            raise DataError(f"{file.path} has no column {missing[0]!r}; it has {', '.join(schema.names)}")
        type_ = schema.field(columns.text).type
        if not _is_text(type_):
            raise DataError(f"{file.path}: column {columns.text!r} is {type_}, not text")
        wanted = [name for name in columns.named if name in schema.names]
        place = 1
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
            carried = {name: batch[name] if name in wanted else pa.nulls(len(batch)) for name in columns.carry}
            yield _decoded(place, batch[columns.id] if columns.id else None, batch[columns.text], carried)
            place += len(batch)


def _csv_rows(filesystem: Any, file: InputFile, columns: Columns) -> Iterator[pa.Table]:
    with filesystem.open_input_stream(file.path) as stream:
        # Bytes, so that a row that is not UTF-8 does not stop the file; and no column's type is guessed.
        reader = _open_csv(stream, dict.fromkeys(columns.named, pa.binary()))
        names = reader.schema.names
        missing = [name for name in columns.named if name not in names and name not in columns.carry]
        if missing:
            raise DataError(f"{file.path} has no column {missing[0]!r}; it has {', '.join(names)}")
        place = 1
        for batch in reader:
            carried = {
                name: _to_text(batch[name])[0] if name in names else pa.nulls(len(batch)) for name in columns.carry
            }
            yield _decoded(place, batch[columns.id] if columns.id else None, batch[columns.text], carried)
            place += len(batch)


def _open_csv(stream: Any, types: dict[str, pa.DataType]) -> Any:
    return pyarrow.csv.open_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types, check_utf8=False),
    )


def _decoded(place: int, ids: Any, texts: Any, carried: dict[str, Any]) -> pa.Table:
    """A batch of columns as they came: ids to text, texts to UTF-8."""
    text, bad = _to_text(texts)
    problem = [INVALID_UTF8 if wrong else None for wrong in bad] if bad else pa.nulls(len(text), pa.string())
    if ids is None:
        id_ = pa.nulls(len(text), pa.string())
    elif _is_text(ids.type):
        id_, _ = _to_text(ids)
    else:
        id_ = ids.cast(pa.string())
    places = pa.array(range(place, place + len(text)), pa.int64())
    return pa.table({"place": places, "id": id_, "text": text, "problem": pa.array(problem, pa.string()), **carried})


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
    """As valid UTF-8, and which rows were not; an empty list where all were."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.string()), []
    raw = array.cast(pa.large_binary())
    try:
        return raw.cast(pa.large_string()).cast(pa.string()), []
    except pa.ArrowInvalid:
        rows = [decoded(value) if value is not None else (None, False) for value in raw.to_pylist()]
        return pa.array([text for text, _ in rows], pa.string()), [wrong for _, wrong in rows]

"""One file of posts to rows, a batch at a time: nothing a row holds stops the file.

A batch is a table of

    place    int64   line of a text file, row of any other, counted from 1
    id       string  null where the row has none
    text     string
    problem  string  why the row cannot be scored; null where it can
    carried columns  of JSON lines as JSON text, of CSV as text, of Parquet as they are
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from emollm.annotation.inputs import InputFile
from emollm.errors import DataError

INVALID_UTF8 = "invalid_utf8"
NOT_TEXT = "not_text"
MALFORMED_ROW = "malformed_row"

_Row = tuple[int, str | None, str | None, str | None]
"""Place, id, text, problem."""
_BATCH_ROWS = 8192
_CHUNK_BYTES = 4 << 20
# A record longer than a block stops pyarrow's reader.
_CSV_BLOCK_BYTES = 16 << 20
_PEEK_ROWS = 100


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that are wanted of a file; see `AnnotateConfig`."""

    id: str | None
    """None: the rows have no id of their own."""
    text: str
    carry: tuple[str, ...] = ()

    @property
    def named(self) -> list[str]:
        return list(dict.fromkeys([*([self.id] if self.id else []), self.text, *self.carry]))


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
                for line, raw in _lines(filesystem, file):
                    row, _ = _parse(raw)
                    if row is None and not names:
                        raise DataError(f"{file.path} cannot be read: line {line} is not a JSON object")
                    names.update(dict.fromkeys(row or ()))
                    if line >= _PEEK_ROWS:
                        break
                return list(names)


def read_rows(filesystem: Any, file: InputFile, columns: Columns) -> Iterator[pa.Table]:
    """The rows of a file in order. Raises DataError where the file itself is broken."""
    with _readable(file):
        match file.format:
            case "parquet":
                yield from _parquet_rows(filesystem, file, columns)
            case "csv":
                yield from _csv_rows(filesystem, file, columns)
            case "txt":
                yield from _text_rows(filesystem, file)
            case _:
                yield from _json_rows(filesystem, file, columns)


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
                return sum(1 for _ in _lines(filesystem, file))


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
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
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
                name: _to_text(batch[name])[0] if name in names else pa.nulls(len(batch), pa.string())
                for name in columns.carry
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
        rows = [_decode(value) if value is not None else (None, False) for value in raw.to_pylist()]
        return pa.array([text for text, _ in rows], pa.string()), [wrong for _, wrong in rows]


def _decode(raw: bytes) -> tuple[str, bool]:
    """The text, each byte that is not UTF-8 as U+FFFD, and whether there was one."""
    try:
        return raw.decode("utf-8"), False
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace"), True


def _lines(filesystem: Any, file: InputFile) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers; cut at line feeds alone, as other characters stand in posts."""
    number, rest = 0, b""
    with filesystem.open_input_stream(file.path) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                number += 1
                if line.strip():
                    yield number, line.removesuffix(b"\r")
    if rest.strip():
        yield number + 1, rest.removesuffix(b"\r")


def _text_rows(filesystem: Any, file: InputFile) -> Iterator[pa.Table]:
    for batch in _batches(_lines(filesystem, file)):
        texts = [_decode(raw) for _, raw in batch]
        yield _from_rows(
            [
                (line, None, text, INVALID_UTF8 if bad else None)
                for (line, _), (text, bad) in zip(batch, texts, strict=True)
            ],
            {},
        )


def _json_rows(filesystem: Any, file: InputFile, columns: Columns) -> Iterator[pa.Table]:
    for batch in _batches(_lines(filesystem, file)):
        rows: list[_Row] = []
        carried: dict[str, list[str | None]] = {name: [] for name in columns.carry}
        for line, raw in batch:
            row, undecodable = _parse(raw)
            if row is None:
                rows.append((line, f"{file.name}:{line}", _decode(raw)[0], f"{MALFORMED_ROW}: not a JSON object"))
            else:
                text, problem = _text_of(row.get(columns.text), undecodable=undecodable)
                rows.append((line, _id_of(row.get(columns.id)) if columns.id else None, text, problem))
            for name, values in carried.items():
                value = (row or {}).get(name)
                values.append(None if value is None else json.dumps(value, ensure_ascii=True))
        yield _from_rows(rows, carried)


def _parse(raw: bytes) -> tuple[dict[str, Any] | None, bool]:
    """The object on a line, None if there is none; and whether the line held bytes that are not UTF-8."""
    text, undecodable = _decode(raw)
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None, undecodable
    return (row if isinstance(row, dict) else None), undecodable


def _text_of(value: Any, *, undecodable: bool) -> tuple[str | None, str | None]:
    match value:
        case None:
            return None, None
        case str():
            bad = undecodable and "\ufffd" in value
            return _encodable(value), INVALID_UTF8 if bad else None
        case _:
            return json.dumps(value), f"{NOT_TEXT}: {type(value).__name__}"


def _id_of(value: Any) -> str | None:
    return value if value is None else _encodable(value) if isinstance(value, str) else json.dumps(value)


def _encodable(text: str) -> str:
    # A lone surrogate, as broken scrapers leave it, becomes "?", as it does in `encoding.py`.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _batches(lines: Iterator[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    batch: list[tuple[int, bytes]] = []
    for line in lines:
        batch.append(line)
        if len(batch) == _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _from_rows(rows: Sequence[_Row], carried: dict[str, list[str | None]]) -> pa.Table:
    places, ids, texts, problems = zip(*rows, strict=True)
    return pa.table(
        {
            "place": pa.array(places, pa.int64()),
            "id": pa.array(ids, pa.string()),
            "text": pa.array(texts, pa.string()),
            "problem": pa.array(problems, pa.string()),
            **{name: pa.array(values, pa.string()) for name, values in carried.items()},
        }
    )

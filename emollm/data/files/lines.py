"""Rows of plain text and of JSON, one object per line or an array of objects, with any content."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from emollm.core.errors import DataError
from emollm.data.files.columns import BATCH_ROWS, CARRIED_JSON, MALFORMED_ROW, NOT_TEXT, Columns, Notes
from emollm.data.files.inputs import InputFile
from emollm.data.files.streams import MARK, Text, unmarked

Row = tuple[int, str | None, str | None, str | None]
"""Place, id, text, problem."""
_Item = tuple[int, Any, str, bool]
"""Place, the parsed value (None: it is not JSON), its text, and whether it has undecodable bytes."""
_CHUNK = 1 << 20
_BETWEEN = re.compile(r"[\s,]*")
_METADATA = 1 << 20
"""A file with a single object, in a folder of posts, is read up to this many characters."""


def text_rows(text: Text) -> Iterator[pa.Table]:
    for batch in _batches((n, line) for n, line in enumerate(text.stream, start=1) if line.strip()):
        lines = [(n, line.rstrip("\n").removesuffix("\r")) for n, line in batch]
        yield from_rows([(n, None, unmarked(line), text.problem if MARK in line else None) for n, line in lines], {})


def json_rows(text: Text, file: InputFile, columns: Columns, notes: Notes) -> Iterator[pa.Table]:
    """Raises DataError for an array that ends too early, or an id that is a list or an object."""
    for batch in _batches(json_items(text, file, columns.text, notes)):
        rows: list[Row] = []
        carried: dict[str, list[str | None]] = {name: [] for name in columns.carry}
        for place, item, raw, undecodable in batch:
            row = item if isinstance(item, dict) else None
            if row is None:
                rows.append((place, f"{file.name}:{place}", raw, f"{MALFORMED_ROW}: not a JSON object"))
            else:
                post, problem = _text_of(row.get(columns.text), text.problem if undecodable else None)
                id_ = _id_of(row.get(columns.id), file, place, columns.id) if columns.id else None
                rows.append((place, id_, post, problem))
            for name, values in carried.items():
                values.append(json.dumps(row[name]) if row is not None and name in row else None)
        yield from_rows(rows, {CARRIED_JSON + name: pa.array(values, pa.string()) for name, values in carried.items()})


def json_items(text: Text, file: InputFile, text_column: str, notes: Notes) -> Iterator[_Item]:
    """The values of a JSON file, in order. A file with one object, in a folder of posts, is reported and left out."""
    lines = ((n, line) for n, line in enumerate(text.stream, start=1) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    if first[1].lstrip().startswith("["):
        yield from _array_items(text, first[1], file)
        return
    begun = [first]
    if file.listed:
        begun += _rest_of_object(first[1], lines)
        whole = parse("".join(line for _, line in begun))
        if isinstance(whole, dict) and text_column not in whole and _next_line(lines, begun) is None:
            notes.say(file.name, "left out: it has one JSON object without posts")
            return
    for n, line in chain(begun, lines):
        undecodable = not line.isascii() and MARK in line
        line = unmarked(line.rstrip("\r\n")) if undecodable else line.rstrip("\r\n")
        yield n, parse(line), line, undecodable


def _rest_of_object(line: str, lines: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
    """The lines after a first line with an unfinished object, up to the limit for metadata."""
    if not line.lstrip().startswith("{") or isinstance(parse(line), dict):
        return []
    found: list[tuple[int, str]] = []
    size = 0
    for n, more in lines:
        found.append((n, more))
        size += len(more)
        if size > _METADATA:
            break
    return found


def _next_line(lines: Iterator[tuple[int, str]], begun: list[tuple[int, str]]) -> str | None:
    """The next line, kept in `begun`; None if there is none."""
    found = next(lines, None)
    if found is not None:
        begun.append(found)
    return found and found[1]


def _array_items(text: Text, start: str, file: InputFile) -> Iterator[_Item]:
    """The elements of an array, without keeping all of it in memory."""
    decoder, place, at, size = json.JSONDecoder(), 0, 1, _CHUNK
    buffer, undecodable = unmarked(start.lstrip()), MARK in start
    while True:
        between = _BETWEEN.match(buffer, at)
        at = between.end() if between else at
        if buffer.startswith("]", at):
            if buffer[at + 1 :].strip() or text.stream.read(_CHUNK).strip():
                raise DataError(f"{file.path} cannot be read: something follows its array of {place:,} objects")
            return
        try:
            item, end = decoder.raw_decode(buffer, at)
            whole = end < len(buffer)  # a number at the end of the buffer may continue
        except (ValueError, RecursionError):
            whole = False
        if not whole:
            chunk = text.stream.read(size)
            if not chunk:
                raise DataError(f"{file.path} cannot be read: element {place + 1:,} of its array is not valid JSON")
            undecodable = undecodable or MARK in chunk
            buffer, at, size = buffer[at:] + unmarked(chunk), 0, size * 2
            continue
        place, at, size = place + 1, end, _CHUNK
        yield place, item, json.dumps(item), undecodable


def parse(line: str) -> Any:
    """The value of a line of JSON; None if it is not JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _text_of(value: Any, problem: str | None) -> tuple[str | None, str | None]:
    """`problem` is set for a line with undecodable bytes, which may be outside the text."""
    match value:
        case None:
            return None, None
        case str():
            return encodable(value), problem if "\N{REPLACEMENT CHARACTER}" in value else None
        case _:
            return json.dumps(value), f"{NOT_TEXT}: {type(value).__name__}"


def _id_of(value: Any, file: InputFile, place: int, column: str) -> str | None:
    match value:
        case None:
            return None
        case str():
            return encodable(value) if value.strip() else None
        case list() | dict():
            what = "a list" if isinstance(value, list) else "an object"
            raise DataError(f"{file.path}:{place}: column {column!r} holds {what}; give another --id-column")
        case _:
            return json.dumps(value)


def encodable(text: str) -> str:
    # A lone surrogate, as broken scrapers leave it, becomes "?", as it does in `encoding.py`.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _batches(items: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(islice(items, BATCH_ROWS)):
        yield batch


def from_rows(rows: Sequence[Row], carried: dict[str, Any]) -> pa.Table:
    places, ids, texts, problems = zip(*rows, strict=True)
    return pa.table(
        {
            "place": pa.array(places, pa.int64()),
            "id": pa.array(ids, pa.string()),
            "text": pa.array(texts, pa.string()),
            "problem": pa.array(problems, pa.string()),
            **carried,
        }
    )

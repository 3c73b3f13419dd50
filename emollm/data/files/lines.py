"""Rows of files with a post a line, plain text and JSON, whatever the lines hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from emollm.data.files.columns import BATCH_ROWS, INVALID_UTF8, MALFORMED_ROW, NOT_TEXT, Columns, decoded
from emollm.data.files.inputs import InputFile

_Row = tuple[int, str | None, str | None, str | None]
"""Place, id, text, problem."""
_CHUNK_BYTES = 4 << 20


def lines_of(filesystem: Any, file: InputFile) -> Iterator[tuple[int, bytes]]:
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


def text_rows(filesystem: Any, file: InputFile, columns: Columns) -> Iterator[pa.Table]:
    for batch in _batches(lines_of(filesystem, file)):
        texts = [decoded(raw) for _, raw in batch]
        yield _from_rows(
            [
                (line, None, text, INVALID_UTF8 if bad else None)
                for (line, _), (text, bad) in zip(batch, texts, strict=True)
            ],
            {name: pa.nulls(len(batch)) for name in columns.carry},
        )


def json_rows(filesystem: Any, file: InputFile, columns: Columns) -> Iterator[pa.Table]:
    for batch in _batches(lines_of(filesystem, file)):
        rows: list[_Row] = []
        carried: dict[str, list[str | None]] = {name: [] for name in columns.carry}
        for line, raw in batch:
            row, undecodable = parse(raw)
            if row is None:
                rows.append((line, f"{file.name}:{line}", decoded(raw)[0], f"{MALFORMED_ROW}: not a JSON object"))
            else:
                text, problem = _text_of(row.get(columns.text), undecodable=undecodable)
                rows.append((line, _id_of(row.get(columns.id)) if columns.id else None, text, problem))
            for name, values in carried.items():
                value = (row or {}).get(name)
                values.append(None if value is None else json.dumps(value, ensure_ascii=True))
        yield _from_rows(rows, {name: pa.array(values, pa.string()) for name, values in carried.items()})


def parse(raw: bytes) -> tuple[dict[str, Any] | None, bool]:
    """The object on a line, None if there is none; and whether the line held bytes that are not UTF-8."""
    text, undecodable = decoded(raw)
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
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _from_rows(rows: Sequence[_Row], carried: dict[str, Any]) -> pa.Table:
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

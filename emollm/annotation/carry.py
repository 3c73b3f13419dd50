"""Types of carried columns: known once the whole input was read, as JSON lines declare none."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from emollm.errors import DataError

_JSON_TYPES = {
    frozenset({"int"}): pa.int64(),
    frozenset({"float"}): pa.float64(),
    frozenset({"int", "float"}): pa.float64(),
    frozenset({"bool"}): pa.bool_(),
}
"""Anything else is text: strings as they are, objects and lists as JSON."""

_INT64_DIGITS = 18


def json_kinds(texts: Iterable[str | None]) -> set[str]:
    """What the JSON texts of a column are."""
    return {_json_kind(text) for text in texts if text is not None}


def _json_kind(text: str) -> str:
    match text[0]:
        case '"':
            return "text"
        case "t" | "f":
            return "bool"
        case "{" | "[" | "N" | "I":
            return "other"
        case _ if text.lstrip("-").isdigit():
            return "int" if len(text.lstrip("-")) <= _INT64_DIGITS else "other"
        case _:
            return "float"


def type_to_text(type_: pa.DataType) -> str:
    """Any Arrow type, to be kept in JSON; `type_from_text` reads it."""
    return base64.b64encode(pa.schema([("x", type_)]).serialize()).decode()


def type_from_text(text: str) -> pa.DataType:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))).field(0).type


def common_type(name: str, types: Sequence[pa.DataType], kinds: frozenset[str]) -> pa.DataType:
    """One type for a column: of files with types of their own `types`, of JSON lines `kinds`.

    Raises DataError where Parquet files disagree in a way that text cannot mend.
    """
    distinct = list(dict.fromkeys(t for t in types if not pa.types.is_null(t)))
    if kinds:
        distinct.append(_JSON_TYPES.get(kinds, pa.string()))
    if not distinct:
        return pa.string()
    if all(t == distinct[0] for t in distinct):
        return distinct[0]
    if any(pa.types.is_nested(t) for t in distinct):
        raise DataError(f"column {name!r} is {' and '.join(map(str, distinct))} in different files; carry it not")
    return pa.string()


def to_type(array: Any, type_: pa.DataType, *, is_json: bool) -> Any:
    """A carried column in its common type."""
    if not is_json:
        return array.cast(type_)
    values = [None if text is None else json.loads(text) for text in array.to_pylist()]
    if not pa.types.is_string(type_):
        return pa.array(values, type_)
    texts = array.to_pylist()
    return pa.array(
        [
            v.encode("utf-8", "replace").decode() if isinstance(v, str) else text
            for v, text in zip(values, texts, strict=True)
        ],
        pa.string(),
    )

"""Types of carried columns: known once the whole input was read, as JSON lines declare none."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from emollm.core.errors import DataError

_JSON_TYPES = {
    frozenset({"int"}): pa.int64(),
    frozenset({"long"}): pa.int64(),
    frozenset({"int", "long"}): pa.int64(),
    frozenset({"float"}): pa.float64(),
    frozenset({"int", "float"}): pa.float64(),
    frozenset({"bool"}): pa.bool_(),
}
"""Anything else is text: strings as they are, objects and lists as JSON, long integers beside floats digit by digit."""

_FLOAT64_DIGITS, _INT64_DIGITS = 15, 18


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
            digits = len(text.lstrip("-"))
            return "int" if digits <= _FLOAT64_DIGITS else "long" if digits <= _INT64_DIGITS else "other"
        case _:
            return "float"


def type_to_text(type_: pa.DataType) -> str:
    """Any Arrow type, to be kept in JSON; `type_from_text` reads it."""
    return base64.b64encode(pa.schema([("x", type_)]).serialize()).decode()


def type_from_text(text: str) -> pa.DataType:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))).field(0).type


def common_type(name: str, types: Mapping[pa.DataType, str], kinds: frozenset[str]) -> pa.DataType:
    """One type for a column: of JSON lines by their `kinds`, else by the `types` of files, each with a file of it.

    Raises DataError where Parquet files disagree in a way that text cannot mend.
    """
    distinct = {t: file for t, file in types.items() if not pa.types.is_null(t)}
    if kinds:
        return _JSON_TYPES.get(kinds, pa.string())
    if len(distinct) < 2:
        return next(iter(distinct), pa.string())
    if not all(_is_readable(t) for t in distinct):
        told = " and ".join(f"{t} in {file}" for t, file in distinct.items())
        raise DataError(f"column {name!r} is {told}; leave it out of --carry, or make the files alike")
    return pa.string()


def _is_readable(type_: pa.DataType) -> bool:
    """Whether any value of a type can be written as text."""
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return False
    try:
        pa.nulls(0, type_).cast(pa.string())
    except pa.ArrowNotImplementedError:
        return False
    return True


def to_type(array: Any, type_: pa.DataType, *, is_json: bool) -> Any:
    """A carried column in its common type."""
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), type_)
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

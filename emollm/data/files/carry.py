"""Types of carried columns: known only after the whole input was read, since JSON lines declare none."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from emollm.core.errors import DataError
from emollm.data.files.columns import CARRIED, CARRIED_JSON

_JSON_TYPES = {
    frozenset({"int"}): pa.int64(),
    frozenset({"long"}): pa.int64(),
    frozenset({"int", "long"}): pa.int64(),
    frozenset({"float"}): pa.float64(),
    frozenset({"int", "float"}): pa.float64(),
    frozenset({"bool"}): pa.bool_(),
}
"""Anything else is text: strings unchanged, objects and lists as JSON, long integers beside floats with all digits."""

_FLOAT64_DIGITS = 15


def json_kinds(texts: Iterable[str | None]) -> set[str]:
    """The kinds of the JSON values of a column."""
    return {_json_kind(text) for text in texts if text is not None}


def _json_kind(text: str) -> str:
    match text[0]:
        case '"':
            return "text"
        case "t" | "f":
            return "bool"
        case "n":
            return "null"
        case "{" | "[" | "N" | "I":
            return "other"
        case _ if text.lstrip("-").isdigit():
            digits = len(text.lstrip("-"))
            return "int" if digits <= _FLOAT64_DIGITS else "long" if -(2**63) <= int(text) < 2**63 else "other"
        case _:
            return "float"


def type_to_text(type_: pa.DataType) -> str:
    """Any Arrow type as text, to be stored in JSON; `type_from_text` reads it."""
    return base64.b64encode(pa.schema([("x", type_)]).serialize()).decode()


def type_from_text(text: str) -> pa.DataType:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))).field(0).type


@dataclass(slots=True)
class Seen:
    """Facts about the carried columns, gathered while files were read."""

    kinds: dict[str, set[str]] = field(default_factory=dict)
    """The kinds of each column's JSON values."""
    types: dict[str, dict[str, str]] = field(default_factory=dict)
    """The types of each column in other files, as `type_to_text` writes them, each with one of the files."""

    def look(self, table: Any, file: str, carry: Sequence[str]) -> None:
        for name in carry:
            if CARRIED_JSON + name in table.column_names:
                self.kinds.setdefault(name, set()).update(json_kinds(table[CARRIED_JSON + name].to_pylist()))
            elif CARRIED + name in table.column_names:
                self.types.setdefault(name, {}).setdefault(type_to_text(table[CARRIED + name].type), file)

    def add(self, other: Seen) -> None:
        for name, kinds in other.kinds.items():
            self.kinds.setdefault(name, set()).update(kinds)
        for name, types in other.types.items():
            self.types[name] = {**types, **self.types.get(name, {})}

    def common_types(self, carry: Sequence[str], *, source: str) -> dict[str, pa.DataType]:
        """One type for each column. Raises DataError, naming `source`, if no file has the column or types differ."""
        found = {}
        for name in carry:
            types = {type_from_text(text): file for text, file in self.types.get(name, {}).items()}
            kinds = frozenset(self.kinds.get(name, ()))
            if not types and not kinds:
                raise DataError(f"{source}: no row has the column {name!r} to carry")
            found[name] = common_type(name, types, kinds)
        return found


def common_type(name: str, types: Mapping[pa.DataType, str], kinds: frozenset[str]) -> pa.DataType:
    """The common type of a column from the `kinds` of its JSON values and its `types` in other files.

    If it has both it becomes text; a column with only nulls is text, too. Raises DataError if the types differ and one
    of them cannot be represented as text.
    """
    kinds = kinds - {"null"}
    distinct = {t: file for t, file in types.items() if not pa.types.is_null(t)}
    if not distinct:
        return _JSON_TYPES.get(kinds, pa.string())
    if len(distinct) == 1 and not kinds:
        return next(iter(distinct))
    if not all(_is_readable(t) for t in distinct):
        told = " and ".join([f"{t} in {file}" for t, file in distinct.items()] + ["JSON elsewhere"] * bool(kinds))
        raise DataError(f"column {name!r} is {told}; leave it out of --carry, or make the files alike")
    return pa.string()


def carried_columns(table: Any, types: Mapping[str, pa.DataType]) -> list[Any]:
    """The carried columns of rows, each in its common type; null if the file does not have the column."""
    columns = []
    for name, type_ in types.items():
        if CARRIED_JSON + name in table.column_names:
            columns.append(to_type(table[CARRIED_JSON + name], type_, is_json=True))
        elif CARRIED + name in table.column_names:
            columns.append(to_type(table[CARRIED + name], type_, is_json=False))
        else:
            columns.append(pa.nulls(table.num_rows, type_))
    return columns


def _is_readable(type_: pa.DataType) -> bool:
    """Whether every value of a type can be written as text."""
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
            v.encode("utf-8", "replace").decode() if isinstance(v, str) else None if v is None else text
            for v, text in zip(values, texts, strict=True)
        ],
        pa.string(),
    )

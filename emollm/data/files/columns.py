"""The columns read from a file of posts: a batch of rows is a table of

place    int64   line of a text file, row of any other, counted from 1
id       string  null where the row has none, or an empty one
text     string
problem  string  why the row cannot be scored; null if it can
carried columns  `carried.NAME`: text from CSV, any type from Parquet; `json.NAME`: from JSON, as JSON text.
                 A column that the file lacks is not in the table; for JSON it is there as null
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field

from emollm.core.errors import ConfigError

INVALID_UTF8 = "invalid_utf8"
UNDECODABLE = "undecodable"
NOT_TEXT = "not_text"
MALFORMED_ROW = "malformed_row"

CARRIED, CARRIED_JSON = "carried.", "json."

BATCH_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Reading:
    """How text files are read; `reading` creates it from options."""

    encoding: str | None = None
    """None: UTF-8, or UTF-16 and UTF-32 if byte order marks or zero bytes show them."""
    delimiter: str | None = None
    """Delimiter of CSV files. None: comma, semicolon or tab, detected from the first line."""
    names: tuple[str, ...] = ()
    """Columns of CSV files without a header. Empty: the first row is the header."""


AS_FOUND = Reading()


def reading(encoding: str | None, delimiter: str | None, names: Sequence[str] = ()) -> Reading:
    """Raises ConfigError for an invalid encoding or delimiter."""
    if encoding is not None:
        try:
            b"".decode(encoding)
            encoding = codecs.lookup(encoding).name
        except LookupError:
            raise ConfigError(
                f"unknown encoding {encoding!r}; choose from utf-8, utf-16, latin-1, windows-1252 and others of Python"
            ) from None
    if delimiter is not None:
        delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
        if len(delimiter) != 1 or delimiter == '"' or not (delimiter.isprintable() or delimiter == "\t"):
            raise ConfigError(f"delimiter {delimiter!r} is not one character, such as ',', ';' or 'tab'")
    return Reading(encoding, delimiter, tuple(names))


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns to read from a file; see `AnnotateConfig`."""

    id: str | None
    """None: the rows have no ids."""
    text: str
    carry: tuple[str, ...] = ()
    reading: Reading = AS_FOUND
    by_sentence: bool = False
    """Whether each sentence becomes a row: see split.py."""

    @property
    def named(self) -> list[str]:
        return list(dict.fromkeys([*([self.id] if self.id else []), self.text, *self.carry]))


@dataclass(slots=True)
class Notes:
    """Messages for the user about how files were read: each message once, with the files that it is about."""

    files: dict[str, list[str]] = field(default_factory=dict)

    def say(self, file: str, note: str) -> None:
        self.files.setdefault(note, []).append(file)

    def add(self, other: Notes) -> None:
        for note, files in other.files.items():
            self.files.setdefault(note, []).extend(files)

    def lines(self) -> list[str]:
        shown = {note: ", ".join(files[:3]) for note, files in self.files.items()}
        more = {note: f" and {len(files) - 3:,} more" if len(files) > 3 else "" for note, files in self.files.items()}
        return [f"{shown[note]}{more[note]}: {note}" for note in self.files]

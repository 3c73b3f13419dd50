"""Opens a text file, decompressed and decoded: detects its encoding and marks invalid bytes."""

from __future__ import annotations

import codecs
import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from emollm.data.files.columns import INVALID_UTF8, UNDECODABLE, Notes, Reading
from emollm.data.files.formats import compression_of, refuse_other_kinds
from emollm.data.files.inputs import InputFile

MARK = "\udcff"
"""Marks undecodable bytes in decoded lines; no decoder returns it otherwise."""
_HANDLER = "emollm-mark"
_BUFFER, _SAMPLE = 1 << 20, 1 << 12
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, since it begins with the mark of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return MARK, error.end


codecs.register_error(_HANDLER, _mark)


@dataclass(frozen=True, slots=True)
class Text:
    """An open text file."""

    stream: io.TextIOWrapper
    encoding: str

    @property
    def problem(self) -> str:
        """The error of a row with undecodable bytes."""
        return INVALID_UTF8 if self.encoding.startswith("utf-8") else f"{UNDECODABLE}: not {self.encoding}"


@contextlib.contextmanager
def open_text(filesystem: Any, file: InputFile, reading: Reading, notes: Notes) -> Iterator[Text]:
    """Lines end only at a line feed, other separators occur in posts; in CSV, and in files without any, at \\r too.

    Raises DataError for a file that is not text.
    """
    with filesystem.open_input_stream(file.path, compression=compression_of(file.path)) as raw:
        buffered = io.BufferedReader(raw, _BUFFER)
        head = buffered.peek(_SAMPLE)[:_SAMPLE]
        refuse_other_kinds(file.path, head)
        encoding, why = find_encoding(head, reading.encoding)
        if why:
            notes.say(file.name, f"read as {encoding.upper()}, {why}")
        newline = "\r" if b"\r" in head and b"\n" not in head else "\n"
        yield Text(
            io.TextIOWrapper(buffered, encoding, _HANDLER, newline="" if file.format == "csv" else newline), encoding
        )


def find_encoding(head: bytes, given: str | None) -> tuple[str, str | None]:
    """The encoding of a file that begins with `head`, and how it was detected, if the user should know."""
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name, None if name == "utf-8-sig" else "by its byte order mark"
    if given:
        return given, None
    count = len(head) // 4
    zeros = [head[place : count * 4 : 4].count(0) / count if count else 0.0 for place in range(4)]
    for name, mostly, hardly in (
        ("utf-32-le", (2, 3), (0,)),
        ("utf-32-be", (0, 1), (3,)),
        ("utf-16-le", (1, 3), (0, 2)),
        ("utf-16-be", (0, 2), (1, 3)),
    ):
        if all(zeros[place] > 0.4 for place in mostly) and all(zeros[place] < 0.1 for place in hardly):
            return name, "by its zero bytes"
    return "utf-8", None


def unmarked(text: str) -> str:
    """The text with U+FFFD for undecodable bytes."""
    return text if text.isascii() else text.replace(MARK, "\N{REPLACEMENT CHARACTER}")

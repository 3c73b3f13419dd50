"""Strict CSV (RFC 4180), except that an invalid row is kept, with the reason."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from emollm.core.errors import DataError
from emollm.data.files.columns import Reading
from emollm.data.files.streams import MARK

csv.field_size_limit(1 << 30)
_LONGEST_RECORD = 64 << 20
"""In characters; a quote that is open for longer counts as unclosed."""
_DELIMITERS = ",;\t"
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}


class Record(NamedTuple):
    """A row of a CSV file."""

    line: int
    """Its first line, counted from 1."""
    cells: list[str]
    """One per column; for a row with a `problem` only its text."""
    problem: str | None = None


class _Lines:
    """Lines for csv.reader; the lines of the current row are kept, so that they can be read again."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self._again = iter(lines), deque[str]()
        self.row: list[str] = []
        self._length = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.row.append(line)
        self._length += len(line)
        if self._length > _LONGEST_RECORD and len(self.row) > 1:
            raise csv.Error("no end of the row")
        return line

    def next_row(self) -> None:
        self.row, self._length = [], 0

    def give_back(self) -> None:
        """Give back all lines of the row except the first."""
        self._again.extendleft(reversed(self.row[1:]))


def split_rows(lines: Iterable[str], delimiter: str, *, first_line: int = 1, blanks: bool = False) -> Iterator[Record]:
    """The rows, without blank lines. After a line that is not CSV, reading continues at the next one."""
    feed = _Lines(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True, skipinitialspace=blanks)
    line = first_line
    while True:
        feed.next_row()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            several = len(feed.row) > 1 or "end of data" in str(error)
            feed.give_back()
            why = "a quote is opened and not closed" if several else "text after a closing quote"
            yield Record(line, [feed.row[0].rstrip("\r\n")], why)
            line += 1
            continue
        if cells is None:
            return
        if cells:
            yield Record(line, cells)
        line += len(feed.row)


class Table(NamedTuple):
    """A CSV file with known columns."""

    names: list[str]
    rows: Iterator[Record]
    delimiter: str
    """The delimiter in words if it was detected and is not a comma; else empty."""


def read_delimited(lines: Iterable[str], path: str, reading: Reading, *, wanted: str, tab: bool) -> Table:
    """Names and rows; rows of a wrong length and a repeated header have a problem.

    `wanted` is a column name that helps to detect the delimiter. Raises DataError for a header that cannot be read, or
    that names a column twice.
    """
    lines, before = iter(lines), 0
    first = ""
    for line in lines:
        before += 1
        if hint := re.fullmatch(r"sep=(.)\s*", line):  # as Excel writes it
            reading = Reading(reading.encoding, reading.delimiter or hint[1], reading.names)
        elif line.strip("\r\n"):
            first = line
            break
    if not first:
        return Table(list(reading.names), iter(()), "")
    if MARK in first:
        raise DataError(
            f"{path}: its first line is not UTF-8; give --encoding, such as windows-1252, latin-1 or utf-16"
            if reading.encoding is None
            else f"{path}: its first line is not {reading.encoding}; give another --encoding"
        )
    delimiter = reading.delimiter or ("\t" if tab else _sniff(first, wanted))
    rows = split_rows(chain([first], lines), delimiter, first_line=before, blanks=f'{delimiter} "' in first)
    names = list(reading.names)
    if not names:
        header = next(rows)
        if header.problem:
            raise DataError(f"{path}: line {header.line}, which should name the columns, is not CSV: {header.problem}")
        names = [name.strip() for name in header.cells]
    refuse_twice(path, names)
    said = "" if reading.delimiter or tab or delimiter == "," else _NAMES[delimiter]
    return Table(names, _checked(rows, names), said)


def refuse_twice(path: str, names: Sequence[str]) -> None:
    """Raise DataError if two columns have the same name."""
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        hint = _no_header(names)
        raise DataError(f"{path} has two columns {twice[0]!r}; rename one{hint}")


def no_column(path: str, name: str, names: Sequence[str], option: str = "--text-column") -> DataError:
    """The error for a missing column."""
    shown = ", ".join(name[:40] for name in names[:30])
    return DataError(f"{path} has no column {name!r}; give {option}, one of: {shown}{_no_header(names)}")


def _no_header(names: Sequence[str]) -> str:
    """A hint if the names look like a row of data."""
    if not any(re.fullmatch(r"[-+]?\d[\d.,:/ -]*", name) or len(name) > 60 or name.count(" ") > 4 for name in names):
        return ""
    columns = ",".join(["text" if i == len(names) - 1 else f"column{i + 1}" for i in range(len(names))])
    return f". The file seems to have no header: name its columns with --column-names, as in {columns}"


def _sniff(line: str, wanted: str) -> str:
    """The delimiter with which the first line has the wanted column, or else the most columns."""
    found = {d: [c.strip() for c in next(csv.reader([line], delimiter=d, skipinitialspace=True))] for d in _DELIMITERS}
    fitting = [d for d in found if wanted in found[d]] or list(found)
    return max(fitting, key=lambda d: len(found[d]))


def _checked(rows: Iterator[Record], names: Sequence[str]) -> Iterator[Record]:
    count = len(names)
    for row in rows:
        cells = row.cells
        if row.problem:
            yield row
        elif len(cells) > count and not any(cells[count:]):
            yield Record(row.line, cells[:count])
        elif len(cells) != count:
            said = f"{len(cells)} column{'s' if len(cells) > 1 else ''}, expected {count}"
            yield Record(row.line, [" | ".join(cells)], said)
        elif cells[0] == names[0] and cells == names:
            yield Record(row.line, [" | ".join(cells)], "repeated header")
        else:
            yield row

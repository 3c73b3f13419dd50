"""Common code of all readers: bytes to numbered lines, and rows to Examples or BadRows."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from emollm.core.errors import DataError
from emollm.core.tasks import Task, Value
from emollm.data.corpora.example import BadRow, Example
from emollm.data.files.delimited import split_rows
from emollm.data.raters import aggregate

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INTEGER = re.compile(r"[+-]?\d+")
_ODD_BYTE = re.compile("[\udc80-\udcff]")
"""The characters that `surrogateescape` uses for bytes that are not UTF-8."""


def number(raw: str) -> float:
    # float() alone would accept "1_0" as 10 and "nan" as a number.
    if not _NUMBER.fullmatch(raw.strip()):
        raise ValueError("not a number")
    return float(raw)


def integer(raw: str) -> int:
    if not _INTEGER.fullmatch(raw.strip()):
        raise ValueError("not a whole number")
    return int(raw)


class Label(NamedTuple):
    """One label of a row."""

    task: Task
    raw: str
    """The cell's text in the file."""
    parse: Callable[[str], Value]
    """Converts `raw`; raises ValueError with the reason if it is not a value."""
    emotion: str | None = None
    raters: tuple[str, ...] = ()
    """The answer of each rater, as in the file; `raw` is then only for error messages."""


class Rows:
    """Converts the rows of one file to examples; each label ends in either `examples` or `bad`."""

    def __init__(self, path: Path, *, source: str, split: str, bad: list[BadRow], labels_per_row: int = 1) -> None:
        self.path = path
        self.source = source
        self.split = split
        self.examples: list[Example] = []
        self.bad = bad
        self.labels_per_row = labels_per_row
        self._seen: dict[str, int] = {}

    def reject(self, line: int, value: str, reason: str, *, labels: int | None = None) -> None:
        value = _ODD_BYTE.sub("\N{REPLACEMENT CHARACTER}", value)[:200]
        lost = self.labels_per_row if labels is None else labels
        self.bad.append(BadRow(path=str(self.path), line=line, value=value, reason=reason, labels=lost))

    def reject_file(self, header: Sequence[str], reason: str, *, rows: int) -> None:
        """Reject a wrong header, which loses every row of the file."""
        self.reject(1, " | ".join(header), reason, labels=max(rows, 1) * self.labels_per_row)

    def add(
        self,
        *,
        line: int,
        id: str,  # noqa: A002 - the field it fills is called so
        text: str,
        labels: Sequence[Label],
        split: str | None = None,
        template: str | None = None,
        context: str = "",
        target: str = "",
    ) -> None:
        """An Example for each label; a BadRow if the text is empty, the id was seen before or a label is wrong."""
        if not text.strip():
            return self.reject(line, text, "empty text", labels=len(labels))
        if not id.strip():
            return self.reject(line, id, "empty id", labels=len(labels))
        if id in self._seen:
            return self.reject(line, id, f"duplicate id, first on line {self._seen[id]}", labels=len(labels))
        self._seen[id] = line
        for task, raw, parse, emotion, raters in labels:
            try:
                task.check_emotion(emotion)
                ratings = tuple(map(parse, raters))
                for one in ratings:
                    task.check_value(one)
                value = aggregate(task, ratings) if ratings else parse(raw)
                task.check_value(value)
            except ValueError as error:  # DataError is one
                self.reject(line, raw, str(error), labels=1)
                continue
            self.examples.append(
                Example(
                    id=id,
                    text=text,
                    task=task.name,
                    emotion=emotion,
                    value=value,
                    ratings=ratings,
                    source=self.source,
                    split=split or self.split,
                    path=str(self.path),
                    line=line,
                    template=template,
                    context=context,
                    target=target,
                )
            )
        return None

    def lines(self, *, mend: bool = False) -> Iterator[tuple[int, str]]:
        """Numbered lines without line ends and byte order mark; blank lines are left out.

        A line that is not UTF-8 is a bad row; with `mend` it is decoded as Windows-1252, the encoding of the other
        bytes in these corpora (curly quotes, dashes).
        """
        # Only "\n" separates rows: str.splitlines would also split inside a tweet, at U+0085, U+2028 and others.
        for line, raw in enumerate(read_bytes(self.path).removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
            text = raw.removesuffix(b"\r").decode("utf-8", errors="surrogateescape")
            if not text.strip():
                continue
            if _ODD_BYTE.search(text):
                if not mend:
                    self.reject(line, text, "not UTF-8")
                    continue
                text = _ODD_BYTE.sub(_from_windows, text)
            yield line, text

    def csv(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
        """Rows of a comma-separated file with a header, by column name, with the line each starts on.

        Quoted cells may contain commas, quotes and line ends. A header without all of `columns` is one bad row for the
        whole file; a line that is not CSV is a bad row of its own.
        """
        text = read_bytes(self.path).decode("utf-8-sig", errors="surrogateescape")
        # newline="": csv must see the original line ends, or those inside quotes are lost.
        header: list[str] = []
        rows = split_rows(io.StringIO(text, newline=""), ",")
        for line, cells, problem in rows:
            if problem:
                self.reject(line, cells[0], f"not CSV: {problem}")
            elif not any(cell.strip() for cell in cells):
                continue
            elif not header:
                header = cells
                if missing := [name for name in columns if name not in header]:
                    self.reject_file(header, f"no column {', '.join(missing)}", rows=sum(1 for _ in rows))
                    return
            elif len(cells) != len(header):
                self.reject(line, ",".join(cells), f"{len(cells)} columns, expected {len(header)}")
            elif any(map(_ODD_BYTE.search, cells)):
                self.reject(line, ",".join(cells), "not UTF-8")
            else:
                yield line, dict(zip(header, cells, strict=True))


def _from_windows(match: re.Match[str]) -> str:
    raw = bytes([ord(match.group()) - 0xDC00])
    # Windows-1252 leaves five bytes undefined; Latin-1 defines all bytes.
    return raw.decode("cp1252") if raw not in b"\x81\x8d\x8f\x90\x9d" else raw.decode("latin-1")


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def find_file(place: Path, name: str) -> Path:
    """The file `name` at or anywhere under `place`; raises DataError if there is none, or more than one."""
    if place.is_file():
        return place
    # Sorted, since folders list in no fixed order.
    found = sorted(path for path in place.rglob(name) if path.is_file())
    if not found:
        raise DataError(
            f"no {name} under {place}" if place.is_dir() else f"no folder {place}, which should contain {name}"
        )
    if len(found) > 1:
        raise DataError(
            f"{len(found)} files {name} under {place}: {', '.join(map(str, found[:5]))}; give a more specific folder"
        )
    return found[0]

"""What is read of a file of posts: a batch of rows is a table of

place    int64   line of a text file, row of any other, counted from 1
id       string  null where the row has none
text     string
problem  string  why the row cannot be scored; null where it can
carried columns  of JSON lines as JSON text, of CSV as text, of Parquet as they are; nulls where a file has none
"""

from __future__ import annotations

from dataclasses import dataclass

INVALID_UTF8 = "invalid_utf8"
NOT_TEXT = "not_text"
MALFORMED_ROW = "malformed_row"

BATCH_ROWS = 8192


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


def decoded(raw: bytes) -> tuple[str, bool]:
    """The text, each byte that is not UTF-8 as U+FFFD, and whether there was one."""
    try:
        return raw.decode("utf-8"), False
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace"), True

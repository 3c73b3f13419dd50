"""A label's cell of a user's own file to its value."""

from __future__ import annotations

import re

from emollm.core.tasks import Kind, Task, Value
from emollm.data.corpora.rows import integer, number

LIST_END = "\x1f"
"""Ends each item of a list from a JSON or Parquet cell."""

TRUTHS = {"true": "1", "false": "0"}
"""Spellings of booleans in tables, and their numbers."""


def parse_label(task: Task, raw: str, *, separator: str = ",") -> Value:
    """The value of a cell; raises ValueError with the reason if it has none.

    An ordinal class may be given by its number or its phrase; a whole number may be written "2.0", as tables do
    if a column has missing values.
    """
    raw = raw.strip(" \t\r\n")  # not str.strip(), which would take LIST_END off
    if not raw and task.kind is not Kind.LABEL_SET:
        raise ValueError('empty label; if that means not labelled, set blank = "skip"')
    truth = TRUTHS.get(raw.casefold())
    match task.kind:
        case Kind.REGRESSION:
            return number(truth or raw)
        case Kind.ORDINAL:
            by_phrase = {c.phrase.casefold(): c.value for c in task.classes}
            if raw.casefold() in by_phrase:
                return by_phrase[raw.casefold()]
            return integer(re.sub(r"\.0+$", "", (truth or raw).partition(":")[0]))
        case Kind.SINGLE_LABEL:
            same = (label for label in task.labels if truth and label.casefold() in (raw.casefold(), truth))
            return raw if raw in task.labels else next(same, raw)
        case Kind.LABEL_SET:
            parts = raw.split(LIST_END if LIST_END in raw else separator)
            names = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
            return () if names == (task.no_label,) else names

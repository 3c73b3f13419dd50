"""Rows of posts to rows of sentences, with ids that refer to the post: `ID#3` is the third sentence of the post ID."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from emollm.core.sentences import sentences
from emollm.data.files.columns import CARRIED

SENTENCE, SENTENCE_START = "sentence", "sentence_start"
MADE = (SENTENCE, SENTENCE_START)
"""Columns of each sentence: its number from 1, and its start in the text, in characters."""


def by_sentence(table: Any) -> Any:
    """A table as `read_rows` gives it, one row per sentence; a row without text, or with a problem, stays one row."""
    rows: list[int] = []
    texts: list[str | None] = []
    numbers: list[int] = []
    starts: list[int] = []
    for n, (text, problem) in enumerate(zip(table["text"].to_pylist(), table["problem"].to_pylist(), strict=True)):
        spans = sentences(text) if text and not problem else []
        for number, (start, stop) in enumerate(spans or [(0, len(text or ""))], start=1):
            rows.append(n)
            texts.append(text if text is None else text[start:stop])
            numbers.append(number)
            starts.append(start)
    found = table.take(pa.array(rows, pa.int64()))
    ids = [one if one is None else f"{one}#{n}" for one, n in zip(found["id"].to_pylist(), numbers, strict=True)]
    for name, column in (("id", ids), ("text", texts)):
        found = found.set_column(found.schema.get_field_index(name), name, pa.array(column, pa.string()))
    found = found.append_column(CARRIED + SENTENCE, pa.array(numbers, pa.int64()))
    return found.append_column(CARRIED + SENTENCE_START, pa.array(starts, pa.int64()))

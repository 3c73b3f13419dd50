"""A labelled post, and how a reader reports the rows it cannot use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emollm.core.errors import DataError
from emollm.core.tasks import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One gold label of one post: the common output of all readers."""

    id: str
    """The row's id in its corpus."""
    text: str
    """The text of the corpus; readers fix encodings, never wording."""
    task: str
    emotion: str | None
    value: Value
    """In the task's own range, classes or labels."""
    source: str
    """The corpus, "semeval2018"."""
    split: str
    """"train", "dev" or "test"."""
    path: str
    line: int
    """Its file and line, counted from 1."""
    ratings: tuple[Value, ...] = ()
    """The answer of each rater, if there are several; `value` aggregates them."""
    context: str = ""
    """What comes before the text, where the corpus has it."""
    target: str = ""
    """The name or aspect that the label is about, where the corpus has it and the reader was asked for it."""
    template: str | None = None
    """The wording it was published with, if the reader knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row without an Example, and the reason."""

    path: str
    line: int
    value: str
    reason: str
    labels: int = 1
    """Number of labels lost with it: mostly one; all labels of a file whose header is wrong."""

    def __str__(self) -> str:
        lost = f" ({self.labels:,} labels)" if self.labels > 1 else ""
        return f"{self.path}:{self.line}: {self.value!r}: {self.reason}{lost}"


def count_labels(bad: Sequence[BadRow]) -> int:
    """Labels lost with these rows; examples and lost labels add up to all labels of the input."""
    return sum(row.labels for row in bad)


def refuse(bad: Sequence[BadRow], shown: int = 20) -> None:
    """Raise one DataError that lists the first `shown` bad rows and counts them all; do nothing if none."""
    if not bad:
        return
    lines = [str(row) for row in bad[:shown]]
    if len(bad) > shown:
        lines.append(f"... and {len(bad) - shown:,} more")
    lost = f" ({count_labels(bad):,} labels)" if count_labels(bad) > len(bad) else ""
    raise DataError(f"{len(bad):,} bad row{'s' if len(bad) > 1 else ''}{lost}:\n" + "\n".join(lines))


def hand_over(collected: list[BadRow], bad: list[BadRow] | None) -> None:
    """How a reader reports its bad rows: into the caller's list, or as an error if the caller gave none."""
    if bad is None:
        refuse(collected)
    else:
        bad += collected

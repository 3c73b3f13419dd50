"""Computes the numbers of a data card from the tables; the page only shows them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from emollm.core.errors import ConfigError
from emollm.core.tasks import Task, Value
from emollm.data.instructions import PIECES, RATINGS
from emollm.data.manifest import label_counts, question_column, question_counts
from emollm.data.raters import alpha, ceiling, decode

LENGTH_BINS = (0, 5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 80, 120, 200, 400)
"""Lower edges of the length histogram, in tokens; the last bin has no upper edge."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the distinct texts of a table, and of its complete rows (instruction and answer)."""

    histogram: tuple[int, ...]
    """Distinct texts per bin of `LENGTH_BINS`."""
    text_median: int
    text_most: int
    row_median: int
    row_most: int


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Texts of a table with the same question more than once."""

    texts: int
    examples: int
    """Labels beyond the first of such a text."""
    contradictions: int
    """Number of these texts with different golds: no model can be right on all of them."""


@dataclass(frozen=True, slots=True)
class Raters:
    """Agreement of the raters of one question, over posts with several raters; NaN if undefined."""

    question: str
    posts: int
    raters: float
    """Mean number per post."""
    alpha: float
    ceiling: float
    """One rater against the others: `emollm.data.raters.ceiling`."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Distinct texts of one table that are in another too."""

    of: str
    within: str
    texts: int
    """Distinct texts of the first table."""
    same: int
    """Identical texts."""
    alike: int
    """Texts that are equal except for case, punctuation, links and user names; includes `same`."""
    same_question: int
    """Identical text and question: the model may have memorised the answer."""


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    rows: int
    examples: int
    texts: int
    questions: Mapping[str, int]
    """Rows per question, `EI-reg.joy`."""
    examples_of: Mapping[str, int]
    """Examples per question: rows without their wordings."""
    labels: Mapping[str, Mapping[str, int]]
    """Examples per label, class or tenth of the range, by question; "" is the empty label set."""
    templates: Mapping[str, tuple[int, int, int]]
    """By question: number of wordings, and the fewest and most rows of a wording."""
    lengths: Lengths
    duplicates: Duplicates
    raters: tuple[Raters, ...]


@dataclass(frozen=True, slots=True)
class Card:
    job: str
    tables: tuple[Table, ...]
    tasks: Mapping[str, Task]
    overlaps: tuple[Overlap, ...]
    facts: Mapping[str, Any]
    unit: str
    """Unit of lengths: "tokens" or "words"."""


def collect(
    job: str,
    tables: Mapping[str, pa.Table],
    tasks: Sequence[Task],
    facts: Mapping[str, Any],
    *,
    tokenizer: Path | None,
    against: Mapping[str, pa.Table] | None,
) -> Card:
    count, unit = _counter(tokenizer)
    texts = {name: _texts(table) for name, table in tables.items()}
    others = {f"{name} (other folder)": _texts(table) for name, table in (against or {}).items()}
    # A benchmark's parts are not splits of one data set, so they are compared with the training data only.
    pairs = [(of, within) for of in tables for within in others]
    if job != "aeb" and "train" in tables:
        pairs += [(of, "train") for of in tables if of != "train"]
    return Card(
        job=job,
        tables=tuple(_table(name, table, count, tasks) for name, table in tables.items()),
        tasks={task.name: task for task in tasks},
        overlaps=tuple(_overlap(of, within, texts[of], (texts | others)[within]) for of, within in pairs),
        facts=facts,
        unit=unit,
    )


def _counter(tokenizer: Path | None) -> tuple[Callable[[Sequence[str]], list[int]], str]:
    if tokenizer is None:
        return (lambda texts: [len(text.split()) for text in texts]), "words"
    import tokenizers

    path = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    try:
        encoder = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise ConfigError(f"--tokenizer {tokenizer}: no readable tokenizer.json ({error})") from None
    encoder.no_truncation()
    encoder.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in encoder.encode_batch(list(texts), add_special_tokens=False)]

    return count, "tokens"


def _table(name: str, table: pa.Table, count: Callable[[Sequence[str]], list[int]], tasks: Sequence[Task]) -> Table:
    first = table.filter(_first_of_each(table))
    return Table(
        name=name,
        rows=table.num_rows,
        examples=first.num_rows,
        texts=len(first["text"].unique()),
        questions=question_counts(table),
        examples_of=question_counts(first),
        labels=label_counts(first),
        templates=_templates(table),
        lengths=_lengths(table, count),
        duplicates=_duplicates(first),
        raters=tuple(_raters(first, tasks)),
    )


def _raters(first: pa.Table, tasks: Sequence[Task]) -> Iterator[Raters]:
    if RATINGS.name not in first.column_names:
        return
    by_question: dict[str, list[tuple[Value, ...]]] = {}
    for question, cells in zip(question_column(first).to_pylist(), first[RATINGS.name].to_pylist(), strict=True):
        if cells and len(cells) > 1:
            by_question.setdefault(question, []).append(decode(cells))
    known = {str(key): task for task in tasks for key in task.keys}
    for question, ratings in by_question.items():
        task, each = known[question], sum(map(len, ratings)) / len(ratings)
        yield Raters(question, len(ratings), each, alpha(task, ratings), ceiling(task, ratings))


def _templates(table: pa.Table) -> dict[str, tuple[int, int, int]]:
    counts: dict[str, Counter[int]] = {}
    for question, template in zip(question_column(table).to_pylist(), table["template"].to_pylist(), strict=True):
        counts.setdefault(question, Counter())[template] += 1
    return {question: (len(rows), min(rows.values()), max(rows.values())) for question, rows in counts.items()}


def _first_of_each(table: pa.Table) -> pa.Array:
    """Whether each row is the first of its example: an id ends with the number of the template."""
    seen: set[str] = set()
    first = []
    for row_id in table["id"].to_pylist():
        example = row_id.rpartition("/")[0]
        first.append(example not in seen)
        seen.add(example)
    return pa.array(first, pa.bool_())


def _lengths(table: pa.Table, count: Callable[[Sequence[str]], list[int]]) -> Lengths:
    # Each distinct piece is counted once: 234,040 rows of AAID have 11,000 posts and 300 other pieces.
    tokens: dict[str, int] = {}
    columns = [pc.fill_null(_plain(table[name]), "") for name in (*PIECES, "answer")]
    texts = _plain(table["text"]).unique().to_pylist()
    for column in columns:
        pieces = column.unique().to_pylist()
        tokens.update(zip(pieces, count(pieces), strict=True))
    of_texts = sorted(count(texts))
    rows = sorted(sum(tokens[piece] for piece in row) for row in zip(*(c.to_pylist() for c in columns), strict=True))
    edges = [*LENGTH_BINS, float("inf")]
    histogram = [sum(low <= n < high for n in of_texts) for low, high in pairwise(edges)]
    return Lengths(tuple(histogram), _middle(of_texts), _most(of_texts), _middle(rows), _most(rows))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _middle(ordered: Sequence[int]) -> int:
    return ordered[len(ordered) // 2] if ordered else 0


def _most(ordered: Sequence[int]) -> int:
    return ordered[-1] if ordered else 0


def _duplicates(first: pa.Table) -> Duplicates:
    golds: dict[tuple[str, str], list[str]] = {}
    for column, text, answer in zip(
        question_column(first).to_pylist(), first["text"].to_pylist(), first["answer"].to_pylist(), strict=True
    ):
        golds.setdefault((column, text), []).append(answer)
    repeated = [answers for answers in golds.values() if len(answers) > 1]
    return Duplicates(
        texts=len(repeated),
        examples=sum(len(answers) - 1 for answers in repeated),
        contradictions=sum(len(set(answers)) > 1 for answers in repeated),
    )


def _texts(table: pa.Table) -> dict[str, set[str]]:
    """Questions asked of each distinct text."""
    asked: dict[str, set[str]] = {}
    pairs = pa.table({"text": table["text"], "task": _plain(table["task"]), "emotion": _plain(table["emotion"])})
    for row in pairs.group_by(["text", "task", "emotion"], use_threads=False).aggregate([]).to_pylist():
        asked.setdefault(row["text"], set()).add(f"{row['task']}.{row['emotion']}")
    return asked


def _overlap(of: str, within: str, ours: Mapping[str, set[str]], theirs: Mapping[str, set[str]]) -> Overlap:
    bare = {normal(text) for text in theirs} - {""}
    return Overlap(
        of=of,
        within=within,
        texts=len(ours),
        same=sum(text in theirs for text in ours),
        alike=sum(text in theirs or normal(text) in bare for text in ours),
        same_question=sum(bool(asked & theirs.get(text, set())) for text, asked in ours.items()),
    )


_NOISE = re.compile(r"https?://\S+|@\w+|\\n|&\w+;|[^\w\s]|_")


def normal(text: str) -> str:
    """A text without case, punctuation, links and user names."""
    return " ".join(_NOISE.sub(" ", text.casefold()).split())


def total_rows(card: Card) -> int:
    return sum(table.rows for table in card.tables)

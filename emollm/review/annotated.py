"""Annotated posts as values: the output of an annotation job, of `emollm annotate`, or of people.

A column is known by its name, `ei_reg_joy` of `EI-reg` and joy; what stands in it is read in the task's own terms.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emollm.core.answers import parse_answer
from emollm.core.card import card_tasks
from emollm.core.errors import DataError
from emollm.core.prompts import Question, column_name, questions_for
from emollm.core.tasks import TASKS, Kind, Task, Value
from emollm.data.files.columns import Notes, reading
from emollm.data.files.whole import read_posts


@dataclass(frozen=True, slots=True)
class Annotated:
    """The posts of one annotator. Columns are keyed by their name; a value is None where there is no answer."""

    name: str
    ids: list[str]
    texts: list[str]
    questions: list[Question]
    """Those that have a column."""
    values: dict[str, list[Value | None]]
    doubts: dict[str, list[float | None]] = field(default_factory=dict)
    """How unsure each answer is, as `doubt` has it; no column where the file does not tell."""


def read_annotated(
    location: str, tasks: Iterable[Task], *, text_column: str = "text", on_bad: Callable[[str], None] | None = None
) -> Annotated:
    """A file or folder with a column `id`, texts, and columns named as an annotation's.

    A best guess (`_best`) stands for an answer that was abstained from. A cell that is no value of its task goes to
    `on_bad` in words and counts as no answer; None: the first raises. Raises DataError where no column is known.
    """
    table = read_posts(location, text_column, reading(None, None, ()), Notes()).table
    names = table.column_names
    if "id" not in names:
        raise DataError(f"{location} has no column id; answers are told apart by it")
    given = table["id"].to_pylist()
    without = [f"row {n}" for n, one in enumerate(given, start=1) if one is None or one == ""]
    if without:
        raise DataError(
            f"{location}: {len(without):,} rows have no id, such as {', '.join(without[:5])}; give each one"
        )
    ids = [str(one) for one in given]
    if twice := [one for one, count in Counter(ids).items() if count > 1]:
        raise DataError(f"{location}: id {twice[0]!r} occurs more than once")
    questions = [q for q in questions_for("", tuple(tasks)) if column_name(q) in names]
    if not questions:
        raise DataError(f"{location} has no column of a known task; it has {', '.join(names[:12])}")
    values, doubts = {}, {}
    for question in questions:
        name = column_name(question)
        column = f"{name}_best" if f"{name}_best" in names else name
        values[name] = _values(question.task, ids, table[column].to_pylist(), f"{location}, {column}", on_bad)
        more = {detail: table[f"{name}_{detail}"].to_pylist() for detail in _TELLING if f"{name}_{detail}" in names}
        if more:
            rows = (dict(zip(more, row, strict=True)) for row in zip(*more.values(), strict=True))
            doubts[name] = [doubt(question.task, **row) for row in rows]
    texts = [text or "" for text in table[text_column].to_pylist()]
    return Annotated(Path(location).name, ids, texts, questions, values, doubts)


_TELLING = ("probabilities", "std", "confidence")


def doubt(task: Task, *, probabilities: Any = None, std: Any = None, confidence: Any = None) -> float | None:
    """How unsure an answer is: the entropy of its probabilities (of a set each label's, summed), the standard deviation
    of a number, or else how far the confidence is from 1. None where nothing tells.

    Entropy, and not the confidence in exactly this set: of GoEmotions' posts the latter picks those that are hard to
    label, the former those with emotions in them (LOG.md).
    """
    if isinstance(probabilities, str):
        probabilities = json.loads(probabilities)
    if probabilities and None not in probabilities.values():
        shares = [float(p) for p in probabilities.values()]
        if task.kind is Kind.LABEL_SET:
            shares += [1 - p for p in shares]
        return -sum(p * math.log(p) for p in shares if p > 0)
    spread = _number(std)
    sure = _number(confidence)
    return spread if spread is not None else None if sure is None else 1 - sure


def read_value(task: Task, cell: Any) -> Value | None:
    """What a cell of any format says; None where it is empty. Raises ValueError where it is no value of the task.

    Label sets are lists, JSON lists, what Label Studio exports (`{"choices": [...]}`), or labels parted by commas; the
    empty set is written as an empty list, or as the task's name for it.
    """
    if cell is None or cell != cell or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(cell, str) and cell.lstrip()[:1] in "[{":
        cell = json.loads(cell)
    if isinstance(cell, dict):
        cell = cell.get("choices", cell)
    value = _in_kind(task, cell)
    task.check_value(value)
    return value


def _in_kind(task: Task, cell: Any) -> Value:
    match task.kind:
        case Kind.REGRESSION:
            return float(cell)
        case Kind.ORDINAL:
            by_phrase = {c.phrase.casefold(): c.value for c in task.classes}
            said = str(cell).strip().casefold()
            return by_phrase[said] if said in by_phrase else int(float(said.partition(":")[0]))
        case Kind.SINGLE_LABEL:
            return str(cell[0] if isinstance(cell, list | tuple) else cell).strip()
        case _:
            if isinstance(cell, list | tuple):
                return tuple(label for label in map(str, cell) if label != task.no_label)
            found = parse_answer(task, str(cell))
            if found is None:
                raise ValueError(f"{cell!r} is not a set of labels of {task.name}")
            return found


def _values(
    task: Task, ids: Sequence[str], cells: Sequence[Any], where: str, on_bad: Callable[[str], None] | None
) -> list[Value | None]:
    found: list[Value | None] = []
    for row, cell in zip(ids, cells, strict=True):
        try:
            found.append(read_value(task, cell))
        except (ValueError, TypeError) as error:
            problem = f"{where}, row {row}: {error}"
            if on_bad is None:
                raise DataError(problem) from None
            on_bad(problem)
            found.append(None)
    return found


def _number(cell: Any) -> float | None:
    return None if cell in (None, "") else float(cell)


def known_tasks(model: str) -> tuple[Task, ...]:
    """The tasks of a model's card, and emollm's own whose columns they leave free."""
    mine = card_tasks(model)
    taken = {column for task in mine for column in task.columns}
    return (*mine, *(task for task in TASKS.values() if not taken & set(task.columns)))

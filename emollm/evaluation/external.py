"""Anybody's predictions: JSON lines or Parquet, with gold and prediction in whatever form they were written.

Columns: `prediction`; `gold`, unless a benchmark folder gives it; and, where there are any, `id`, `text`, `instruction`
(tells task, emotion and text), `task`, `emotion`. Traps that the published outputs show: numbers as strings, classes as
"2: moderate amount of joy can be inferred", labels as "anger, disgust." or as a list, "48: disgust" for an intensity.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from emollm.core.answers import INVALID_ANSWER, from_unit, parse_answer
from emollm.core.errors import ConfigError, DataError, did_you_mean
from emollm.core.tasks import TASKS, Kind, Task, Value, select_tasks
from emollm.data.corpora.example import BadRow, refuse
from emollm.data.corpora.published import Parts, take_apart
from emollm.data.corpora.rows import number
from emollm.metrics.predictions import OUT_OF_RANGE, Prediction
from emollm.metrics.questions import GoldQuestion
from emollm.metrics.scores import split_tasks

Scale = Literal["own", "unit"]

Parser = Literal["strict", "released"]

_VADER = "VADER"
_MANY = 10
"""This many numbers are not all in 0..1 by chance."""
_WORD = re.compile(r"\w+")
_MINUS = str.maketrans("\N{MINUS SIGN}\N{EN DASH}\N{FULLWIDTH HYPHEN-MINUS}", "---")
"""Typographic signs that stand for a minus before a number."""
_FIRST_NUMBER = re.compile(r"(?:(?<!\w)([+-])\s*)?(\d+\.?\d*|\.\d+)")


class RawValue(NamedTuple):
    """What a raw prediction says: a value, or a number that is not one (`out_of_range_value`), or neither."""

    value: Value | None = None
    out_of_range_value: float | None = None


def read_raw(task: Task, raw: object, scale: Scale = "own") -> RawValue:
    """A number, a numeric string, a class or label string or a list of labels as a value of the task.

    A regression's numbers, golds included, are in the task's own range, or with scale "unit" in 0..1.
    """
    if isinstance(raw, list | tuple):
        none = task.no_label or ""
        return read_raw(task, ", ".join(map(str, raw)) or none, scale)
    if raw is None or isinstance(raw, bool):
        return RawValue()
    text = str(raw).strip()
    if task.kind in (Kind.SINGLE_LABEL, Kind.LABEL_SET):
        return RawValue(parse_answer(task, text))
    found = _number(text.partition(":")[0] if task.kind is Kind.ORDINAL else text.removesuffix("."))
    if found is None:
        # "48: disgust" for an intensity: no number that could be clipped, but an answer to something else.
        return RawValue()
    if task.kind is Kind.ORDINAL:
        # "2.0" in a table of floats is the class 2; 1.4 is not a class.
        value = parse_answer(task, f"{found:.0f}") if found == round(found) else None
    else:
        assert task.low is not None and task.high is not None
        found = from_unit(task, found) if scale == "unit" else found
        value = found if task.low <= found <= task.high else None
    return RawValue(value) if value is not None else RawValue(out_of_range_value=found)


def read_released(task: Task, raw: object, scale: Scale = "own") -> Value:
    """An answer as the released scorer of arXiv 2401.08508 reads it: always a value, whatever was written.

    A number or class is the first number of the text, clipped to the range (a class: the nearest); without any
    number it is the middle of the range, or the class nearest to 0. A label set is the labels that are named, and a
    single label the first that is named, or the task's first.
    """
    text = ", ".join(map(str, raw)) if isinstance(raw, list | tuple) else "" if raw is None else str(raw)
    if task.kind in (Kind.SINGLE_LABEL, Kind.LABEL_SET):
        written = {part.strip(" .").casefold() for part in text.split(",")}
        named = tuple(label for label in task.labels if label.casefold() in written)
        return named if task.kind is Kind.LABEL_SET else (named or task.labels)[0]
    found = _FIRST_NUMBER.search(text.translate(_MINUS))
    number_written = float((found[1] or "") + found[2]) if found else None
    if task.kind is Kind.ORDINAL:
        return min((c.value for c in task.classes), key=lambda value: abs(value - (number_written or 0.0)))
    assert task.low is not None and task.high is not None
    if number_written is None:
        return from_unit(task, 0.5)
    own = from_unit(task, number_written) if scale == "unit" else number_written
    return min(max(own, task.low), task.high)


class Told(NamedTuple):
    """What a row says of itself."""

    task: Task
    emotion: str | None
    text: str


class Row(NamedTuple):
    line: int
    cells: Mapping[str, Any]
    told: Told


def read_external(
    path: Path,
    *,
    task: str | None = None,
    tasks: Sequence[str] | None = None,
    scale: Scale | None = None,
    parser: Parser = "strict",
    golds: Sequence[GoldQuestion] | None = None,
) -> list[Prediction]:
    """The predictions of one file. `task` names its task unless a column does; rows of other tasks are left out.

    `parser` is how predictions are read; golds are always read strictly.
    `golds` are the questions of a benchmark: they take the place of a gold column, and are matched by id where the
    file has ids, by place where it has none. Raises DataError listing rows without a gold, of another task, emotion or
    text than the benchmark's, of an unknown id, or too few; and numbers all in 0..1 of a task with another range, where
    no `scale` says which is meant.
    """
    known = {**TASKS, **{question.task.name: question.task for question in golds or ()}}
    if task is not None and task not in known:
        hint = did_you_mean([task], known)
        raise ConfigError(f"unknown task {task!r}; {hint}choose from: {', '.join(known)}")
    wanted = known.keys() if tasks is None else {one.name for one in select_tasks(tasks, known)}
    bad: list[BadRow] = []
    found: list[Row] = []
    questions: list[GoldQuestion] = []
    for line, cells in _rows(path):
        try:
            row = Row(line, cells, _told(cells, task, known))
            if row.told.task.name not in wanted:
                continue
            found.append(row)
            if golds is None:
                questions.append(_own_question(row, scale or "own"))
        except ValueError as error:
            bad.append(BadRow(path=str(path), line=line, value=str(cells)[:120], reason=str(error)))
    refuse(bad)
    if not found:
        raise DataError(f"{path} holds no prediction" + (f" of {', '.join(tasks)}" if tasks else ""))
    if golds is not None:
        questions = _matched(path, found, golds)
    raw = [row.cells["prediction"] for row in found]
    answers = [_prediction(q, one, scale or "own") for q, one in zip(questions, raw, strict=True)]
    if scale is None:
        _check_scale(path, answers)
    if parser == "released":
        return [
            Prediction(question=q, value=read_released(q.task, one, scale or "own"))
            for q, one in zip(questions, raw, strict=True)
        ]
    return answers


def _check_scale(path: Path, answers: Sequence[Prediction]) -> None:
    for name, mine in split_tasks(answers).items():
        task = mine[0].question.task
        values = [
            v for a in mine if isinstance(v := a.value if a.out_of_range_value is None else a.out_of_range_value, float)
        ]
        is_unit = len(values) >= _MANY and all(0 <= value <= 1 for value in values)
        if task.kind is Kind.REGRESSION and (task.low, task.high) != (0.0, 1.0) and is_unit:
            raise DataError(
                f"{path}: all {len(values):,} predictions of {name} are in 0..1, its range is {task.low:g}.."
                f"{task.high:g}; pass --scale unit, or --scale own if they are meant so"
            )


def _prediction(question: GoldQuestion, raw: object, scale: Scale) -> Prediction:
    value, out_of_range_value = read_raw(question.task, raw, scale)
    if value is not None:
        return Prediction(question=question, value=value)
    error = INVALID_ANSWER if out_of_range_value is None else OUT_OF_RANGE
    return Prediction(
        question=question, value=None, out_of_range_value=out_of_range_value, error=error, text=str(raw)[:200]
    )


def _told(cells: Mapping[str, Any], named: str | None, known: Mapping[str, Task]) -> Told:
    """Raises ValueError with what is wrong."""
    if "prediction" not in cells:
        raise ValueError("no `prediction`")
    parts = _parts(cells.get("instruction"))
    told = cells.get("task") or (parts.task if parts and parts.task != _VADER else None)
    if named and told and told != named:
        raise ValueError(f"a row of {told}; this is --task {named}")
    if not (named or told):
        raise ValueError("of which task? pass --task, or give a column `task`")
    name = str(named or told)
    if name not in known:
        raise ValueError(f"unknown task {name!r}")
    if parts and parts.task == _VADER and not name.startswith(_VADER):
        raise ValueError(f"a row of {_VADER}; this is --task {name}")
    emotion = cells.get("emotion") or (parts.emotion if parts else None)
    text = str(cells.get("text") or (parts.text if parts else ""))
    return Told(known[name], emotion if known[name].emotions else None, text)


def _own_question(row: Row, scale: Scale) -> GoldQuestion:
    """The question of a row that brings its own gold. Raises ValueError with what is wrong."""
    (task, emotion, text), raw = row.told, row.cells.get("gold")
    if task.emotions and emotion not in task.emotions:
        raise ValueError(
            f"which emotion? {emotion!r} in `emotion` and `instruction`; one of {', '.join(task.emotions)}"
        )
    if raw is None or raw == "":
        raise ValueError("no `gold`")
    gold = read_raw(task, raw, scale).value
    if gold is None:
        why = "--scale unit says that golds, too, are in 0..1" if scale == "unit" else "a file of another task?"
        raise ValueError(f"gold {raw!r} is not a value of {task.name}: {why}")
    return GoldQuestion(id=str(row.cells.get("id", row.line)), task=task, emotion=emotion, text=text, gold=gold)


def _matched(path: Path, found: Sequence[Row], golds: Sequence[GoldQuestion]) -> list[GoldQuestion]:
    """The benchmark's question of each row."""
    names = list(dict.fromkeys(row.told.task.name for row in found))
    golds = [question for question in golds if question.task.name in names]
    if not golds:
        raise DataError(f"the benchmark has no row of {', '.join(names)}")
    if any("id" in row.cells for row in found):
        matched = _by_id(path, found, golds)
    elif len(found) == len(golds):
        matched = list(golds)
    else:
        raise DataError(
            f"{path} has {len(found):,} predictions without ids, the benchmark {len(golds):,} rows of "
            f"{', '.join(names)}; give each row its `id`, or one prediction per row in the benchmark's order"
        )
    refuse(
        [
            BadRow(path=str(path), line=row.line, value=str(row.cells)[:120], reason=reason)
            for row, question in zip(found, matched, strict=True)
            if (reason := _contradiction(row.told, question))
        ]
    )
    return matched


def _by_id(path: Path, found: Sequence[Row], golds: Sequence[GoldQuestion]) -> list[GoldQuestion]:
    by_id = {question.id: question for question in golds}
    lines: dict[str, int] = {}
    bad: list[BadRow] = []
    for row in found:
        key = str(row.cells.get("id"))
        reason = (
            "no row of the benchmark has this id" if key not in by_id
            else f"id seen before, on line {lines[key]}" if key in lines
            else ""
        )  # fmt: skip
        lines.setdefault(key, row.line)
        if reason:
            bad.append(BadRow(path=str(path), line=row.line, value=key, reason=reason))
    refuse(bad)
    if missing := [key for key in by_id if key not in lines]:
        shown = ", ".join(missing[:3])
        raise DataError(f"{path} lacks predictions for {len(missing):,} of {len(by_id):,} rows: {shown}, ...")
    return [by_id[str(row.cells["id"])] for row in found]


def _contradiction(told: Told, question: GoldQuestion) -> str:
    """Why a row cannot be the benchmark's question; empty where it can."""
    theirs = f"the benchmark's row {question.id!r} is"
    if told.task.name != question.task.name:
        return f"a row of {told.task.name}; {theirs} of {question.task.name}"
    if told.emotion and told.emotion != question.emotion:
        return f"a row of {told.emotion}; {theirs} of {question.emotion}"
    # Releases differ in case, quotes, brackets and encoding: half of the words is enough, and no other row has them.
    mine, other = (set(_WORD.findall(text.casefold())) for text in (told.text, question.text))
    if mine and other and 2 * len(mine & other) < min(len(mine), len(other)):
        return f"another text; {theirs} {question.text[:60]!r}"
    return ""


def _parts(instruction: object) -> Parts | None:
    """The parts of an instruction, with whatever layout stands around it."""
    if not isinstance(instruction, str):
        return None
    start = max(instruction.find("Task: "), 0)
    return take_apart(instruction[start:].partition("\n\nAssistant:")[0])


def _number(text: str) -> float | None:
    """A finite number; a typographic minus and a blank behind the sign are those of a number all the same."""
    try:
        found = number(re.sub(r"^([+-])\s+", r"\1", text.strip().translate(_MINUS)))
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def parquet_columns(path: Path) -> list[str]:
    """Raises DataError for another file."""
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"predictions {path} cannot be read: {str(error).splitlines()[0]}") from None


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Numbered rows; raises DataError for a file that is neither JSON lines nor Parquet."""
    try:
        if path.suffix == ".parquet":
            yield from enumerate(pq.read_table(path).to_pylist(), start=1)
            return
        text = path.read_text(encoding="utf-8")
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"predictions {path} cannot be read: {str(error).splitlines()[0]}") from None
    for line, raw in enumerate(text.split("\n"), start=1):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{line}: {raw[:80]!r} is not a JSON object; give JSON lines, or Parquet")
        yield line, row

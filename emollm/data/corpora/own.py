"""A user's own labels: a TOML file that describes the columns of a CSV, JSON lines or Parquet file.

Format page: docs/data.md#your-own-labels. The TOML names the data file, its text column and one or more
`[[task]]`; a task has the fields of every task (see `tasks.toml`) and names the column with its label.
Missing fields have defaults, including the wordings. The tasks are stored in the data folder and later in the
model, so no job needs them as an option.

Traps: an unclosed quote in CSV would swallow rows, and is refused; equal texts in both splits would make scores too
high, so the split is drawn by text.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from emollm.core.errors import ConfigError, DataError
from emollm.core.options import Config
from emollm.core.prompts import as_context
from emollm.core.short_tasks import complete_task
from emollm.core.tasks import Kind, Task, Value, clashing_columns, problems
from emollm.data.corpora.example import BadRow, Example, hand_over
from emollm.data.corpora.own_tasks import LIST_END, TRUTHS, parse_label
from emollm.data.corpora.rows import Label, Rows, read_bytes
from emollm.data.files.columns import CARRIED, CARRIED_JSON, INVALID_UTF8, Columns, reading
from emollm.data.files.formats import format_of
from emollm.data.files.inputs import find_files
from emollm.data.files.readers import column_names, count_rows, read_rows

_REASONS = {INVALID_UTF8: "not UTF-8"}
_SPLITS = {"train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev", "test": "test"}
Split = Literal["train", "dev", "validation", "test"]


class LabelColumns(Config):
    """Where the label of a task is."""

    column: str | None = None
    """The column with the label."""
    columns: dict[str, str] = Field(default_factory=dict)
    """One column per emotion, or for a label set one 0/1 column per label: `{ joy = "joy_rating" }`."""
    emotion_column: str | None = None
    """The column with the emotion that `column` is about: one row per text and emotion."""
    raters: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    """One column per rater, `["anna", "ben"]`, or a list per emotion; an empty cell means not rated."""
    counts: dict[str, str] = Field(default_factory=dict)
    """For classes and single labels, the columns with the number of raters for each: `{ calm = "n_calm" }`."""
    separator: str = ","
    """Separator of the labels of a set in a cell."""
    blank: Literal["refuse", "skip", "unlabelled"] = "refuse"
    """Whether an empty label is a bad row (refuse) or means not labelled (skip); in a label set it is the empty set.
    unlabelled: it is not labelled in a label set either, whose empty set is written as the task's `no_label`."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(map(bool, (self.column, self.columns, self.raters, self.counts))) != 1:
            raise ValueError("give one of `column`, `columns`, `raters` and `counts`")
        if self.emotion_column and not self.column:
            raise ValueError("`emotion_column` goes with `column`")
        return self


class OwnData(Config):
    """The head of the TOML file."""

    file: str | dict[Split, str]
    """The data file, relative to the TOML's folder; or one per split: `{ train = "a.csv" }`. Formats: docs/data.md."""
    text: str
    """Column of the text."""
    context: str | None = None
    """Column with what comes before the text: text, or a list of earlier posts, oldest first. None: there is none."""
    target: str | None = None
    """Column with the name or aspect that the labels are about. None: there is none."""
    id: str | None = None
    """Column of the row's id; None: the line number."""
    split: str | None = None
    """Column with train, validation or test; None: the split is drawn, see `validation`."""
    validation: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of texts drawn into validation if no split is given."""
    encoding: str | None = None
    """Encoding of the data file, such as "windows-1252"; None: UTF-8, or UTF-16 and UTF-32 if detected."""
    delimiter: str | None = None
    """Delimiter of a CSV file; None: comma, semicolon or tab, detected from the first line."""
    source: str = Field("own", pattern=r"^[A-Za-z0-9._-]+$")
    """A name for the corpus, part of each row's id."""


class OwnExamples(NamedTuple):
    """The result of `read_own`."""

    examples: list[Example]
    tasks: tuple[Task, ...]
    files: list[Path]
    unlabelled: int
    """Empty labels left out by `blank = "skip"`."""


def read_own(path: Path, *, seed: int = 123, bad: list[BadRow] | None = None) -> OwnExamples:
    """All examples that the TOML at `path` describes; `seed` is the seed of the split.

    Bad rows are added to `bad`, or refused together where it is None. Raises ConfigError for a wrong TOML.
    """
    data, tasks = read_own_toml(path)
    files = {"": data.file} if isinstance(data.file, str) else {str(s): name for s, name in data.file.items()}
    collected: list[BadRow] = []
    examples: list[Example] = []
    unlabelled = 0
    for split, name in files.items():
        rows = Rows(path.parent / name, source=data.source, split=_SPLITS.get(split, ""), bad=collected)
        rows.labels_per_row = sum(_labels_per_row(task, where) for task, where in tasks)
        unlabelled += _read_file(rows, data, tasks, seed)
        examples += rows.examples
    hand_over(collected, bad)
    labelled = {example.task for example in examples}
    if empty := [task.name for task, _ in tasks if task.name not in labelled]:
        hand_over(collected, None)  # the bad rows, if there are any, are the reason
        raise DataError(f"{path}: no row has a label for {', '.join(empty)}; see {', '.join(files.values())}")
    paths = [path.parent / name for name in files.values()]
    return OwnExamples(examples, tuple(task for task, _ in tasks), paths, unlabelled)


def read_own_toml(path: Path) -> tuple[OwnData, list[tuple[Task, LabelColumns]]]:
    """Only the description; raises ConfigError naming the file and each field that is wrong."""
    try:
        entries = tomllib.loads(read_bytes(path).decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a readable TOML file: {error}") from None
    task_entries = entries.pop("task", [])
    if not isinstance(task_entries, list) or not task_entries:
        raise ConfigError(f"{path} has no [[task]]; docs/data.md#your-own-labels has an example")
    where = str(path)
    try:
        data = OwnData.model_validate(entries)
        tasks: list[tuple[Task, LabelColumns]] = []
        for number, entry in enumerate(task_entries, start=1):
            where = f"{path}, task {number} ({entry.get('name', 'unnamed')})"
            columns = LabelColumns.model_validate({k: entry.pop(k) for k in LabelColumns.model_fields if k in entry})
            if columns.counts and entry.get("kind") == Kind.SINGLE_LABEL:
                entry.setdefault("labels", list(columns.counts))
            by_emotion = columns.raters if isinstance(columns.raters, dict) else {}
            task = complete_task(entry, columns.columns or dict.fromkeys(by_emotion, ""))
            if columns.counts and task.kind not in (Kind.ORDINAL, Kind.SINGLE_LABEL):
                raise ConfigError(f"counts: not for a {task.kind}; give `raters`, one column per rater")
            tasks.append((task, columns))
    except ValidationError as error:
        raise ConfigError(f"{where}: {problems(error, 'it')}; see docs/data.md#your-own-labels") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    names = [task.name for task, _ in tasks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: task {', '.join(twice)} occurs twice")
    if clash := clashing_columns(task for task, _ in tasks):
        raise ConfigError(f"{path}: {clash}")
    return data, tasks


def _labels_per_row(task: Task, where: LabelColumns) -> int:
    by_emotion = where.columns or (where.raters if isinstance(where.raters, dict) else ())
    return len(by_emotion) if task.emotions and by_emotion else 1


def _read_file(rows: Rows, data: OwnData, tasks: list[tuple[Task, LabelColumns]], seed: int) -> int:
    """Fill `rows`; return the number of skipped empty labels."""
    wanted = [data.text, *filter(None, (data.id, data.split, data.context, data.target))]
    for _, where in tasks:
        wanted += [*filter(None, (where.column, where.emotion_column)), *where.columns.values()]
        wanted += [*where.counts.values(), *(c for _, columns in _raters(where) for c in columns)]
    # With one row per text and emotion, only both together are unique.
    by_emotion = [where.emotion_column for _, where in tasks if where.emotion_column]
    unlabelled = 0
    for line, cells in _records(rows, data, list(dict.fromkeys(wanted))):
        text = cells[data.text]
        split = rows.split or (_SPLITS.get(cells[data.split].strip().lower()) if data.split else "")
        if split is None:
            assert data.split
            rows.reject(line, cells[data.split], f"unknown split; choose from: {', '.join(_SPLITS)}")
            continue
        row_id = ".".join([cells[data.id], *(cells[column] for column in by_emotion)]) if data.id else str(line)
        labels = [label for task, where in tasks for label in _labels(task, where, cells)]
        unlabelled += rows.labels_per_row - len(labels)
        context, target = (_beside(cells[column]) if column else "" for column in (data.context, data.target))
        split = split or _draw(text, data.validation, seed)
        rows.add(line=line, id=row_id, text=text, labels=labels, split=split, context=context, target=target)
    return unlabelled


def _beside(cell: str) -> str:
    return as_context(cell.split(LIST_END) if LIST_END in cell else cell)


def _labels(task: Task, where: LabelColumns, cells: Mapping[str, str]) -> Iterator[Label]:
    parse = partial(parse_label, task, separator=where.separator)
    if where.raters or where.counts:
        yield from _rated(task, where, cells, parse)
        return
    if where.column:
        emotion = cells[where.emotion_column].strip() if where.emotion_column else None
        found = [(emotion, cells[where.column])]
    elif task.emotions:
        found = [(emotion, cells[column]) for emotion, column in where.columns.items()]
    else:
        marks = {label: cells[column].strip() for label, column in where.columns.items()}
        # Any other mark is passed on unchanged and refused as a label.
        marks = {label: TRUTHS.get(mark.casefold(), mark) for label, mark in marks.items()}
        chosen = [label if mark in ("1", "1.0") else mark for label, mark in marks.items() if mark not in ("0", "0.0")]
        found = [(None, where.separator.join(chosen))]
    for emotion, raw in found:
        if raw.strip() or where.blank == "refuse" or (task.kind is Kind.LABEL_SET and where.blank == "skip"):
            yield Label(task, raw, parse, emotion)


def _raters(where: LabelColumns) -> list[tuple[str | None, tuple[str, ...]]]:
    """Emotion and the columns of its raters."""
    if isinstance(where.raters, dict):
        return list(where.raters.items())
    return [(None, where.raters)] if where.raters else []


def _rated(task: Task, where: LabelColumns, cells: Mapping[str, str], parse: Any) -> Iterator[Label]:
    """The labels of several raters; none if nobody rated the text and that is allowed."""
    for emotion, columns in _raters(where):
        given = [cells[column] for column in columns]
        raters = tuple(cell for cell in given if cell.strip())
        if raters or where.blank == "refuse":
            yield Label(task, " | ".join(given), parse if raters else _nobody, emotion, raters)
    if where.counts:
        counts = {name: cells[column].strip() or "0" for name, column in where.counts.items()}
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        if not all(re.fullmatch(r"\d+(\.0+)?", count) for count in counts.values()):
            yield Label(task, told, _no_count)
            return
        raters = tuple(name for name, count in counts.items() for _ in range(int(float(count))))
        if raters or where.blank == "refuse":
            yield Label(task, told, parse if raters else _nobody, None, raters)


def _nobody(_raw: str) -> Value:
    raise ValueError('no rater; if that means not labelled, set blank = "skip"')


def _no_count(_raw: str) -> Value:
    raise ValueError("a count must be an integer of at least 0")


def _draw(text: str, validation: float, seed: int) -> str:
    """The split of a text, by its hash, so that it does not depend on file or order and copies share it."""
    digest = hashlib.sha256(f"{seed}\0{text.casefold().strip()}".encode()).digest()
    return "dev" if int.from_bytes(digest[:8]) < validation * 2**64 else "train"


def _records(rows: Rows, data: OwnData, wanted: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line (Parquet: row) number and cells as text; missing columns are a bad row."""
    if format_of(rows.path) not in ("csv", "json", "parquet"):
        raise ConfigError(f"{rows.path}: a data file ends in .csv, .jsonl or .parquet, not {rows.path.suffix!r}")
    how = reading(data.encoding, data.delimiter)
    filesystem, (file,) = find_files(str(rows.path), how)
    names = column_names(filesystem, file, how, data.text)
    columns = Columns(id=None, text=data.text, carry=tuple(n for n in wanted if n != data.text), reading=how)
    if missing := [name for name in wanted if name not in names]:
        known = Columns(id=None, text=data.text if data.text in names else names[0], reading=how) if names else None
        lost = count_rows(filesystem, file, known) if known else 0
        rows.reject_file(names, f"no column {', '.join(missing)}", rows=lost)
        return
    for table in read_rows(filesystem, file, columns):
        carried = {name: _cells(table, name) for name in columns.carry}
        posts = zip(table["place"].to_pylist(), table["text"].to_pylist(), table["problem"].to_pylist(), strict=True)
        for n, (line, text, problem) in enumerate(posts):
            cells = {name: column[n] for name, column in carried.items()} | {data.text: text or ""}
            if problem:
                rows.reject(line, text or "", _REASONS.get(problem, problem))
            elif any(cell.strip() for cell in cells.values()):
                yield line, cells


def _cells(table: Any, name: str) -> list[str]:
    if CARRIED_JSON + name in table.column_names:
        return ["" if cell is None else _as_text(json.loads(cell)) for cell in table[CARRIED_JSON + name].to_pylist()]
    return [_as_text(cell) for cell in table[CARRIED + name].to_pylist()]


def _as_text(cell: object) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return str(cell).lower()
        case list() | tuple():
            return "".join(f"{item}{LIST_END}" for item in cell)
        case _:
            return str(cell)

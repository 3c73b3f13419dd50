"""The review file: what a person labels, and its labels as own data for the next training.

A row is a post: `id`, `text`, `why`, `score`; of each question `guess_` and its name, the model's answer, and an empty
column of the question's name to be filled in. Labelling tools take it as a table or as JSON lines and give it back with
those columns filled.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emollm.core.errors import DataError
from emollm.core.folders import new_folder, write_run
from emollm.core.prompts import Question, column_name
from emollm.core.tasks import TASKS, Kind, Task, Value
from emollm.review.annotated import Annotated, read_annotated
from emollm.review.pick import Picked

LABELS_FILE, TOML_FILE = "labels.csv", "labels.toml"


def write_review(posts: Annotated, picked: Sequence[Picked], out: Path) -> None:
    """By its ending a .parquet, .csv or .jsonl file."""
    rows = [_row(posts, one) for one in picked]
    out.parent.mkdir(parents=True, exist_ok=True)
    match out.suffix:
        case ".csv":
            _write_csv(out, rows)
        case ".jsonl":
            out.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
        case ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            names = list(rows[0]) if rows else ["id", "text"]
            columns = {name: pa.array([row[name] for row in rows]) for name in names}
            nulls = {name: pa.array(column.to_pylist(), pa.string()) for name, column in columns.items()
                     if pa.types.is_null(column.type)}  # fmt: skip
            pq.write_table(pa.table({**columns, **nulls}), out)
        case _:
            raise DataError(f"--out {out}: a review file ends in .parquet, .csv or .jsonl")


def merge_reviews(
    paths: Sequence[Path], tasks: Iterable[Task], out: Path, *, overwrite: bool = False
) -> dict[str, int]:
    """The labels of filled-in review files as own data: labels.csv and labels.toml, which `build-data own` takes.

    A file is a person: a question that several of them label gets a column per person, and these are its raters.
    Returns how many labels each question has. Raises DataError naming the cells that are no labels, or where nothing is
    labelled.
    """
    bad: list[str] = []
    tasks = tuple(tasks)
    people = [read_annotated(str(path), tasks, on_bad=bad.append) for path in paths]
    if bad:
        more = f", and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise DataError(f"labels that are none: {'; '.join(bad[:5])}{more}; mend them in the file")
    questions = {column_name(q): q for person in people for q in person.questions}
    rows: dict[str, dict[str, str]] = {}
    labelled: dict[str, dict[str, int]] = {}
    for number, person in enumerate(people, 1):
        for name, values in person.values.items():
            column = f"{name}_{number}" if len(people) > 1 else name
            for one, text, value in zip(person.ids, person.texts, values, strict=True):
                if value is not None:
                    row = rows.setdefault(one, {"id": one, "text": text})
                    row[column] = cell(questions[name].task, value)
                    counts = labelled.setdefault(name, {})
                    counts[column] = counts.get(column, 0) + 1
    if not labelled:
        raise DataError(f"no label in {', '.join(map(str, paths))}; fill in {', '.join(questions)}")
    columns = {name: list(labelled[name]) for name in questions if name in labelled}
    with new_folder(out, overwrite=overwrite) as folder:
        header = ["id", "text", *(column for each in columns.values() for column in each)]
        _write_csv(folder / LABELS_FILE, [{name: row.get(name, "") for name in header} for row in rows.values()])
        (folder / TOML_FILE).write_text(own_toml([questions[name] for name in columns], columns), encoding="utf-8")
        counts = {name: sum(labelled[name].values()) for name in columns}
        write_run(folder, job="review merge", config={"files": list(map(str, paths))}, labels=counts)
    return counts


def own_toml(questions: Sequence[Question], columns: Mapping[str, Sequence[str]]) -> str:
    """The description that `build-data own` reads; a task of emollm's own goes by its name alone.

    `columns` are those of each question, one per person.
    """
    lines = ["# Labels of reviewed posts: emollm build-data own --data labels.toml --out DIR"]
    lines += [f'file = "{LABELS_FILE}"', 'id = "id"', 'text = "text"', 'source = "review"', "validation = 0.0"]
    for task in dict.fromkeys(question.task for question in questions):
        mine = {q.emotion: columns[column_name(q)] for q in questions if q.task == task}
        lines += ["", "[[task]]", f"name = {json.dumps(task.name)}", 'blank = "unlabelled"', _where(task, mine)]
        if TASKS.get(task.name) != task:
            lines += _definition(task)
    return "\n".join(lines) + "\n"


def _where(task: Task, columns: Mapping[str | None, Sequence[str]]) -> str:
    """Which columns hold a task's labels."""
    several = any(len(each) > 1 for each in columns.values())
    cells = {emotion: json.dumps(each if several else each[0]) for emotion, each in columns.items()}
    if task.emotions:
        named = ", ".join(f"{json.dumps(emotion)} = {column}" for emotion, column in cells.items())
        return f"{'raters' if several else 'columns'} = {{ {named} }}"
    return f"{'raters' if several else 'column'} = {cells[None]}"


def cell(task: Task, value: Value) -> str:
    """A value as a cell of a table: labels joined by commas, the empty set by its name."""
    if task.kind is Kind.LABEL_SET:
        assert isinstance(value, tuple)
        return ", ".join(value) or (task.no_label or "none")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _definition(task: Task) -> list[str]:
    """The fields of a user's own task, as TOML."""
    fields = task.model_dump(mode="json", exclude={"name", "emotions"}, exclude_none=True)
    lines = []
    for name, value in fields.items():
        if name == "classes":
            classes = ", ".join(f"{{ value = {c['value']}, phrase = {json.dumps(c['phrase'])} }}" for c in value)
            lines += [f"classes = [{classes}]"] if value else []
        elif value != []:
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return lines


def _row(posts: Annotated, one: Picked) -> dict[str, Any]:
    row: dict[str, Any] = {"id": posts.ids[one.row], "text": posts.texts[one.row], "why": one.why}
    row["score"] = round(one.score, 4)
    for question in posts.questions:
        value = posts.values[column_name(question)][one.row]
        row[f"guess_{column_name(question)}"] = None if value is None else cell(question.task, value)
    return row | {column_name(question): None for question in posts.questions}


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["id", "text"])
        writer.writeheader()
        writer.writerows(rows)

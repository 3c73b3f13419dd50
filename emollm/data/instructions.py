"""Instruction rows from examples and templates, and the data folder that contains them.

A data folder has `train.parquet`, `validation.parquet` and `run.json` with the manifest; a benchmark folder has
one Parquet file per task instead. A row has its prompt in pieces (see `prompts.Pieces`); joined they are the
instruction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emollm.core.answers import answer_string, to_unit
from emollm.core.errors import ConfigError, DataError
from emollm.core.prompts import Pieces, Question, render
from emollm.core.tasks import TASKS, Kind, Task, Value
from emollm.data.corpora.example import Example
from emollm.data.raters import decode, encode

_WORDS = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), metadata={"about": "source/task[.emotion]/corpus id/template"}),
        pa.field("task", _WORDS),
        pa.field("emotion", _WORDS, nullable=True),
        pa.field("template", pa.int16(), metadata={"about": "index into the task's templates"}),
        pa.field("prefix", _WORDS),
        pa.field("post", pa.string()),
        pa.field("suffix", _WORDS),
        pa.field("context", pa.string(), metadata={"about": "what comes before the post; null where there is nothing"}),
        pa.field("bridge", _WORDS, metadata={"about": "ours, between context and post"}),
        pa.field("lead", _WORDS, metadata={"about": "ours, between post and target"}),
        pa.field("target", pa.string(), metadata={"about": "what the label is about; null where it is not said"}),
        pa.field("answer", pa.string(), metadata={"about": "the gold value in words; a regression's in 0..1"}),
        pa.field("text", pa.string(), metadata={"about": "the post as its corpus has it"}),
        pa.field("value", pa.float64(), metadata={"about": "gold of a regression (own range) or ordinal, else null"}),
        pa.field("unit", pa.float64(), metadata={"about": "gold of a regression in 0..1, not rounded, else null"}),
        pa.field("labels", pa.list_(pa.string()), metadata={"about": "gold of a single label or label set, else null"}),
        pa.field("source", _WORDS),
        pa.field("split", _WORDS, metadata={"about": "the corpus's own: train, dev or test"}),
        pa.field("file", _WORDS, metadata={"about": "name of the corpus file"}),
        pa.field("line", pa.int32(), metadata={"about": "line of the corpus file, from 1"}),
    ]
)

RATINGS = pa.field("ratings", pa.list_(pa.string()), metadata={"about": "what each rater said, as JSON; else null"})
"""A column that is there where some text has several raters."""


def build_rows(
    examples: Sequence[Example],
    *,
    seed: int,
    templates_per_example: int | None = 10,
    tasks: Mapping[str, Task] = TASKS,
    shuffle: bool = True,
) -> pa.Table:
    """One row for each example and template, in an order determined by `seed`. Columns: `SCHEMA`.

    With fewer templates per example than its task has, each example draws its own, without replacement; None
    uses all; an example with a given template gets that one. Without `shuffle` rows keep the examples'
    order. Raises ConfigError if a task has fewer templates than asked for.
    """
    rng = np.random.default_rng(seed)
    schema = SCHEMA.append(RATINGS) if any(example.ratings for example in examples) else SCHEMA
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for example in examples:
        task = tasks[example.task]
        most = len(task.templates)
        count = most if templates_per_example is None else templates_per_example
        if not 1 <= count <= most:
            raise ConfigError(f"--templates-per-example {count}: task {task.name} has {most} templates")
        question = Question(task, example.text, example.emotion, example.context, example.target)
        if example.template in task.templates:
            chosen = [task.templates.index(example.template)]
        else:
            chosen = np.sort(rng.permutation(most)[:count]).tolist()
        gold = _gold_columns(task, example)
        file = Path(example.path).name
        for template in chosen:
            pieces = render(question, task.templates[template])
            row = {
                "id": f"{example.source}/{question.column}/{example.id}/{template}",
                "task": task.name,
                "emotion": example.emotion,
                "template": template,
                "prefix": pieces.prefix,
                "post": pieces.post,
                "suffix": pieces.suffix,
                "context": example.context or None,
                "bridge": pieces.bridge or None,
                "lead": pieces.lead or None,
                "target": example.target or None,
                "text": example.text,
                **gold,
                "source": example.source,
                "split": example.split,
                "file": file,
                "line": example.line,
                RATINGS.name: encode(example.ratings) or None,
            }
            for name, column in columns.items():
                column.append(row[name])
    table = pa.table({name: pa.array(columns.pop(name), type=schema.field(name).type) for name in schema.names}, schema)
    return table.take(rng.permutation(table.num_rows)) if shuffle else table


PIECES = ("prefix", "post", "suffix", "context", "bridge", "lead", "target")
"""The columns that a prompt is made of."""


def pieces_of(row: Mapping[str, Any]) -> Pieces:
    """The prompt of a row, in pieces."""
    context, target = (f" {row[name]}" if row[name] else "" for name in ("context", "target"))
    return Pieces(
        row["prefix"], row["post"], row["suffix"], context, row["bridge"] or "", row["lead"] or "", target
    )  # fmt: skip


def _gold_columns(task: Task, example: Example) -> dict[str, Any]:
    value = example.value
    gold: dict[str, Any] = {"value": None, "unit": None, "labels": None}
    match task.kind:
        case Kind.REGRESSION:
            gold["value"] = float(value)  # type: ignore[arg-type]
            gold["unit"] = to_unit(task, gold["value"])
        case Kind.ORDINAL:
            gold["value"] = float(value)  # type: ignore[arg-type]
        case Kind.SINGLE_LABEL:
            gold["labels"] = [value]
        case Kind.LABEL_SET:
            gold["labels"] = list(value)  # type: ignore[arg-type]
    return {**gold, "answer": answer_string(task, value, example.emotion)}


def gold_value(task: Task, row: Mapping[str, Any]) -> Value:
    """The gold value of a row in the task's range, classes or labels, from which its answer string was made."""
    match task.kind:
        case Kind.REGRESSION:
            return float(row["value"])
        case Kind.ORDINAL:
            return int(row["value"])
        case Kind.SINGLE_LABEL:
            return str(row["labels"][0])
        case Kind.LABEL_SET:
            return tuple(row["labels"])


def gold_ratings(row: Mapping[str, Any]) -> tuple[Value, ...]:
    """What each rater said, if several did."""
    return decode(row.get(RATINGS.name))


def write_rows(table: pa.Table, path: Path) -> None:
    # Rows of one example are far apart after shuffling; a dictionary with all distinct posts (1.2 MB for
    # AAID, above the default limit of 1 MiB) makes the file five times smaller.
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=64 << 20)


def write_json_lines(table: pa.Table, path: Path, *, conversations: bool) -> None:
    """The rows in the formats of the published data: AAID's `conversations`, or AEB's `instruction` and `output`.

    `id` and `task` are added. An `output` is the answer, but a regression's is a number in its own range.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in _rows(table):
            instruction = pieces_of(row).text
            line: dict[str, Any] = {"id": row["id"], "task": row["task"]}
            if conversations:
                said = (("human", instruction), ("assistant", row["answer"]))
                line["conversations"] = [{"from": who, "value": what} for who, what in said]
            else:
                output = row["answer"] if row["unit"] is None else row["value"]
                line |= {"instruction": instruction, "input": "", "output": output}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def read_rows(folder: Path, split: str) -> pa.Table:
    """The rows of "train" or "validation", or of a benchmark's task; raises DataError naming the command to run."""
    path = folder / f"{split}.parquet"
    if folder.is_file():
        raise DataError(f"{folder} is a file and not a data folder; build one from it: emollm build-data own --help")
    if not path.is_file():
        raise DataError(f"no {path}; build it: emollm build-data aaid --semeval DIR --out {folder}")
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a readable Parquet file ({error}); build it again") from None
    missing = set(SCHEMA.names) - set(table.column_names)
    if missing:
        raise DataError(
            f"{path} lacks the columns {', '.join(sorted(missing))}; is it an emollm data folder of this version? "
            "emollm build-data --help lists how to build one"
        )
    return table

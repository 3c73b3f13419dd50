"""Examples times templates: instruction rows, and the data folder that holds them.

A data folder has `train.parquet`, `validation.parquet` and `run.json` with the manifest. A row keeps its prompt
in pieces (see `prompts.Pieces`); joined they are the instruction.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emollm.answers import answer_string
from emollm.corpora.example import Example
from emollm.errors import ConfigError, DataError
from emollm.prompts import Question, render
from emollm.tasks import TASKS, Task

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
        pa.field("answer", pa.string()),
        pa.field("source", _WORDS),
        pa.field("line", pa.int32(), metadata={"about": "line of the corpus file, from 1"}),
    ]
)


def build_rows(
    examples: Sequence[Example],
    *,
    seed: int,
    templates_per_example: int = 10,
    tasks: Mapping[str, Task] = TASKS,
) -> pa.Table:
    """One row for each example and template, in an order that `seed` fixes. Columns: `SCHEMA`.

    With fewer templates an example than its task has, each example draws its own, without replacement.
    Raises ConfigError if a task has fewer templates than asked for.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for example in examples:
        task = tasks[example.task]
        if not 1 <= templates_per_example <= len(task.templates):
            raise ConfigError(
                f"--templates-per-example {templates_per_example}: task {task.name} has {len(task.templates)} templates"
            )
        question = Question(task, example.text, example.emotion)
        answer = answer_string(task, example.value, example.emotion)
        chosen = np.sort(rng.permutation(len(task.templates))[:templates_per_example])
        for template in chosen.tolist():
            pieces = render(question, task.templates[template])
            rows.append(
                {
                    "id": f"{example.source}/{question.column}/{example.id}/{template}",
                    "task": task.name,
                    "emotion": example.emotion,
                    "template": template,
                    "prefix": pieces.prefix,
                    "post": pieces.post,
                    "suffix": pieces.suffix,
                    "answer": answer,
                    "source": example.source,
                    "line": example.line,
                }
            )
    return pa.Table.from_pylist([rows[i] for i in rng.permutation(len(rows))], schema=SCHEMA)


def write_rows(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def read_rows(folder: Path, split: str) -> pa.Table:
    """The rows of "train" or "validation"; raises DataError naming the command that builds the folder."""
    path = folder / f"{split}.parquet"
    if not path.is_file():
        raise DataError(f"no {path}; build it: python jobs/build_data.py aaid --semeval DIR --out {folder}")
    table = pq.read_table(path)
    missing = set(SCHEMA.names) - set(table.column_names)
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(sorted(missing))}; is it an emollm data folder?")
    return table


def describe(table: pa.Table) -> dict[str, Any]:
    """Counts for the manifest: rows, and rows a task, emotion and template."""
    tasks = table["task"].to_pylist()
    emotions = table["emotion"].to_pylist()
    columns = [f"{t}.{e}" if e else t for t, e in zip(tasks, emotions, strict=True)]
    templates = [f"{t}/{i}" for t, i in zip(tasks, table["template"].to_pylist(), strict=True)]
    return {
        "rows": table.num_rows,
        "questions": dict(sorted(Counter(columns).items())),
        "templates": dict(sorted(Counter(templates).items())),
    }


def file_hashes(examples: Sequence[Example]) -> dict[str, str]:
    """SHA-256 of each corpus file that gave an example."""
    paths = sorted({example.path for example in examples})
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}

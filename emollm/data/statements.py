"""Labels as sentences, true or not: what teaches a language model to answer labels that it has not seen.

Of each text a random part of the labels is asked, each as a sentence in a wording drawn for it, so that what is learnt
is to read the sentence and not to know the label. Yin et al. (2019, arXiv 1909.00161) train on entailment for this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from emollm.core.ask import STATEMENT, statement_task
from emollm.core.errors import ConfigError, DataError
from emollm.core.folders import check_new, read_run
from emollm.core.tasks import Kind, Task
from emollm.data.aaid import BuildConfig, write_folder
from emollm.data.corpora.example import Example
from emollm.data.instructions import build_rows, read_rows
from emollm.data.manifest import describe_wording, file_hashes

WORDINGS = (
    "The writer feels {}",
    "This text expresses {}",
    "There is {} in the text",
    "Whoever wrote this is full of {}",
)
_READERS = ("A reader feels {}", "This text fills its readers with {}")


class StatementsConfig(BuildConfig):
    """Build statements, each true of a text or not, from the labels of a data folder: they teach labels not seen."""

    data: Path
    """Data folder with single labels or label sets."""
    labels_per_text: int = Field(4, ge=2)
    """Labels asked of a text, drawn anew for each: those that hold, at most half, and others."""
    leave_out: tuple[str, ...] = ()
    """Labels that are never asked: to see how a model answers labels that it has not seen."""


def build_statements(config: StatementsConfig) -> dict[str, pa.Table]:
    """Write the data folder; return its tables by split. Raises DataError if the data has no labels."""
    check_new(config.out.absolute(), overwrite=config.overwrite)
    run = read_run(config.data)
    tasks = {task["name"]: Task.model_validate(task) for task in (run or {}).get("tasks", ())}
    labelled = {name: task for name, task in tasks.items() if task.kind in (Kind.SINGLE_LABEL, Kind.LABEL_SET)}
    if not labelled:
        raise DataError(f"{config.data} has no task with labels; emollm build-data --help lists how to build one")
    known = {label for task in labelled.values() for label in task.labels}
    if unknown := [label for label in config.leave_out if label not in known]:
        raise ConfigError(
            f"--leave-out {unknown[0]!r} is no label of {config.data}; choose from: {', '.join(sorted(known))}"
        )
    rng = np.random.default_rng(config.seed)
    examples = {
        split: list(_examples(read_rows(config.data, split).to_pylist(), labelled, config, rng))
        for split in ("train", "validation")
    }
    said = dict.fromkeys(str(example.emotion) for part in examples.values() for example in part)
    task = statement_task(list(said))
    tables = {
        split: build_rows(part, seed=config.seed, templates_per_example=1, tasks={STATEMENT: task})
        for split, part in examples.items()
    }
    files = [config.data / f"{split}.parquet" for split in examples]
    facts = {
        "files": file_hashes(files, roots={"data": config.data}),
        "left_out_labels": list(config.leave_out),
        "wording": describe_wording([task], None),
    }
    write_folder(config, job="statements", tables=tables, tasks=[task], bad=[], facts=facts)
    return tables


def _examples(
    rows: Sequence[Mapping[str, Any]], tasks: Mapping[str, Task], config: StatementsConfig, rng: np.random.Generator
) -> Any:
    seen: set[tuple[Any, ...]] = set()
    for row in rows:
        task = tasks.get(row["task"])
        key = (row["task"], row["text"], row["context"], row["target"])
        if task is None or key in seen:
            continue
        seen.add(key)
        for label in _drawn(task, row["labels"], config, rng):
            wordings = WORDINGS if task.about == "writer" else _READERS
            wording = wordings[rng.integers(len(wordings))].format(label)
            yield Example(
                id=f"{row['id'].rsplit('/', 1)[0]}/{label}",
                text=row["text"],
                task=STATEMENT,
                emotion=_described(task, label) or wording,
                value="yes" if label in row["labels"] else "no",
                source=row["source"],
                split=row["split"],
                path=row["file"],
                line=row["line"],
                context=row["context"] or "",
                target=row["target"] or "",
            )


def _drawn(task: Task, holding: Sequence[str], config: StatementsConfig, rng: np.random.Generator) -> list[str]:
    """Some labels of one text: up to half of them hold."""
    asked = [label for label in task.labels if label not in config.leave_out]
    true = [label for label in asked if label in holding]
    false = [label for label in asked if label not in holding]
    some = [true[i] for i in rng.permutation(len(true))[: config.labels_per_text // 2]]
    return some + [false[i] for i in rng.permutation(len(false))[: config.labels_per_text - len(some)]]


def _described(task: Task, label: str) -> str | None:
    return task.descriptions[task.labels.index(label)].strip().removesuffix(".") if task.descriptions else None

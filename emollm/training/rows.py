"""The rows of a data folder that a run trains on, and those it holds out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from emollm.core.errors import DataError
from emollm.core.folders import read_run
from emollm.core.tasks import Task, select_tasks
from emollm.data.instructions import read_rows
from emollm.training.options import TrainConfig


def training_rows(config: TrainConfig, split: str = "train") -> pa.Table:
    """The rows of the data folder that this run trains on, or may validate on, in their order.

    Raises DataError if a row has no answer.
    """
    assert config.data is not None
    table = read_rows(config.data, split)
    if config.tasks is not None:
        names = [task.name for task in select_tasks(config.tasks, data_tasks(config.data))]
        table = table.filter(pc.is_in(table["task"].cast(pa.string()), pa.array(names)))
    if config.num_wordings is not None:
        table = table.filter(pc.less(table["template"], config.num_wordings))
    if split == "train":
        table = table.slice(0, config.max_rows)
    blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(table["answer"]), ""), True)
    if pc.any(blank).as_py():
        first = table.filter(blank)["id"][0].as_py()
        raise DataError(
            f"{config.data}/{split}.parquet: row {first} has no answer ({pc.sum(blank).as_py():,} such rows); "
            "build the data again"
        )
    return table


def data_tasks(folder: Path) -> tuple[Task, ...]:
    """The tasks of a data folder, as `build_data` recorded them."""
    return tuple(Task.model_validate(task) for task in (read_run(folder) or {}).get("tasks", []))


def training_tasks(config: TrainConfig) -> tuple[Task, ...]:
    """The tasks that this run trains."""
    assert config.data is not None
    tasks = data_tasks(config.data)
    return tasks if config.tasks is None else select_tasks(config.tasks, tasks)


def training_facts(config: TrainConfig) -> dict[str, Any]:
    """The card's record of how a model was trained."""
    manifest = (read_run(config.data) or {}) if config.data else {}
    options = config.model_dump(mode="json", exclude={"cluster", "overwrite"})
    # Names without the folders of the training machine, since a model directory is copied to others.
    options |= {name: Path(options[name]).name for name in ("data", "out") if options[name]}
    return {
        "data": {split: part.get("rows") for split, part in manifest.get("manifest", {}).items()},
        "config": options,
    }

"""EmoBank's two perspectives as a data folder: what the writer feels and what a reader feels, as tasks of their own."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pydantic import Field

from emollm.core.folders import check_new
from emollm.data.aaid import BuildConfig, settle_bad, write_folder
from emollm.data.corpora.emobank import perspective_tasks, read_perspectives
from emollm.data.corpora.example import BadRow
from emollm.data.instructions import build_rows
from emollm.data.manifest import describe_wording, file_hashes

_SPLITS = {"train": "train", "validation": "dev"}


class PerspectivesConfig(BuildConfig):
    """Build training data of EmoBank's writer and reader apart: six tasks, valence, arousal and dominance of each."""

    emobank: Path = Field()
    """Folder with EmoBank's emobank.csv, writer.csv and reader.csv."""


def build_perspectives(config: PerspectivesConfig) -> dict[str, pa.Table]:
    """Write the data folder; return its tables by split. Raises DataError if a file is missing."""
    check_new(config.out.absolute(), overwrite=config.overwrite)
    bad: list[BadRow] = []
    tasks = perspective_tasks()
    by_name = {task.name: task for task in tasks}
    examples = {name: read_perspectives(config.emobank, split, bad=bad) for name, split in _SPLITS.items()}
    # Both splits read the same three files: a bad row of these is one row.
    bad = list(dict.fromkeys(bad))
    settle_bad(bad, skip=config.skip_bad)
    tables = {
        name: build_rows(part, seed=config.seed, templates_per_example=1, tasks=by_name)
        for name, part in examples.items()
    }
    files = {Path(e.path) for part in examples.values() for e in part}
    write_folder(
        config,
        job="perspectives",
        tables=tables,
        tasks=tasks,
        bad=bad,
        facts={
            "files": file_hashes(sorted(files), roots={"emobank": config.emobank}),
            "wording": describe_wording(tasks, None),
        },
    )
    return tables

"""Corpus folders to data folders: what `jobs/build_data.py` runs."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pydantic import Field

from emollm.config import Config
from emollm.corpora.semeval import read_semeval
from emollm.folders import new_folder, write_run
from emollm.instructions import build_rows, describe, file_hashes, write_rows
from emollm.tasks import TASKS

SAMPLES = Path(__file__).parent / "corpora" / "samples"
"""Corpora written for this project, in the official formats; see the README there."""


class AaidConfig(Config):
    """Build AAID-style instructions for training and validation from SemEval-2018 Task 1."""

    semeval: Path = SAMPLES / "semeval2018"
    """Folder with the official files of any of the five tasks, train and dev; by default the samples in the box."""
    out: Path
    """Data folder to write: train.parquet, validation.parquet, run.json."""
    templates_per_example: int = Field(10, ge=1)
    """Instruction wordings an example is put in; AAID uses all ten of its task."""
    seed: int = 123
    """Seed of the row order, and of the wordings drawn where fewer than all are used."""
    overwrite: bool = False
    """Replace a data folder that is already there."""


def build_aaid(config: AaidConfig) -> dict[str, pa.Table]:
    """Write the data folder; return its tables by split."""
    with new_folder(config.out, overwrite=config.overwrite) as folder:
        tables = {}
        manifest = {}
        for split, name in (("train", "train"), ("dev", "validation")):
            examples = read_semeval(config.semeval, split)
            table = build_rows(examples, seed=config.seed, templates_per_example=config.templates_per_example)
            write_rows(table, folder / f"{name}.parquet")
            tables[name] = table
            manifest[name] = {**describe(table), "files": file_hashes(examples)}
        used = {task for table in tables.values() for task in table["task"].unique().to_pylist()}
        write_run(
            folder,
            job="build_data aaid",
            config=config.model_dump(mode="json"),
            manifest=manifest,
            tasks=[task.model_dump(mode="json") for name, task in TASKS.items() if name in used],
        )
    return tables

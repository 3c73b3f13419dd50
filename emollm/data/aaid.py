"""Corpora to data folders: what `emollm build-data aaid` and `own` run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from emollm.core.errors import ConfigError, DataError
from emollm.core.folders import check_new, new_folder, read_run, write_json, write_run
from emollm.core.options import Config
from emollm.core.tasks import TASKS, Task
from emollm.data.corpora.example import BadRow, Example, refuse
from emollm.data.corpora.own import read_own
from emollm.data.corpora.published import published_files, read_templates
from emollm.data.corpora.semeval import find_semeval, read_semeval
from emollm.data.instructions import build_rows, read_rows, write_json_lines, write_rows
from emollm.data.manifest import describe, describe_bad, describe_wording, file_hashes

SAMPLES = Path(__file__).parent / "corpora" / "samples"
"""Corpora written for this project, in the official formats; see the README there."""

# Examples of the official English files (Mohammad et al., 2018); ten wordings each make 234,040 and 47,120 rows.
OFFICIAL_AAID: Mapping[str, Mapping[str, int]] = {
    "train": {
        **{f"{task}.{emotion}": n for task in ("EI-reg", "EI-oc") for emotion, n in
           (("anger", 1701), ("fear", 2252), ("joy", 1616), ("sadness", 1533))},
        "V-reg": 1181, "V-oc": 1181, "E-c": 6838,
    },
    "validation": {
        **{f"{task}.{emotion}": n for task in ("EI-reg", "EI-oc") for emotion, n in
           (("anger", 388), ("fear", 389), ("joy", 290), ("sadness", 397))},
        "V-reg": 449, "V-oc": 449, "E-c": 886,
    },
}  # fmt: skip


class BuildConfig(Config):
    """Options of every build-data command."""

    out: Path
    """Data folder to write: Parquet files, manifest.json, card.html and run.json."""
    seed: int = 123
    """Seed of the row order and of all random choices."""
    jsonl: bool = False
    """Also write the rows as JSON lines, in the format of the published data."""
    skip_bad: bool = False
    """Leave bad rows out and list them in rejected.jsonl; otherwise nothing is built if there is a bad row."""
    tokenizer: Path | None = None
    """Model folder or tokenizer.json with which the card counts tokens; None: it counts words."""
    overwrite: bool = False
    """Replace an existing data folder."""


class AaidConfig(BuildConfig):
    """Build AAID-style instructions for training and validation from SemEval-2018 Task 1."""

    semeval: Path = SAMPLES / "semeval2018"
    """Folder with the official train and dev files of any of the five tasks; by default the bundled samples."""
    language: Literal["En", "Es", "Ar"] = "En"
    """One of the official languages; the wordings are always English."""
    templates: Path | None = None
    """A published AAID file whose wordings are used instead of ours."""
    templates_per_example: int = Field(10, ge=1)
    """Instruction wordings per example; AAID uses all ten of its task."""


class OwnConfig(BuildConfig):
    """Build instructions from your own labels: CSV, JSON lines or Parquet, described by a TOML file."""

    data: Path
    """The TOML file; docs/data.md has examples."""
    templates_per_example: int | None = Field(None, ge=1)
    """Instruction wordings per example; None: all of its task."""
    also: Path | None = None
    """An earlier data folder whose rows are added to the new labels. If both have a label for a text, the one of --data
    is used. Texts of its validation rows are not used for training."""


def build_aaid(config: AaidConfig) -> dict[str, pa.Table]:
    """Write the data folder; return its tables by split."""
    check_new(config.out.absolute(), overwrite=config.overwrite)
    bad: list[BadRow] = []
    examples: dict[str, list[Example]] = {}
    files: list[Path] = []
    for split, name in (("train", "train"), ("dev", "validation")):
        examples[name] = read_semeval(config.semeval, split, language=config.language, bad=bad)
        files += find_semeval(config.semeval, split, language=config.language).values()
    settle_bad(bad, skip=config.skip_bad)
    tasks = with_templates(TASKS, config.templates, used=used_tasks(examples))
    tables = {
        name: build_rows(found, seed=config.seed, templates_per_example=config.templates_per_example, tasks=tasks)
        for name, found in examples.items()
    }
    official = {split: compare(found, OFFICIAL_AAID[split], "official") for split, found in examples.items()}
    write_folder(
        config,
        job="aaid",
        tables=tables,
        tasks=tasks.values(),
        bad=bad,
        facts={
            "language": config.language,
            "files": file_hashes(
                [*files, *template_files(config.templates)],
                roots={"semeval": config.semeval, "templates": config.templates},
            ),
            "wording": describe_wording(tasks.values(), config.templates),
            "differs_from_official": official
            if config.language == "En" and config.semeval != SAMPLES / "semeval2018"
            else None,
        },
    )
    return tables


def build_own(config: OwnConfig) -> dict[str, pa.Table]:
    """Write the data folder of a user's own labels; return its tables by split."""
    check_new(config.out.absolute(), overwrite=config.overwrite)
    bad: list[BadRow] = []
    found = read_own(config.data, seed=config.seed, bad=bad)
    settle_bad(bad, skip=config.skip_bad)
    tasks = {task.name: task for task in found.tasks}
    also = read_also(config.also, tasks) if config.also else {}
    if "validation" in also:
        known = set(also["validation"]["text"].to_pylist())
        found = found._replace(examples=[e for e in found.examples if e.split != "train" or e.text not in known])
    tables = {}
    for split, name in (("train", "train"), ("dev", "validation"), ("test", "test")):
        examples = [example for example in found.examples if example.split == split]
        if examples or split != "test":
            tables[name] = build_rows(
                examples, seed=config.seed, templates_per_example=config.templates_per_example, tasks=tasks
            )
        if name in also:
            tables[name] = pa.concat_tables([tables[name], also[name]], promote_options="permissive")
    write_folder(
        config,
        job="own",
        tables=tables,
        tasks=tasks.values(),
        bad=bad,
        facts={
            "files": file_hashes([config.data, *found.files], roots={"data": config.data.parent}),
            "wording": describe_wording(tasks.values(), None) | {"from": f"{config.data.name}, else emollm"},
            "unlabelled": found.unlabelled,
            "also": {"folder": config.also.name, **{n: t.num_rows for n, t in also.items()}} if config.also else None,
        },
    )
    return tables


def read_also(folder: Path, tasks: dict[str, Task]) -> dict[str, pa.Table]:
    """The rows of an earlier data folder by split; its tasks are added to `tasks`.

    Raises DataError if it is not a data folder, or if a task of the same name differs.
    """
    run = read_run(folder)
    if run is None or "tasks" not in run:
        raise DataError(f"--also {folder} is not a data folder of `emollm build-data`")
    for task in map(Task.model_validate, run["tasks"]):
        if tasks.setdefault(task.name, task).model_copy(update={"templates": task.templates}) != task:
            raise DataError(f"--also {folder}: task {task.name} differs from that of --data; rename one")
    return {name: read_rows(folder, name) for name in ("train", "validation") if (folder / f"{name}.parquet").is_file()}


def settle_bad(bad: Sequence[BadRow], *, skip: bool) -> None:
    """Refuse bad rows, unless they are to be skipped, with a hint how to skip them."""
    if skip:
        return
    try:
        refuse(bad)
    except DataError as error:
        raise DataError(f"{error}\nnothing was written; fix them, or leave them out with --skip-bad") from None


def used_tasks(examples: Mapping[str, Sequence[Example]]) -> set[str]:
    used = {example.task for found in examples.values() for example in found}
    if not used:
        raise DataError("no good row is left, so there is nothing to build")
    return used


def with_templates(tasks: Mapping[str, Task], place: Path | None, *, used: Iterable[str]) -> dict[str, Task]:
    """The used tasks, in order, with the wordings of a published file if one is given.

    Raises ConfigError naming the used tasks that the file has no wording of.
    """
    used = set(used)
    chosen = {name: task for name, task in tasks.items() if name in used}
    if place is None:
        return chosen
    templates = read_templates(place)
    lacking = [name for name in chosen if name not in templates]
    if lacking:
        raise ConfigError(f"--templates {place} has no wording of {', '.join(lacking)}; it has: {', '.join(templates)}")
    return {name: reworded(task, templates[name]) for name, task in chosen.items()}


def template_files(place: Path | None) -> list[Path]:
    return published_files(place) if place else []


def reworded(task: Task, templates: Sequence[str]) -> Task:
    return Task.model_validate({**task.model_dump(), "templates": tuple(templates)})


def compare(examples: Sequence[Example], expected: Mapping[str, int], whose: str) -> dict[str, dict[str, int]]:
    """Questions whose number of examples is not the expected one: `{"E-c": {"official": 6838, "here": 6837}}`."""
    here = Counter(f"{e.task}.{e.emotion}" if e.emotion else e.task for e in examples)
    return {
        column: {whose: expected.get(column, 0), "here": here[column]}
        for column in [*expected, *(c for c in here if c not in expected)]
        if expected.get(column, 0) != here[column]
    }


def write_folder(
    config: BuildConfig,
    *,
    job: str,
    tables: Mapping[str, pa.Table],
    tasks: Iterable[Task],
    bad: Sequence[BadRow],
    facts: Mapping[str, Any],
    against: Mapping[str, pa.Table] | None = None,
) -> None:
    """Write tables, manifest, card and, last, run.json into a new folder; all but run.json is deterministic."""
    from emollm.data.datacard import write_card

    tasks = list(tasks)
    manifest = {name: describe(table) for name, table in tables.items()}
    facts = {"seed": config.seed, **facts, "rejected": describe_bad(bad)}
    with new_folder(config.out, overwrite=config.overwrite) as folder:
        for name, table in tables.items():
            write_rows(table, folder / f"{name}.parquet")
            if config.jsonl:
                write_json_lines(table, folder / f"{name}.jsonl", conversations=job != "aeb")
        if config.skip_bad:
            write_rejected(bad, folder / "rejected.jsonl")
        write_json(folder / "manifest.json", {"job": job, **facts, "tables": manifest})
        write_card(
            folder, job=job, tables=tables, tasks=tasks, facts=facts, tokenizer=config.tokenizer, against=against
        )
        write_run(
            folder,
            job=f"build_data {job}",
            config=config.model_dump(mode="json"),
            manifest=manifest,
            facts=facts,
            tasks=[task.model_dump(mode="json") for task in tasks],
        )


def write_rejected(bad: Sequence[BadRow], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in bad:
            record = {
                "file": row.path,
                "line": row.line,
                "value": row.value,
                "reason": row.reason,
                "labels": row.labels,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

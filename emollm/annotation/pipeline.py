"""Annotate a corpus with Ray Data: what `jobs/annotate.py` runs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from emollm.affect_card import CARD_FILE, card_tasks
from emollm.bases import anywhere, model_folder
from emollm.config import ClusterConfig, Config
from emollm.errors import DataError
from emollm.folders import HIDDEN_RUN_FILE, check_new, new_folder, read_run, write_run
from emollm.posts import FORMATS, file_format, read_table
from emollm.scoring.scorer import Engine
from emollm.tasks import select_tasks


class AnnotateConfig(Config):
    """Annotate a corpus of posts with affect columns, into Parquet."""

    model: str
    """Model directory, or a base model by its registry name."""
    input: Path
    """File or folder of posts: Parquet, JSON lines, CSV or plain text (a post a line); .gz is read too."""
    out: Path
    """Folder of Parquet files to write. On a cluster: one that all nodes share."""
    tasks: tuple[str, ...] = ("profile",)
    """Tasks to ask; `profile` is all five of SemEval-2018, eleven questions a post."""
    id_column: str = "id"
    """Column with the id of a post. Plain text has none: there it is the line number."""
    text_column: str = "text"
    """Column with the post."""
    max_posts: int | None = Field(None, ge=1)
    """Annotate only the first so many posts. None: all."""
    engine: Engine = "constrained"
    """How answers are had from the model."""
    batch_size: int = Field(32, ge=1)
    """Posts an actor takes at once; inside, prompts are batched by tokens."""
    overwrite: bool = False
    """Replace an output folder that is already there, whatever it holds."""
    cluster: ClusterConfig = ClusterConfig()
    """Scoring actors, their CPUs and GPUs."""


def annotate_corpus(
    config: AnnotateConfig, *, on_posts: Callable[[int, int], None] = lambda _done, _total: None
) -> dict[str, Any]:
    """Write one row a post; `on_posts` gets (new posts, all posts). Returns the summary, also in `_run.json`.

    Rerunning a finished job does nothing. Raises DataError if `out` holds the output of another job, if the
    input cannot be read, or if ids are missing or occur twice.
    """
    tasks = select_tasks(config.tasks, card_tasks(config.model))
    fingerprint = job_fingerprint(config)
    finished = read_run(config.out)
    if finished and finished.get("fingerprint") == fingerprint:
        return {**finished["summary"], "already_done": True}
    if finished and finished.get("job") == "annotate" and not config.overwrite:
        raise DataError(
            f"{config.out} holds the output of another model, input or set of tasks; "
            "choose another --out, or pass --overwrite to replace it"
        )
    check_new(config.out, overwrite=config.overwrite)
    posts = read_posts(config)
    on_posts(0, posts.num_rows)
    with new_folder(config.out, overwrite=config.overwrite) as folder:
        _score_to(folder, posts, config, tuple(task.name for task in tasks), lambda n: on_posts(n, posts.num_rows))
        summary = summarise(folder)
        if summary["posts"] != posts.num_rows:
            raise DataError(f"{posts.num_rows} posts went in and {summary['posts']} came out; nothing was kept")
        write_run(
            folder,
            job="annotate",
            config=config.model_dump(mode="json"),
            file_name=HIDDEN_RUN_FILE,
            fingerprint=fingerprint,
            summary=summary,
        )
    return summary


def read_posts(config: AnnotateConfig) -> pa.Table:
    """The ids and texts of the input, ids as strings. Raises DataError naming the file and what is wrong with it."""
    if not config.input.exists():
        raise DataError(f"no input at {config.input}")
    files = sorted(p for p in config.input.rglob("*") if p.is_file()) if config.input.is_dir() else [config.input]
    if config.input.is_dir():
        files = [file for file in files if file_format(file)]
        if not files:
            raise DataError(f"{config.input} holds no file of posts ({' '.join('.' + f for f in FORMATS)})")
    tables = []
    for file in files:
        table = read_table(file, text_columns=(config.id_column, config.text_column))
        if file_format(file) == "txt":
            wanted = table
        else:
            for option, column in (("--id-column", config.id_column), ("--text-column", config.text_column)):
                if column not in table.column_names:
                    raise DataError(f"{file} has no column {column!r}; give {option}, one of: {table.column_names}")
            wanted = table.select([config.id_column, config.text_column]).rename_columns(["id", "text"])
        if not (pa.types.is_string(wanted["text"].type) or pa.types.is_large_string(wanted["text"].type)):
            raise DataError(f"{file}: column {config.text_column!r} is {wanted['text'].type}, not text")
        tables.append(wanted.cast(pa.schema([("id", pa.string()), ("text", pa.string())])))
    posts = pa.concat_tables(tables).slice(0, config.max_posts)
    if posts.num_rows == 0:
        raise DataError(f"{config.input} holds no posts")
    if posts["id"].null_count:
        raise DataError(f"{config.input}: {posts['id'].null_count} posts have no {config.id_column}")
    doubles = [
        str(row["values"]) for row in posts["id"].combine_chunks().value_counts().to_pylist() if row["counts"] > 1
    ]
    if doubles:
        raise DataError(f"{config.input}: {len(doubles)} ids occur more than once, such as {', '.join(doubles[:5])}")
    return posts


def _score_to(
    folder: Path, posts: pa.Table, config: AnnotateConfig, tasks: tuple[str, ...], on_posts: Callable[[int], None]
) -> None:
    from emollm.ray_session import check_resources, map_on_actors, quiet_ray_data, ray_session, reports_to, worker_error
    from emollm.scoring.rows import AnnotatePosts

    with ray_session(config.cluster):
        import ray.data

        check_resources(config.cluster, what="scoring actors", reads_data=True)
        quiet_ray_data()
        # At least one block an actor, however few posts there are.
        size = min(config.batch_size, math.ceil(posts.num_rows / config.cluster.num_workers))
        blocks = [posts.slice(i, size) for i in range(0, posts.num_rows, size)]
        with reports_to(on_posts) as queue:
            options = {"model": anywhere(config.model), "engine": config.engine, "tasks": tasks, "reports": queue}
            scored = map_on_actors(ray.data.from_arrow(blocks), AnnotatePosts, options, config.cluster, batch_size=size)
            try:
                scored.write_parquet(str(folder), min_rows_per_file=100_000)
            except ray.exceptions.RayError as error:
                raise worker_error(error, doing="annotation") from None


def summarise(folder: Path) -> dict[str, Any]:
    """Posts, and errors a column, of an annotated folder."""
    files = sorted(folder.glob("*.parquet"))
    names = pq.read_schema(files[0]).names
    errors = {name: 0 for name in names if name.endswith("_error")}
    posts = truncated = 0
    for file in files:
        table = pq.read_table(file, columns=[*errors, "truncated"])
        posts += table.num_rows
        truncated += sum(table["truncated"].to_pylist())
        for name in errors:
            errors[name] += table.num_rows - table[name].null_count
    return {"posts": posts, "truncated": truncated, "errors": errors}


def job_fingerprint(config: AnnotateConfig) -> str:
    """What makes two annotation jobs the same: model, input, tasks, columns and engine; not where or how wide."""
    card = model_folder(config.model) / CARD_FILE
    parts = config.model_dump(mode="json", exclude={"out", "overwrite", "cluster", "batch_size"})
    parts["card"] = card.read_text(encoding="utf-8") if card.is_file() else None
    parts["weights"] = sorted(
        (file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in card.parent.glob("*.safetensors")
    )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

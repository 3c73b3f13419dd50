"""Annotate a file without Ray: in this process, or in one process per core with one thread each."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from emollm.annotation.options import AnnotateConfig
from emollm.core.errors import DataError, ResourceError
from emollm.core.tasks import Task, references, select_tasks
from emollm.data.files.carry import Seen, carried_columns
from emollm.data.files.columns import Columns, Notes
from emollm.data.files.ids import derive_ids, refuse_missing, refuse_repeated
from emollm.data.files.inputs import InputFile
from emollm.data.files.readers import read_rows
from emollm.scoring.calibrated import inner
from emollm.scoring.extras import NO_EXTRAS, Extras
from emollm.scoring.rows import AnnotatePosts, asked_of
from emollm.scoring.server.usage import told

_CHUNK_POSTS = 64
_POSTS_PER_PROCESS = 200
"""A further process takes ten seconds to start, in which one core annotates about this many posts."""

FORMATS = ("parquet", "csv", "jsonl")


def read_posts(source: Any, file: InputFile, columns: Columns, *, max_posts: int | None) -> pa.Table:
    """The whole file: `id` (derived if the file has none), `text`, the carried columns and `problem`."""
    notes, seen, tables, rows = Notes(), Seen(), [], 0
    for table in read_rows(source, file, columns, notes):
        seen.look(table, file.path, columns.carry)
        tables.append(table)
        rows += table.num_rows
        if max_posts is not None and rows >= max_posts:
            break
    if not rows:
        raise DataError(f"{file.path} holds no posts")
    for line in notes.lines():
        print(line, file=sys.stderr)
    if columns.id is not None and file.format != "txt":
        _check_ids(file, columns.id, tables)
    types = seen.common_types(columns.carry, source=file.path)
    return pa.concat_tables([_typed(table, file, types) for table in tables]).slice(0, max_posts).combine_chunks()


def _check_ids(file: InputFile, column: str, tables: Sequence[pa.Table]) -> None:
    """Refuse missing and repeated ids before anything is scored, as the job on Ray does."""
    ids = [(row["id"], row["place"]) for table in tables for row in table.select(["id", "place"]).to_pylist()]
    missing = [f"{file.name}:{place}" for id_, place in ids if id_ is None]
    refuse_missing(file.path, column, len(missing), missing)
    refuse_repeated(file.path, column, Counter(id_ for id_, _ in ids))


def _typed(table: pa.Table, file: InputFile, types: dict[str, pa.DataType]) -> pa.Table:
    derived = derive_ids(file.name, table)
    ids = [given or made for given, made in zip(table["id"].to_pylist(), derived.to_pylist(), strict=True)]
    carried = dict(zip(types, carried_columns(table, types), strict=True))
    return pa.table({"id": pa.array(ids, pa.string()), "text": table["text"], **carried, "problem": table["problem"]})


def annotate_table(
    posts: pa.Table,
    config: AnnotateConfig,
    tasks: Sequence[Task],
    *,
    extras: Extras = NO_EXTRAS,
    processes: int | None = None,
    on_posts: Callable[[int], None] = lambda _: None,
) -> pa.Table:
    """The posts with affect columns, as the job on Ray writes them. `processes` None: by posts, cores and device."""
    options = {
        "model": config.model,
        "tasks": references(tasks),
        "extras": extras,
        **config.scorer_options(),
        **config.row_options(),
    }
    chunks = [posts.slice(start, _CHUNK_POSTS) for start in range(0, posts.num_rows, _CHUNK_POSTS)]
    count = processes or _num_processes(posts.num_rows, engine=options["engine"], device=options.get("device", "cpu"))
    found = []
    for table in _alone(chunks, options) if count == 1 else _side_by_side(chunks, options, count):
        found.append(table)
        on_posts(table.num_rows)
    whole = pa.concat_tables(found)
    # As in the job on Ray, every row has an id.
    index = whole.schema.get_field_index("id")
    return whole.cast(whole.schema.set(index, whole.schema.field(index).with_nullable(False)))


def _num_processes(posts: int, *, engine: str, device: str) -> int:
    if engine == "server":
        return 1  # it keeps servers busy
    if device != "cpu":
        from emollm.models.device import resolve_device

        if resolve_device(device) != "cpu":
            return 1
    return max(1, min(len(os.sched_getaffinity(0)), posts // _POSTS_PER_PROCESS))


def _alone(chunks: Sequence[pa.Table], options: dict[str, Any]) -> Iterator[pa.Table]:
    annotate = AnnotatePosts(**options)
    if check_cost := getattr(inner(annotate.scorer), "check_cost", None):
        tasks = select_tasks(options["tasks"], annotate.scorer.card.tasks)
        check_cost([question for chunk in chunks for question in asked_of(chunk, options["beside"], tasks)])
    yield from map(annotate, chunks)
    if usage := getattr(inner(annotate.scorer), "usage", None):
        print(f"servers: {told(asdict(usage))}", file=sys.stderr)


def _side_by_side(chunks: Sequence[pa.Table], options: dict[str, Any], processes: int) -> Iterator[pa.Table]:
    # Spawned, since a forked torch may hang.
    with concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), _open_in_process, (options,)
    ) as pool:
        try:
            yield from pool.map(_annotate_in_process, chunks)
        except concurrent.futures.process.BrokenProcessPool:
            raise ResourceError(
                "an annotation process died, often because memory ran out; run again with --processes 1, or with --ray"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_annotate: AnnotatePosts
"""Of a process of the pool."""


def _open_in_process(options: dict[str, Any]) -> None:
    global _annotate
    _annotate = AnnotatePosts(**options)


def _annotate_in_process(chunk: pa.Table) -> pa.Table:
    return _annotate(chunk)


def write_table(tables: Iterator[pa.Table], out: Path, file_format: str) -> None:
    """Write a file atomically: Parquet with all types; JSON lines; CSV with lists joined and structs as JSON."""
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            writer: Any = None
            for table in tables:
                if file_format == "jsonl":
                    lines = (json.dumps(row, ensure_ascii=False, default=str) for row in table.to_pylist())
                    stream.write("".join(f"{line}\n" for line in lines).encode())
                    continue
                table = _flat(table) if file_format == "csv" else table
                if writer is None:
                    opened = pq.ParquetWriter if file_format == "parquet" else pyarrow.csv.CSVWriter
                    writer = opened(stream, table.schema)
                writer.write_table(table)
            if writer is not None:
                writer.close()
        partial.replace(out)
    except OSError as error:
        raise ResourceError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _flat(table: pa.Table) -> pa.Table:
    for i, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            values = [None if v is None else _one_cell(v) for v in table[field.name].to_pylist()]
            table = table.set_column(i, field.name, pa.array(values, pa.string()))
    return table


def _one_cell(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)

"""Turns scored blocks into the finished output: files in the order of the input, manifest, report, then the marker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emollm.annotation.column_stats import ColumnStats
from emollm.annotation.identity import SCHEMA_KEY, Identity, fingerprint, output_columns
from emollm.annotation.output import MANIFEST_FILE, REPORT_FILE, ROW, Committed, OutputFolder
from emollm.annotation.page import page
from emollm.annotation.stage import Corpus, read_staged
from emollm.core.errors import DataError
from emollm.core.folders import run_facts
from emollm.core.tasks import Task
from emollm.scoring.extras import Extras

_GROUP_ROWS = 20_000


def declared_schema(identity: Identity, tasks: Sequence[Task], corpus: Corpus, extras: Extras) -> pa.Schema:
    """The columns of every file; the metadata has, as JSON under `emollm`, the identity of the job and its tasks."""
    schema = output_columns(identity, extras).schema(tuple(tasks), corpus.fields())
    about = {
        **identity,
        "fingerprint": fingerprint(identity),
        "definitions": [t.model_dump(mode="json") for t in tasks],
    }
    return schema.with_metadata({SCHEMA_KEY: json.dumps(about).encode()})


def write_parts(
    output: OutputFolder,
    corpus: Corpus,
    committed: Sequence[Committed],
    schema: pa.Schema,
    *,
    file_posts: int,
    see: Callable[[pa.Table], None],
) -> list[dict[str, Any]]:
    """Write `part-*.parquet`, the staged rows with their answers in order, `file_posts` per file.

    `see` gets each file's table. One file's rows are in memory at a time. Returns the manifest's entry for each file.
    Raises DataError if a row is missing; a row that was committed twice, which losing a machine at the wrong moment
    can cause, is kept once.
    """
    given = {"id", "text", *corpus.carried}
    numbered = pa.schema([pa.field(ROW, pa.int64()), *(field for field in schema if field.name not in given)])
    entries = []
    for number, first in enumerate(range(0, corpus.posts, file_posts)):
        stop = min(first + file_posts, corpus.posts)
        paths = [block.path for block in committed if block.low < stop and block.high >= first]
        answers = _rows_between(output, paths, first, stop, numbered).drop_columns([ROW])
        posts = read_staged(output.filesystem, output.posts, corpus, first, stop)
        part = pa.table([*posts.columns, *answers.columns], names=schema.names).cast(schema)
        name = f"part-{number:06}.parquet"
        with output.filesystem.open_output_stream(output.path(name)) as stream:
            pq.write_table(part, stream, compression="zstd", row_group_size=_GROUP_ROWS)
        see(part)
        size = output.filesystem.get_file_info(output.path(name)).size
        entries.append({"file": name, "posts": part.num_rows, "bytes": size})
    return entries


def _rows_between(output: OutputFolder, paths: Sequence[str], first: int, stop: int, schema: pa.Schema) -> pa.Table:
    tables = []
    for path in paths:
        with output.filesystem.open_input_file(path) as opened:
            table = pq.read_table(opened).select(schema.names).cast(schema)
        within = pc.and_(pc.greater_equal(table[ROW], first), pc.less(table[ROW], stop))
        tables.append(table.filter(within))
    if not tables:
        raise _missing(stop - first, first)
    table = pa.concat_tables(tables)
    _, once = np.unique(table[ROW].to_numpy(), return_index=True)
    table = table.take(pa.array(once))
    if table.num_rows != stop - first:
        raise _missing(stop - first - table.num_rows, first)
    return table


def _missing(count: int, first: int) -> DataError:
    return DataError(f"{count:,} posts from row {first:,} on were not scored; run the same command again")


def finish(
    output: OutputFolder,
    corpus: Corpus,
    committed: Sequence[Committed],
    *,
    identity: Identity,
    tasks: Sequence[Task],
    extras: Extras,
    file_posts: int,
    check: Callable[[], None],
    summary: dict[str, Any],
    config: dict[str, Any],
) -> dict[str, Any]:
    """Complete the output; `check` raises if the output does not belong to this run any more. Returns the summary."""
    check()
    output.clear_finished()
    schema = declared_schema(identity, tasks, corpus, extras)
    stats = ColumnStats(tasks)
    files = write_parts(output, corpus, committed, schema, file_posts=file_posts, see=stats.add)
    summary = {**stats.summary(), **summary, "files": len(files), "bytes": sum(file["bytes"] for file in files)}
    output.write_bytes(output.path(REPORT_FILE), page(stats, summary, identity).encode())
    manifest = {
        "posts": corpus.posts,
        "fingerprint": fingerprint(identity),
        "identity": identity,
        "columns": _written_columns(output, files[0]["file"]),
        "errors": summary["errors"],
        "files": files,
    }
    output.write_json(output.path(MANIFEST_FILE), manifest)
    check()
    facts_of_run = {"job": "annotate", **run_facts(), "config": config}
    output.mark_finished(
        {**facts_of_run, "fingerprint": fingerprint(identity), "identity": identity, "summary": summary}
    )
    return summary


def _written_columns(output: OutputFolder, name: str) -> dict[str, str]:
    """The types as a reader of the files sees them: Parquet renames the elements of lists."""
    with output.filesystem.open_input_file(output.path(name)) as opened:
        return {field.name: str(field.type) for field in pq.read_schema(opened)}


def reopen(output: OutputFolder, corpus: Corpus) -> int:
    """Begin an unfinished output with the answers of a finished one, without rows that have an error.

    Returns how many rows are left out.

    The finished output stays unchanged until `finish` replaces it: a retry that stops loses nothing and can continue.
    """
    start = lacking = 0
    for number, table in enumerate(_parts(output)):
        rows = pa.array(np.arange(start, start + table.num_rows), pa.int64())
        answers = table.drop_columns(["id", "text", *corpus.carried])
        kept = answers.add_column(0, ROW, rows).filter(pc.is_null(table["error"]))
        start += table.num_rows
        lacking += table.num_rows - kept.num_rows
        if kept.num_rows:
            output.commit_rows(f"kept_{number:06}", kept.replace_schema_metadata())
    output.keep_scored(start - lacking)
    output.mark_retried()
    return lacking


def _parts(output: OutputFolder) -> Iterator[pa.Table]:
    manifest = output.read_json(output.path(MANIFEST_FILE)) or {"files": []}
    for entry in manifest["files"]:
        with output.filesystem.open_input_file(output.path(entry["file"])) as opened:
            yield pq.read_table(opened)

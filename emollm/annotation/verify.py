"""Checks a finished output against its manifest, its tasks and its input."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from emollm.annotation.identity import SCHEMA_KEY, fingerprint, input_digest, output_columns
from emollm.annotation.output import MANIFEST_FILE, OutputFolder
from emollm.core.errors import DataError
from emollm.core.folders import HIDDEN_RUN_FILE
from emollm.core.prompts import column_name, questions_for
from emollm.core.tasks import Kind, Task
from emollm.data.files.columns import Columns, reading
from emollm.data.files.ids import IdHashes, derive_ids, hash_ids
from emollm.data.files.inputs import find_files
from emollm.data.files.readers import first_with_columns, read_rows

_ROWS = 8192
_TOLERANCE = 1e-3
"""Tolerance for the sum of probabilities, which are stored as float32."""
_MOST_PROBLEMS = 20


@dataclass(slots=True)
class Findings:
    """The problems found, in words, and how much was checked."""

    posts: int = 0
    files: int = 0
    problems: list[str] = field(default_factory=list)
    compared: bool = False
    """Whether every row was compared with the input."""

    def say(self, problem: str) -> None:
        self.problems.append(problem)


def verify(location: str, *, with_input: bool = True) -> Findings:
    """Check that a finished output is what it claims, row by row; memory: 8 bytes per id.

    Checked are marker, manifest, files, schema and its metadata; ids present and unique; values in the task's range;
    probabilities summing to one and confidence within 0..1; a value or an error in every answer, never both. With
    `with_input` the input is read again, and each row must have its id and text, in its order.
    """
    found, output = Findings(), OutputFolder(location)
    run, manifest = output.finished(), output.read_json(output.path(MANIFEST_FILE))
    if run is None or manifest is None:
        missing = HIDDEN_RUN_FILE if run is None else MANIFEST_FILE
        found.say(f"{location} has no {missing}: it is not finished; run the same command again")
        return found
    schema = _check_files(output, run, manifest, found)
    if schema is None:
        return found
    about = json.loads(schema.metadata[SCHEMA_KEY])
    tasks = tuple(Task.model_validate(task) for task in about["definitions"])
    names = set(schema.names)
    wanted = [field.name for field in output_columns(about).schema(tasks)]
    if absent := [name for name in wanted if name not in names]:
        found.say(f"columns of the tasks are missing: {', '.join(absent)}")
        return found
    expected = _input_rows(run, found) if with_input else None
    ids, errors = IdHashes(), Counter[str]()
    for table in _rows(output, manifest):
        found.posts += table.num_rows
        ids.add(hash_ids(table["id"].drop_null()))
        _check_rows(table, tasks, found, errors)
        if expected is not None:
            _compare(table, expected, found)
        if len(found.problems) >= _MOST_PROBLEMS:
            found.say("there may be more problems; stopped here")
            return found
    _check_counts(run, manifest, found, ids, errors)
    if expected is not None and expected.take(1).num_rows:
        found.say("the input has more rows than the output")
    found.compared = expected is not None
    return found


def _check_files(
    output: OutputFolder, run: dict[str, Any], manifest: dict[str, Any], found: Findings
) -> pa.Schema | None:
    listed = output.filesystem.get_file_info(pafs.FileSelector(output.root))
    sizes = {info.base_name: info.size for info in listed if info.base_name[0] not in "_."}
    schemas = []
    for entry in manifest["files"]:
        if sizes.pop(entry["file"], None) != entry["bytes"]:
            found.say(f"{entry['file']} is missing or does not have {entry['bytes']:,} bytes")
            continue
        with output.filesystem.open_input_file(output.path(entry["file"])) as opened:
            parquet = pq.ParquetFile(opened)
            schemas.append(parquet.schema_arrow)
            if parquet.metadata.num_rows != entry["posts"]:
                found.say(f"{entry['file']} holds {parquet.metadata.num_rows:,} rows, not {entry['posts']:,}")
    found.files = len(schemas)
    if sizes:
        found.say(f"files that the manifest does not name: {', '.join(sorted(sizes)[:5])}")
    if not schemas or found.problems:
        return None
    if any(not schema.equals(schemas[0], check_metadata=True) for schema in schemas):
        found.say("the files have different schemas")
    if {f.name: str(f.type) for f in schemas[0]} != manifest["columns"]:
        found.say("the columns are not those of the manifest")
    about = json.loads((schemas[0].metadata or {}).get(SCHEMA_KEY, b"{}"))
    prints = {about.get("fingerprint"), manifest["fingerprint"], run["fingerprint"], fingerprint(run["identity"])}
    if len(prints) > 1:
        found.say("files, manifest and marker carry different fingerprints")
    return None if found.problems else schemas[0]


def _rows(output: OutputFolder, manifest: dict[str, Any]) -> Iterator[pa.Table]:
    for entry in manifest["files"]:
        with output.filesystem.open_input_file(output.path(entry["file"])) as opened:
            for batch in pq.ParquetFile(opened).iter_batches(batch_size=_ROWS):
                yield pa.Table.from_batches([batch])


def _check_rows(table: pa.Table, tasks: tuple[Task, ...], found: Findings, errors: Counter[str]) -> None:
    first, names = None, set(table.column_names)
    for question in questions_for("", tasks):
        name = column_name(question)
        value, error = table[name], table[f"{name}_error"]
        errors[f"{name}_error"] += len(error) - error.null_count
        first = error if first is None else pc.coalesce(first, error)
        left_out = f"{name}_abstained"
        given = (
            pc.or_(pc.is_valid(value), pc.fill_null(table[left_out], False))
            if left_out in names
            else pc.is_valid(value)
        )
        _none(table, pc.equal(given, pc.is_valid(error)), f"{name}: both value and error, or neither", found)
        _none(table, _out_of_range(value, question.task), f"{name}: a value outside the task's values", found)
        _none(table, _outside(table[f"{name}_confidence"]), f"{name}_confidence: outside 0..1", found)
        if question.task.kind is not Kind.REGRESSION:
            _check_probabilities(table, f"{name}_probabilities", question.task, found)
    assert first is not None
    same = pc.or_kleene(pc.equal(first, table["error"]), pc.and_(pc.is_null(first), pc.is_null(table["error"])))
    _none(table, pc.invert(pc.fill_null(same, False)), "error: not the first of the row's errors", found)
    _none(table, pc.is_null(table["id"]), "id: missing", found)


def _out_of_range(values: Any, task: Task) -> Any:
    match task.kind:
        case Kind.REGRESSION:
            within = pc.and_(pc.greater_equal(values, task.low), pc.less_equal(values, task.high))
            return pc.invert(within)
        case Kind.ORDINAL:
            return pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, pa.array(task.answer_values, values.type))))
        case Kind.SINGLE_LABEL:
            return pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, pa.array(task.labels))))
        case Kind.LABEL_SET:
            bad = pc.invert(pc.is_in(pc.list_flatten(values), pa.array(task.labels)))
            rows = pc.list_parent_indices(values).filter(bad)
            return pa.array(np.isin(np.arange(len(values)), rows.to_numpy()))


def _outside(values: Any) -> Any:
    return pc.or_(pc.less(values, 0.0), pc.greater(values, 1.0 + 1e-6))


def _check_probabilities(table: pa.Table, name: str, task: Task, found: Findings) -> None:
    column = table[name].combine_chunks()
    parts = [pc.struct_field(column, i) for i in range(column.type.num_fields)]
    for part in parts:
        _none(table, _outside(part), f"{name}: outside 0..1", found)
    if task.kind is not Kind.LABEL_SET:  # whose labels have independent probabilities
        total = parts[0]
        for part in parts[1:]:
            total = pc.add(total, part)
        off = pc.greater(pc.abs(pc.subtract(total, 1.0)), _TOLERANCE)
        _none(table, off, f"{name}: not summing to one", found)


def _none(table: pa.Table, wrong: Any, what: str, found: Findings) -> None:
    """Report `what` for the rows where `wrong` is true, with the id of the first."""
    rows = table["id"].filter(pc.fill_null(wrong, False))
    if len(rows):
        found.say(f"{what} ({len(rows):,} rows, the first {rows[0].as_py()!r})")


def _check_counts(
    run: dict[str, Any], manifest: dict[str, Any], found: Findings, ids: IdHashes, errors: Counter[str]
) -> None:
    if not found.posts == manifest["posts"] == run["summary"]["posts"]:
        found.say(f"{found.posts:,} rows, but the manifest says {manifest['posts']:,}")
    if dict(errors) != manifest["errors"]:
        found.say("the numbers of errors differ from those of the manifest")
    if repeated := len(ids.repeated()):
        found.say(f"{repeated:,} ids occur more than once")


def _input_rows(run: dict[str, Any], found: Findings) -> _InOrder | None:
    """The input's ids and texts, read again; None, and a problem, if it is gone or has changed."""
    id_column, text_column = run["identity"]["columns"][:2]
    config = run["config"]
    how = reading(config.get("encoding"), config.get("delimiter"), config.get("column_names") or ())
    try:
        source, files = find_files(run["config"]["input"], how)
        if input_digest(files) != run["identity"]["input"]:
            found.say(f"the input {run['config']['input']} has changed since; --no-input leaves it out")
            return None
        if id_column is None and "id" in first_with_columns(source, files, how, text_column)[1]:
            id_column = "id"
    except DataError as error:
        found.say(f"{error}; --no-input leaves the input out")
        return None
    by_sentence = config.get("long") == "sentences"
    wanted = Columns(id=id_column or None, text=text_column, reading=how, by_sentence=by_sentence)

    def rows() -> Iterator[pa.Table]:
        for file in files:
            for table in read_rows(source, file, wanted):
                if wanted.id is None or file.format == "txt":
                    table = table.set_column(1, "id", derive_ids(file.name, table))
                yield table.select(["id", "text"])

    return _InOrder(_up_to(rows(), run["config"]["max_posts"]))


def _up_to(tables: Iterator[pa.Table], most: int | None) -> Iterator[pa.Table]:
    for table in tables:
        table = table.slice(0, most)
        yield table
        if most is not None:
            most -= table.num_rows
            if not most:
                return


class _InOrder:
    """Takes a given number of rows at a time from a stream of tables."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._rest = pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())})

    def take(self, count: int) -> pa.Table:
        """The next `count` rows, or fewer at the end."""
        parts, have = [self._rest], self._rest.num_rows
        while have < count and (table := next(self._tables, None)) is not None:
            parts.append(table)
            have += table.num_rows
        whole = pa.concat_tables(parts)
        self._rest = whole.slice(count)
        return whole.slice(0, count).combine_chunks()


def _compare(table: pa.Table, expected: _InOrder, found: Findings) -> None:
    """Compare rows with the next rows of the input."""
    theirs = expected.take(table.num_rows)
    mine = table.select(["id", "text"]).combine_chunks()
    if theirs.num_rows < mine.num_rows:
        found.say("the output has more rows than the input")
    elif not mine.cast(theirs.schema).equals(theirs):
        other = next(i for i in range(mine.num_rows) if mine.slice(i, 1).to_pylist() != theirs.slice(i, 1).to_pylist())
        at, was = found.posts - table.num_rows + other, theirs["id"][other].as_py()
        found.say(f"row {at:,} has id {mine['id'][other].as_py()!r}, the input {was!r}; or their texts differ")

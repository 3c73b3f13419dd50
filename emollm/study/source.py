"""An annotated corpus as measures: which columns are answers, and a batch of rows as numbers.

Shapes: N rows, Q questions, M measures: each label of a question that has labels, and each number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emollm.core.errors import DataError
from emollm.core.folders import HIDDEN_RUN_FILE
from emollm.core.indicators import indicators
from emollm.core.tasks import TASKS
from emollm.data.files.inputs import find_files, locate

Floats = NDArray[np.float64]
BATCH_ROWS = 65_536
_SCHEMA_KEY = b"emollm"
_COLUMNS = {column: task for task in TASKS.values() for column in task.columns}


@dataclass(frozen=True, slots=True)
class QuestionColumn:
    """A column of answers."""

    name: str
    kind: Literal["number", "label", "set"]
    labels: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    """Its range; 0 to 1 where it has labels."""
    no_label: str = "none"
    """What stands for an empty set."""
    probabilities: bool = False
    """Whether each label's probability stands beside it."""

    @property
    def measures(self) -> list[Measure]:
        if self.kind == "number":
            return [Measure(self.name, None, self.low, self.high)]
        return [Measure(self.name, label, 0.0, 1.0) for label in self.labels]


@dataclass(frozen=True, slots=True)
class Measure:
    """What is counted: the share of posts with a label, or the mean of a number."""

    question: str
    label: str | None
    low: float
    high: float

    @property
    def name(self) -> str:
        """`e_c=joy`, `v_reg`."""
        return self.question if self.label is None else f"{self.question}={self.label}"

    @property
    def is_share(self) -> bool:
        return self.label is not None


class Source:
    """The Parquet files of an annotated corpus, read in batches."""

    def __init__(self, location: str) -> None:
        """Raises DataError where there is no finished output, or a file is not Parquet."""
        self.location = location
        self._filesystem, files = find_files(location)
        if wrong := next((file for file in files if file.format != "parquet"), None):
            raise DataError(f"{wrong.path} is not Parquet; write it so: emollm annotate POSTS --format parquet")
        self._refuse_unfinished(location)
        self._paths = [file.path for file in files]
        self.schema: pa.Schema = self._schema(self._paths[0])
        about = (self.schema.metadata or {}).get(_SCHEMA_KEY)
        self.about: dict[str, Any] = json.loads(about) if about else {}

    def _schema(self, path: str) -> pa.Schema:
        try:
            with self._filesystem.open_input_file(path) as opened:
                return pq.read_schema(opened)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None

    def _refuse_unfinished(self, location: str) -> None:
        filesystem, path = locate(location)
        names = [f"{path}/_unfinished", f"{path}/{HIDDEN_RUN_FILE}"]
        growing, done = (info.type != pafs.FileType.NotFound for info in filesystem.get_file_info(names))
        if growing and not done:
            raise DataError(f"{location} is not finished; run its emollm annotate command again to continue it")

    @property
    def rows(self) -> int:
        count = 0
        for path in self._paths:
            with self._filesystem.open_input_file(path) as opened:
                count += pq.read_metadata(opened).num_rows
        return count

    def check_column(self, name: str, option: str) -> None:
        """Raise DataError, listing the columns, unless there is one of this name."""
        if name not in self.schema.names:
            raise DataError(
                f"{self.location} has no column {name!r} for {option}; it has: {', '.join(self.schema.names)}. "
                f"Columns of the input are kept by emollm annotate --carry {name}"
            )

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Every row in order, some columns; holds one batch at a time."""
        for path in self._paths:
            with self._filesystem.open_input_file(path) as opened:
                file = pq.ParquetFile(opened)
                if missing := [name for name in columns if name not in file.schema_arrow.names]:
                    raise DataError(f"{path} has no column {missing[0]!r}, which {self._paths[0]} has")
                # A row group at a time: pyarrow keeps what it read of a file's earlier ones until it is through.
                for group in range(file.num_row_groups):
                    yield from file.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns))


def find_questions(schema: pa.Schema, about: dict[str, Any], more: Sequence[str] = ()) -> list[QuestionColumn]:
    """The columns of answers: those of the tasks that the file tells of, and `more`.

    Of a file that tells of none those with a `_confidence` beside them, whatever version wrote them: ranges and labels
    are then read off its columns and the known tasks. Raises DataError where there is no such column.
    """
    from emollm.core.tasks import fold_name

    told: dict[str, dict[str, Any]] = {}
    for task in about.get("definitions", ()):
        for emotion in task.get("emotions") or (None,):
            told[fold_name(f"{task['name']}.{emotion}" if emotion else task["name"])] = task
    found = []
    for field in schema:
        told_of = not told or field.name in told or field.name in more
        if f"{field.name}_confidence" in schema.names and told_of:
            beside = f"{field.name}_probabilities"
            found.append(_question(field, schema.field(beside) if beside in schema.names else None, told))
    if not found:
        raise DataError(
            f"no column of answers among {', '.join(schema.names) or 'no columns'}; a report is made of what "
            "emollm annotate wrote"
        )
    return found


def _question(field: Any, beside: Any, told: dict[str, dict[str, Any]]) -> QuestionColumn:
    about = told.get(field.name) or {}
    known = _COLUMNS.get(field.name)
    probabilities = beside is not None and pa.types.is_struct(beside.type)
    names = tuple(one.name for one in beside.type) if probabilities else ()
    if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
        classes = [one["value"] for one in about.get("classes", ())] or [
            int(name) for name in names if name.lstrip("-").isdigit()
        ]
        if classes:
            low, high = min(classes), max(classes)
        elif about.get("low") is not None:
            low, high = about["low"], about["high"]
        elif b"range" in (field.metadata or {}):
            low, high = map(float, field.metadata[b"range"].decode().split(".."))
        elif known is not None and known.classes:
            low, high = known.classes[0].value, known.classes[-1].value
        else:
            low = known.low if known is not None and known.low is not None else 0.0
            high = known.high if known is not None and known.high is not None else 1.0
        return QuestionColumn(field.name, "number", low=float(low), high=float(high))
    labels = tuple(about.get("labels") or names or (known.labels if known is not None else ()))
    if not labels:
        raise DataError(f"column {field.name!r} is of type {field.type} and nothing says which labels it may hold")
    kind: Literal["label", "set"] = "set" if pa.types.is_list(field.type) else "label"
    no_label = about.get("no_label") or (known.no_label if known is not None else None) or "none"
    return QuestionColumn(
        field.name, kind, labels, no_label=no_label, probabilities=probabilities and set(labels) <= set(names)
    )


@dataclass(frozen=True, slots=True)
class Values:
    """A batch in numbers; 0 where there is no answer."""

    valid_NQ: NDArray[np.bool_]
    values_NM: Floats
    """1 where the label is given; a number as it is."""
    expected_NM: Floats
    """The probability of the label where there is one; else as `values_NM`."""


def read_values(batch: Any, questions: Sequence[QuestionColumn]) -> Values:
    """Raises DataError where a label stands in the column that is none of the question's."""
    valid, values, expected = [], [], []
    for question in questions:
        column = batch.column(question.name)
        ok_N = np.asarray(pc.is_valid(column))
        if question.kind == "number":
            numbers = np.asarray(pc.cast(column, pa.float64()).fill_null(np.nan))
            ok_N = np.isfinite(numbers)
            mine = theirs = np.where(ok_N, numbers, 0.0)[:, None]
        else:
            mine = indicators(column, question.labels, what=f"column {question.name!r}").astype(float)
            theirs = _probabilities(batch, question, ok_N) if question.probabilities else mine
        valid.append(ok_N)
        values.append(mine)
        expected.append(theirs)
    return Values(np.stack(valid, axis=1), np.concatenate(values, axis=1), np.concatenate(expected, axis=1))


def _probabilities(batch: Any, question: QuestionColumn, ok_N: NDArray[np.bool_]) -> Floats:
    struct = batch.column(f"{question.name}_probabilities")
    each = [np.asarray(pc.fill_null(pc.struct_field(struct, label), 0.0), float) for label in question.labels]
    return np.stack(each, axis=1) * ok_N[:, None]

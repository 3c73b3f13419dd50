"""Rows whose true answers are known: read, checked, and joined to what the model answered.

Shapes: L labelled rows, M measures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emollm.core.errors import DataError
from emollm.data.files.inputs import find_files
from emollm.study.correction import LabelledMeasure
from emollm.study.source import Floats, Measure, QuestionColumn, Source, Values, read_values

GOLD = "gold_"


class LabelledRows:
    """Golds by id, waiting for the answers of the corpus; or an annotated output that has both."""

    def __init__(self, location: str, questions: Sequence[QuestionColumn]) -> None:
        """Raises DataError where there is no gold column, or a gold is none of its question's answers."""
        self._location = location
        table = _read(location)
        self.asked = [q for q in questions if GOLD + q.name in table.column_names]
        if not self.asked:
            wanted = ", ".join(GOLD + q.name for q in questions[:4])
            raise DataError(
                f"{location} has no gold column; name them after the answers: {wanted}; it has: "
                f"{', '.join(table.column_names)}"
            )
        self.questions = list(questions)
        self._golds = {q.name: _golds(table[GOLD + q.name].to_pylist(), q, location) for q in self.asked}
        self.is_annotated = all({q.name, f"{q.name}_confidence"} <= set(table.column_names) for q in self.asked)
        if not self.is_annotated and "id" not in table.column_names:
            raise DataError(f"{location} has no column 'id', by which its rows are found in the corpus")
        self.count = table.num_rows
        self._values: dict[int, tuple[Floats, Floats, NDArray[np.bool_], int]] = {}
        """By labelled row: values and expected [M], valid [Q], cell."""
        self._ids = pa.array([], pa.string())
        if self.is_annotated:
            self._take_own(table)
        else:
            self._ids = pa.array([str(one) for one in table["id"].to_pylist()], pa.string())
            if twice := [one for one, n in Counter(self._ids.to_pylist()).items() if n > 1]:
                raise DataError(f"{location}: id {twice[0]!r} occurs twice; label each row once")

    def _take_own(self, table: pa.Table) -> None:
        names = set(table.column_names)
        known = [q for q in self.questions if q.name in names]
        values = read_values(table.combine_chunks(), known)
        self.questions = known
        for row in range(self.count):
            self._values[row] = values.values_NM[row], values.expected_NM[row], values.valid_NQ[row], -1

    @property
    def found(self) -> int:
        """Labelled rows whose answers are known by now."""
        return len(self._values)

    def look(self, ids: Any, values: Values, cells: NDArray[np.intp]) -> None:
        """The answers of the corpus's next rows."""
        if self.is_annotated:
            return
        places = pc.index_in(pc.cast(ids, pa.string()), self._ids)
        for row in np.flatnonzero(np.asarray(pc.is_valid(places))):
            mine = values.values_NM[row], values.expected_NM[row], values.valid_NQ[row], int(cells[row])
            self._values[places[int(row)].as_py()] = mine

    def measures(self) -> dict[str, LabelledMeasure]:
        """Of each measure with golds, the rows that have both a gold and an answer."""
        names: list[Measure] = [m for q in self.questions for m in q.measures]
        rows = sorted(self._values)
        found: dict[str, LabelledMeasure] = {}
        for place, question in enumerate(self.questions):
            if question.name not in self._golds:
                continue
            held, golds = self._golds[question.name]
            mine = [row for row in rows if held[row] and self._values[row][2][place]]
            cells = np.array([self._values[row][3] for row in mine], np.intp)
            first = names.index(question.measures[0])
            for i, measure in enumerate(question.measures):
                found[measure.name] = LabelledMeasure(
                    gold_L=golds[mine, i],
                    value_L=np.array([self._values[row][0][first + i] for row in mine]),
                    expected_L=np.array([self._values[row][1][first + i] for row in mine]),
                    cell_L=cells,
                )
        return found


def _read(location: str) -> pa.Table:
    _, files = find_files(location)
    if len(files) > 1 and files[0].format != "parquet":
        raise DataError(f"{location} has {len(files):,} files; give one file of labelled rows, or Parquet")
    match files[0].format:
        case "parquet":
            source = Source(location)
            return pa.Table.from_batches(source.batches(source.schema.names), source.schema)
        case "csv":
            import pyarrow.csv

            # As text: an id "007" stays what it is.
            names = pyarrow.csv.open_csv(files[0].path).schema.names
            options = pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            )
            return pyarrow.csv.read_csv(files[0].path, convert_options=options)
        case "json":
            import pyarrow.json

            return pyarrow.json.read_json(files[0].path)
    raise DataError(f"{location}: labelled rows are read from Parquet, CSV or JSON lines")


def _golds(cells: Sequence[Any], question: QuestionColumn, location: str) -> tuple[NDArray[np.bool_], Floats]:
    """Whether a row has a gold [L], and its measures [L, m]."""
    held = np.zeros(len(cells), bool)
    golds = np.zeros((len(cells), len(question.measures)))
    for row, cell in enumerate(cells):
        # An empty set is an answer, written `none`; an empty cell is a row that nobody labelled.
        if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
            continue
        held[row] = True
        if question.kind == "number":
            golds[row, 0] = _number(cell, question, location, row)
            continue
        labels = [one.strip() for one in cell.split(",")] if isinstance(cell, str) else list(cell)
        if question.kind == "set" and labels in (["none"], ["neutral"], [question.no_label]):
            labels = [one for one in labels if one in question.labels]
        for label in labels:
            if label not in question.labels:
                raise DataError(
                    f"{location}, row {row + 1}: {label!r} is no label of {question.name}; choose from: "
                    f"{', '.join(question.labels)}, or none"
                )
            golds[row, question.labels.index(label)] = 1.0
    return held, golds


def _number(cell: Any, question: QuestionColumn, location: str, row: int) -> float:
    try:
        number = float(cell)
    except (TypeError, ValueError):
        number = math.nan
    if not question.low <= number <= question.high:
        raise DataError(
            f"{location}, row {row + 1}: {cell!r} is not a number in [{question.low:g}, {question.high:g}] for "
            f"{question.name}"
        )
    return number

"""The systems x tasks table: what was measured here beside what is quoted, and the best of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from emollm.core.tasks import PROFILE, Task
from emollm.evaluation.measured import Evaluation, Measured
from emollm.evaluation.published import COLUMNS, Column, quoted_systems
from emollm.evaluation.report.terminal import format_score
from emollm.metrics.bootstrap import Interval

DERIVED, TAUGHT = "\N{DAGGER}", "\N{DOUBLE DAGGER}"
"""Marks of a figure: the answers are derived; the system was trained on a task that the published systems were not."""


_ZERO_SHOT_TASKS = {column.task for column in COLUMNS.values()} - set(PROFILE)
"""The tasks on which the published figures are those of systems without training rows of the task."""


@dataclass(slots=True)
class Cell:
    value: float
    interval: Interval | None = None
    best: bool = False
    """Whether it is the best of its column among the measured, or among the quoted, systems."""
    shade: float = 0.0
    """0..1, where it stands between the column's least and greatest value."""
    rows: int | None = None
    mark: str = ""
    """`DERIVED`, `TAUGHT` or empty."""

    @property
    def shown(self) -> str:
        return format_score(self.value) + self.mark


@dataclass(slots=True)
class Line:
    name: str
    role: Literal["model", "given", "baseline", "quoted"]
    cells: dict[Column, Cell] = field(default_factory=dict)


def main_columns(tasks: Sequence[Task]) -> list[Column]:
    """A column for each task that was measured: as published, or the headline metric of a task that was not."""
    published = {column.task: column for column in COLUMNS.values() if column.main}
    return [published.get(task.name) or Column(task.name, task.name, task.metric) for task in tasks]


class Table(NamedTuple):
    heading: str
    columns: list[Column]
    lines: list[Line]


def main_tables(evaluation: Evaluation) -> list[Table]:
    """One line per system, measured ones first, and a table for each kind of figure, without columns that are empty.

    What a system learnt from labels that no published system had stands in a table of its own: nothing quoted, derived
    or asked untrained is compared with it there.
    """
    columns = main_columns(evaluation.tasks)
    measured = [_measured(found, columns) for found in evaluation.measured]
    quoted = [
        Line(system.name, "quoted", {c: Cell(system.scores[c]) for c in columns if c in system.scores})
        for system in quoted_systems()
    ]
    taught = [_only(line, taught=True) for line in measured]
    others = [_only(line, taught=False) for line in (*measured, *quoted)]
    tables = [_table("", columns, others), _table("Learnt from the task's own labels", columns, taught)]
    if not tables[1].columns:
        return tables[:1]
    return [tables[0]._replace(heading="As published: the five tasks of AAID learnt, the others zero-shot"), tables[1]]


def _only(line: Line, *, taught: bool) -> Line:
    """The line's figures that are, or are not, of a task learnt from labels that no published system had."""
    return Line(line.name, line.role, {c: cell for c, cell in line.cells.items() if (cell.mark == TAUGHT) is taught})


def _table(heading: str, columns: Sequence[Column], lines: Sequence[Line]) -> Table:
    lines = [line for line in lines if line.cells]
    columns = [column for column in columns if any(column in line.cells for line in lines)]
    for column in columns:
        _mark(lines, column)
    return Table(heading, columns, list(lines))


def score_of(found: Measured, column: Column) -> float | None:
    """The system's figure for a column; None where it has none."""
    result = next((result for result in found.results if result.task == column.task), None)
    if result is None or column.metric not in result.scores:
        return None
    value = result.by_emotion.get(column.emotion, math.nan) if column.emotion else result.scores[column.metric]
    return None if math.isnan(value) else value


def _measured(found: Measured, columns: Sequence[Column]) -> Line:
    line = Line(found.system.name, found.system.role)
    results = {result.task: result for result in found.results}
    for column in columns:
        value = score_of(found, column)
        if value is not None:
            result = results[column.task]
            interval = result.intervals.get(column.metric)
            line.cells[column] = Cell(value, interval, rows=result.rows, mark=mark_of(found, column.task))
    return line


def mark_of(found: Measured, task: str) -> str:
    """The mark that tells derived answers and labels that no published system had."""
    learnt = found.system.facts.get("learnt", {}).get(task, "")
    if learnt.startswith("derived"):
        return DERIVED
    return TAUGHT if learnt in ("trained", "distilled") and task in _ZERO_SHOT_TASKS else ""


def _mark(lines: Sequence[Line], column: Column) -> None:
    values = [line.cells[column].value for line in lines if column in line.cells]
    low, high = min(values, default=0.0), max(values, default=0.0)
    for line in lines:
        if column in line.cells:
            line.cells[column].shade = (line.cells[column].value - low) / (high - low) if high > low else 0.5
    for quoted in (False, True):
        mine = [line.cells[column] for line in lines if column in line.cells and (line.role == "quoted") is quoted]
        most = max((cell.value for cell in mine), default=None)
        for cell in mine:
            cell.best = cell.value == most

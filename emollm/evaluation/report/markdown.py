"""report.md: the main table and what it rests on, for a terminal or a repository. It holds no text of a corpus."""

from __future__ import annotations

from collections.abc import Iterator

from emollm.evaluation.measured import Evaluation
from emollm.evaluation.options import EvaluateConfig
from emollm.evaluation.report.facts import cost_table, invalid_table, notes
from emollm.evaluation.report.main_table import Cell, Line, main_columns, main_table
from emollm.evaluation.report.terminal import format_score
from emollm.reports.page import markdown_table


def markdown(config: EvaluateConfig, evaluation: Evaluation) -> str:
    return "\n".join(_lines(config, evaluation)) + "\n"


def _lines(config: EvaluateConfig, evaluation: Evaluation) -> Iterator[str]:
    yield f"# {evaluation.measured[0].system.name}, measured"
    yield ""
    columns = main_columns(evaluation.tasks)
    lines = main_table(evaluation, columns)
    yield from markdown_table(
        ["system", *(column.title for column in columns)],
        [[_name(line), *(_cell(line.cells.get(column)) for column in columns)] for line in lines],
    )
    yield ""
    yield "Bold: best measured, best quoted. In brackets: the 95% interval."
    yield ""
    yield from (f"- {note}" for note in notes(config, evaluation))
    yield from ("", "## Cost", "")
    yield from markdown_table(*cost_table(evaluation))
    header, rows = invalid_table(evaluation)
    if rows:
        yield from ("", "## Invalid answers", "")
        yield from markdown_table(header, rows)


def _name(line: Line) -> str:
    return f"{line.name} (quoted)" if line.role == "quoted" else line.name


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    shown = f"**{cell.shown}**" if cell.best else cell.shown
    if cell.interval is None:
        return shown
    return f"{shown} ({format_score(cell.interval.low)} to {format_score(cell.interval.high)})"

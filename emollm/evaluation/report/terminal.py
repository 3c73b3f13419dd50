"""Results as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from emollm.evaluation.scores import TaskResult

_SHOWN = 3
"""Metrics a task; metrics.json has all."""


def results_table(runs: Mapping[str, Sequence[TaskResult]], *, title: str) -> Table:
    """One row a task and metric, two columns a run: the score, and the share of answers that could be read."""
    table = Table(title=title, title_justify="left")
    table.add_column("task")
    table.add_column("metric")
    table.add_column("rows", justify="right")
    for name in runs:
        table.add_column(name, justify="right")
        table.add_column("valid", justify="right", style="dim")
    by_task = [{result.task: result for result in results} for results in runs.values()]
    for task in dict.fromkeys(result.task for results in runs.values() for result in results):
        asked = [results[task] for results in by_task if task in results]
        for number, metric in enumerate(list(asked[0].scores)[:_SHOWN]):
            cells = []
            for results in by_task:
                found = results.get(task)
                cells += [
                    format_score(found.scores[metric]) if found else "",
                    f"{found.valid:.0%}" if found and number == 0 else "",
                ]
            headline = number == 0
            rows = f"{max(result.rows for result in asked):,}"
            table.add_row(task if headline else "", metric, rows if headline else "", *cells)
    return table


def format_score(score: float) -> str:
    """Three places without the leading zero, as the field prints them; a dash where the score is undefined."""
    if math.isnan(score):
        return "–"
    return f"{score:.3f}".replace("0.", ".", 1) if abs(score) < 1 else f"{score:.3f}"

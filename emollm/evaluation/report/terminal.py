"""Results as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from emollm.evaluation.calibrate import Gain
from emollm.evaluation.compare import Comparison
from emollm.evaluation.fragility import Moved
from emollm.metrics.conformal import SetCoverage
from emollm.metrics.scores import TaskResult

_SHOWN = 3
"""Metrics shown per task; metrics.json has all."""


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


def comparison_table(comparison: Comparison) -> Table:
    """One row a task: both scores, the difference with its interval, and what follows."""
    table = Table(title=f"A: {comparison.a}\nB: {comparison.b}", title_justify="left")
    for name in ("task", "metric", "rows", "A", "B", "B - A", "95% interval", "p (Holm)", ""):
        table.add_column(name, justify="left" if name in ("task", "metric", "") else "right")
    for found in comparison.tasks:
        between = found.interval
        table.add_row(
            found.task,
            found.metric,
            f"{found.rows:,}",
            format_score(found.a),
            format_score(found.b),
            format_score(found.difference),
            f"{format_score(between.low)} to {format_score(between.high)}" if between else "–",
            format_score(found.corrected),
            found.verdict,
        )
    return table


def gains_table(gains: Sequence[Gain], *, right_share: float) -> Table:
    """One row a task: how far its probabilities could be believed before and after calibration."""
    table = Table(title="On texts that the maps were not fitted on, before and after", title_justify="left")
    names = (
        "task",
        "events",
        "ECE",
        "Brier",
        "MAE",
        "90% interval holds",
        f"abstain below, for {right_share:.0%}",
        "kept",
    )
    for name in names:
        table.add_column(name, justify="left" if name == "task" else "right")
    for gain in gains:
        before, after = gain.before, gain.after
        abstain = after.abstain
        table.add_row(
            gain.task,
            f"{after.events:,}",
            f"{format_score(before.ece)} → {format_score(after.ece)}",
            f"{format_score(before.brier)} → {format_score(after.brier)}",
            f"{gain.mae_before:.3f} → {gain.mae_after:.3f}" if gain.mae_before is not None else "",
            f"{before.coverage['0.9']:.0%} → {after.coverage['0.9']:.0%}" if before.coverage else "",
            f"{abstain.threshold:.2f}" if abstain else "not reached",
            f"{abstain.coverage:.0%}" if abstain else "",
        )
    return table


def sets_table(sets: Sequence[SetCoverage]) -> Table:
    """One row a task: what its sets or intervals hold on rows that they were not fitted on, and how large they are."""
    title = f"Sets that hold the truth for {sets[0].level:.0%} of posts, on texts that they were not fitted on"
    table = Table(title=title, title_justify="left")
    for name in ("task", "rows", "hold", "95% of halves", "size"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for one in sets:
        size = f"{one.size:.1f} of {one.out_of}" if one.out_of > 1 else f"{one.size:.0%} of the range"
        table.add_row(one.task, f"{one.rows:,}", f"{one.coverage:.1%}", f"{one.low:.1%} to {one.high:.1%}", size)
    return table


def moved_table(moved: Sequence[Moved]) -> Table:
    """One row a task and change: how far it moves the answers."""
    table = Table(title="How far a small change moves the answers", title_justify="left")
    for name in ("task", "change", "answers", "distance", "95% interval", "moved"):
        table.add_column(name, justify="left" if name in ("task", "change") else "right")
    for one in moved:
        between = f"{one.low:.3f} to {one.high:.3f}"
        table.add_row(one.task, one.change, f"{one.answers:,}", f"{one.distance:.3f}", between, f"{one.moved:.0%}")
    return table

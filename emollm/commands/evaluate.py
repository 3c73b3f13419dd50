"""Evaluate a model: emollm evaluate --model DIR --aeb DIR"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.core.options import read_config


def main(argv: Sequence[str]) -> None:
    from emollm.evaluation.options import EvaluateConfig

    config = read_config(EvaluateConfig, argv, prog="evaluate")

    from emollm.core.progress import console, progress_bar, table_console
    from emollm.evaluation.report.terminal import moved_table, results_table
    from emollm.evaluation.run import evaluate

    with progress_bar("evaluating", None, "questions") as advance:
        evaluation = evaluate(
            config,
            on_rows=lambda new, total: advance(new, total=total),
            on_system=lambda name: console.print(f"[dim]{name}[/dim]"),
        )
    runs = {measured.system.name: measured.results for measured in evaluation.measured}
    table_console().print(results_table(runs, title="Measured; all metrics with intervals are in metrics.json"))
    if evaluation.fragility:
        table_console().print(moved_table(evaluation.fragility.moved))
    if config.out:
        print(f"report: {config.out / 'report.html'}")

"""Is run B better than run A: emollm compare RUN_A RUN_B"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.core.options import read_config


def main(argv: Sequence[str]) -> None:
    from emollm.evaluation.options import CompareConfig

    config = read_config(CompareConfig, argv, prog="compare", bare=("run_a", "run_b"))

    from emollm.core.progress import table_console
    from emollm.evaluation.compare import compare_runs
    from emollm.evaluation.report.terminal import comparison_table

    comparison = compare_runs(config)
    console = table_console()
    console.print(comparison_table(comparison))
    if comparison.unequal_rows or comparison.left_out:
        tasks = f"; tasks of only one run: {', '.join(comparison.left_out)}" if comparison.left_out else ""
        console.print(f"[dim]left out: {comparison.unequal_rows:,} rows of only one run{tasks}[/dim]")
    console.print(comparison.verdict)

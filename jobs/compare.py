"""Is run B better than run A: python jobs/compare.py RUN_A RUN_B"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.core.options import read_config, run_job


def main(argv: Sequence[str]) -> None:
    from emollm.evaluation.options import CompareConfig

    # RUN_A RUN_B may be given bare.
    bare = list(argv[:2]) if len(argv) > 1 and not any(word.startswith("-") for word in argv[:2]) else []
    named = [word for option, run in zip(("--run-a", "--run-b"), bare, strict=False) for word in (option, run)]
    config = read_config(CompareConfig, [*named, *argv[len(bare) :]], prog="compare")

    from emollm.core.progress import table_console
    from emollm.evaluation.compare import compare_runs
    from emollm.evaluation.report.terminal import comparison_table

    comparison = compare_runs(config)
    console = table_console()
    console.print(comparison_table(comparison))
    if comparison.unequal_rows or comparison.left_out:
        tasks = f"; tasks of one run alone: {', '.join(comparison.left_out)}" if comparison.left_out else ""
        console.print(f"[dim]left out: {comparison.unequal_rows:,} rows that one run alone has{tasks}[/dim]")
    console.print(comparison.verdict)


if __name__ == "__main__":
    run_job(main)

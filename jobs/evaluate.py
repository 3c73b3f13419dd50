"""Evaluate a model: python jobs/evaluate.py --model DIR --data DIR"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.config import read_config, run_job


def main(argv: Sequence[str]) -> None:
    from emollm.evaluation.run import EvaluateConfig, evaluate

    config = read_config(EvaluateConfig, argv, prog="evaluate")

    from rich.console import Console

    from emollm.evaluation.report import results_table
    from emollm.progress import progress_bar

    with progress_bar("evaluating", None, "questions") as advance:
        results = evaluate(config, on_rows=lambda new, total: advance(new, total=total))
    Console().print(results_table({config.model: results}, title=f"{config.model} on {config.data}"))


if __name__ == "__main__":
    run_job(main)

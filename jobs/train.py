"""Fine-tune a base model: python jobs/train.py --data DIR --out DIR [--recipe NAME] [--plan]"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.config import read_config, run_job
from emollm.training.config import TrainConfig


def main(argv: Sequence[str]) -> None:
    config = read_config(TrainConfig, argv, prog="train")
    if config.plan:
        from rich.console import Console

        from emollm.training.plan import plan, plan_report

        Console(highlight=False).print(plan_report(plan(config)))
        return

    from emollm.progress import console
    from emollm.training.fit import fit
    from emollm.training.report import summary_report, training_bar

    with training_bar() as receive:
        summary = fit(config, on_step=receive.step, on_evaluation=receive.evaluation, on_note=receive.note)
    console.print(summary_report(config, summary))


if __name__ == "__main__":
    run_job(main)

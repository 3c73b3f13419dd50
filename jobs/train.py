"""Fine-tune a base model: python jobs/train.py --data DIR --out DIR"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emollm.config import read_config, run_job
from emollm.training.config import TrainConfig


def main(argv: Sequence[str]) -> None:
    config = read_config(TrainConfig, argv, prog="train")

    from emollm.progress import progress_bar
    from emollm.training.fit import fit

    with progress_bar("fine-tuning", None, "steps") as advance:

        def on_step(report: Any) -> None:
            speed = f"loss {report.loss:.3f}  {report.rows / report.seconds:.1f} rows/s"
            advance(1, note=speed, total=report.num_steps)

        summary = fit(config, on_step=on_step)
    print(
        f"{config.out}: {summary['steps']} steps, {summary['rows']:,} rows in {summary['seconds']:.0f} s, "
        f"loss {summary['first_loss']:.3f} -> {summary['last_loss']:.3f}"
    )


if __name__ == "__main__":
    run_job(main)

"""Fine-tune a base model: python jobs/train.py --data DIR --out DIR"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emollm.config import read_config, run_job
from emollm.training.config import TrainConfig


def main(argv: Sequence[str]) -> None:
    config = read_config(TrainConfig, argv, prog="train")
    if config.freeze:
        _fit_heads(config)
    else:
        _fine_tune(config)


def _fine_tune(config: TrainConfig) -> None:
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


def _fit_heads(config: TrainConfig) -> None:
    from emollm.progress import progress_bar
    from emollm.training.frozen import fit_frozen

    with progress_bar("reading posts", None, "posts") as advance:
        summary = fit_frozen(config, on_posts=lambda new, total: advance(new, total=total))
    print(f"{config.out}: heads on {' + '.join(summary['readings'])}, {summary['texts']:,} texts, held out in turn:")
    for task, metrics in summary["held_out"].items():
        print(f"  {task}: " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))


if __name__ == "__main__":
    run_job(main)

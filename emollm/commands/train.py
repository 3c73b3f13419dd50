"""Fine-tune a base model: emollm train --data DIR --out DIR [--recipe NAME] [--plan]"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.core.options import need, read_config
from emollm.training.options import TrainConfig


def main(argv: Sequence[str]) -> None:
    config = read_config(TrainConfig, argv, prog="train")
    if config.plan:
        from rich.console import Console

        from emollm.training.plan import plan, plan_report

        Console(highlight=False).print(plan_report(plan(config)))
        return

    if config.freeze:
        _fit_heads(config)
    else:
        _fine_tune(config)


def _fine_tune(config: TrainConfig) -> None:
    need("deepspeed")
    from rich.console import Console

    from emollm.commands.teacher import ask_teacher
    from emollm.training.ray_train import fit
    from emollm.training.report import summary_report, training_bar

    with training_bar() as receive:
        summary = fit(
            config,
            on_step=receive.step,
            on_evaluation=receive.evaluation,
            on_note=receive.note,
            ask_teacher=ask_teacher,
        )
    Console(highlight=False).print(summary_report(config, summary))


def _fit_heads(config: TrainConfig) -> None:
    from emollm.commands.teacher import ask_teacher
    from emollm.core.progress import progress_bar
    from emollm.training.frozen import fit_frozen

    with progress_bar("reading posts", None, "posts") as advance:
        summary = fit_frozen(config, on_posts=lambda new, total: advance(new, total=total), ask_teacher=ask_teacher)
    print(
        f"{config.out}: heads on {' + '.join(summary['feature_specs'])}, {summary['texts']:,} texts, "
        "cross-validated (the same folds selected layers and regularisation):"
    )
    for task, metrics in summary["held_out"].items():
        print(f"  {task}: " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))

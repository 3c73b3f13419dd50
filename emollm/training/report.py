"""Output of a run on the terminal: a progress bar during the run, a summary at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from emollm.core.progress import console, progress_bar
from emollm.training.options import TrainConfig


class TrainingBar:
    """Updates a progress bar from reports. After a restart steps are repeated, and the bar goes back with them."""

    def __init__(self, advance: Callable[..., None]) -> None:
        self._advance = advance
        self._at = 0
        self._validation = ""

    def step(self, report: Any) -> None:
        note = (
            f"loss {report.loss:.3f}{self._validation}  {report.rows / report.seconds:.1f} rows/s  "
            f"{report.tokens / report.seconds:,.0f} tokens/s  {report.memory_gib:.1f} GiB"
        )
        self._advance(report.step - self._at, note=note, total=report.num_steps)
        self._at = report.step

    def evaluation(self, report: Any) -> None:
        self._validation = f" (validation {report.loss:.3f})"
        scores = "  ".join(_headline(task, values) for task, values in report.scores.items())
        if scores:
            self.note(f"step {report.step}: {scores}")

    def note(self, text: str) -> None:
        console.print(text, style="dim", soft_wrap=True)


@contextlib.contextmanager
def training_bar() -> Iterator[TrainingBar]:
    with progress_bar("fine-tuning", None, "steps") as advance:
        yield TrainingBar(advance)


def summary_report(config: TrainConfig, summary: dict[str, Any]) -> RenderableType:
    """The summary of a run, in lines."""
    table = Table.grid(padding=(0, 2))
    stopped = "" if summary["steps"] == summary["planned_steps"] else f" of {summary['planned_steps']:,}: stopped early"
    speed = summary["rows"] / summary["seconds"]
    table.add_row("steps", f"{summary['steps']:,}{stopped}, {summary['rows']:,} rows, {summary['tokens']:,} tokens")
    table.add_row("time", f"{summary['seconds']:,.0f} s in steps, {speed:.1f} rows/s, {summary['memory_gib']:.1f} GiB")
    unit = "per labelled question" if config.objective == "heads" else "per answer token"
    table.add_row("loss", f"{summary['first_loss']:.3f} -> {summary['last_loss']:.3f} nats {unit}")
    if summary["best_validation_loss"] is not None:
        table.add_row("validation", f"{summary['best_validation_loss']:.3f}, best at step {summary['best_step']:,}")
    for task, scores in summary["scores"].items():
        table.add_row(f"  {task}", _headline("", scores).strip())
    table.add_row("trained", f"{summary['trainable_parameters']:,} parameters")
    return Group(f"[bold]{config.out}[/bold]", table)


def _headline(task: str, scores: dict[str, float | None]) -> str:
    name, value = next(iter(scores.items()))
    return f"{task} {name} {'undefined' if value is None else f'{value:.3f}'}"

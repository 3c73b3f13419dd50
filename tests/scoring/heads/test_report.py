"""What a run with heads says of its loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from emollm.core.progress import console
from emollm.training.curves import draw_curves
from emollm.training.options import TrainConfig
from emollm.training.report import summary_report

SUMMARY: dict[str, Any] = {
    "steps": 2, "planned_steps": 2, "rows": 64, "tokens": 900, "seconds": 1.0, "memory_gib": 1.0, "first_loss": 1.5,
    "last_loss": 0.5, "best_validation_loss": None, "scores": {}, "trainable_parameters": 7,
}  # fmt: skip


@pytest.mark.parametrize(
    ("objective", "unit"),
    [("generate", "per answer token"), ("both", "per answer token"), ("heads", "per labelled question")],
)
def test_the_summary_names_what_the_loss_is_a_mean_over(objective: str, unit: str) -> None:
    config = TrainConfig.model_validate({"data": "d", "out": "o", "objective": objective})
    with console.capture() as shown:
        console.print(summary_report(config, SUMMARY))
    assert f"1.500 -> 0.500 nats {unit}" in shown.get()


def test_the_picture_names_no_unit_that_a_run_may_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Axes] = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda axes, *a, **k: (drawn.append(axes), plot(axes, *a, **k))[1])
    assert draw_curves(tmp_path / "curves.png", [{"step": 1, "loss": 1.5}, {"step": 2, "loss": 0.5}], [])
    assert drawn[0].get_ylabel() == "nats"

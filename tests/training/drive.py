"""A training that can be held: python -m tests.training.drive OPTIONS.json HOLD

Trains as `jobs/train.py` does, but takes no report of a step from the sixth on while the file HOLD is there. No more
than one report waits for it: some two steps later the workers stand still.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from emollm.core.options import run_job
from emollm.training.loop import StepReport
from emollm.training.options import TrainConfig
from emollm.training.ray_train import fit

HELD_AT = 6


def hold_workers() -> tuple[object, str, object]:
    """Arguments of a setattr: workers wait with a report until the driver has taken the one before."""
    from ray.util.queue import Queue

    return Queue.__init__, "__defaults__", (1, None)


def main(argv: Sequence[str] | None) -> None:
    assert argv is not None
    config, hold = TrainConfig.model_validate_json(Path(argv[0]).read_text()), Path(argv[1])
    setattr(*hold_workers())

    def on_step(report: StepReport) -> None:
        while report.step >= HELD_AT and hold.exists():
            time.sleep(0.05)

    fit(config, on_step=on_step, on_note=print)


if __name__ == "__main__":
    run_job(main)

"""Calibrate a model: emollm calibrate --model DIR --data DIR"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.core.options import read_config


def main(argv: Sequence[str]) -> None:
    from emollm.evaluation.options import CalibrateConfig

    config = read_config(CalibrateConfig, argv, prog="calibrate")

    from emollm.core.progress import progress_bar, table_console
    from emollm.evaluation.calibrate import calibrate_model
    from emollm.evaluation.calibration_maps import LEAST_ROWS
    from emollm.evaluation.report.terminal import gains_table, sets_table

    with progress_bar("calibrating", None, "questions") as advance:
        done = calibrate_model(config, on_rows=lambda new, total: advance(new, total=total))
    if done.gains:
        table_console().print(gains_table(done.gains, right_share=config.right_share))
    if done.sets:
        table_console().print(sets_table(done.sets))
    if done.left:
        print(f"not calibrated, with fewer than {LEAST_ROWS} answers in one half of the texts: {', '.join(done.left)}")
    print(f"{config.model}/affect.json now has the calibration; the engine that it was fitted for applies it")

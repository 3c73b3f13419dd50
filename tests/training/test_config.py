"""Impossible trainings are refused before anything starts."""

from __future__ import annotations

import pytest

from emollm.core.errors import ConfigError
from emollm.core.options import read_config
from emollm.training.options import TrainConfig

NEEDED = ["--data", "d", "--out", "o"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--global-batch-size", "20"], r"not a multiple of .* 8 x 2 = 16; try 16"),
        (["--cluster.num-workers", "3"], r"--global-batch-size 32 .* 8 x 3 = 24; try 24"),
        (["--epochs", "0"], "--epochs '0'.*greater than 0"),
        (["--zero-stage", "1"], "--zero-stage '1'"),
        (["--method", "qlora"], "'lora' or 'full'"),
        (["--objective", "heads", "--freeze", "--patience", "2"], "--patience needs training steps; --freeze"),
        (["--objective", "both", "--merge"], "--merge is for --objective generate"),
    ],
)
def test_refused(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(TrainConfig, [*NEEDED, *argv], prog="train")


@pytest.mark.parametrize(
    ("argv", "rate"),
    [
        ([], 1e-3),
        (["--method", "full"], 1e-4),
        (["--method", "full", "--learning-rate", "3e-5"], 3e-5),
        (["--recipe", "emollama-7b-lora"], 2e-4),
        (["--recipe", "emollama-7b"], 1e-6),
    ],
)
def test_the_learning_rate_follows_the_method(argv: list[str], rate: float) -> None:
    batch = ["--global-batch-size", "256"] if "--recipe" in argv else []
    config = read_config(TrainConfig, [*NEEDED, *batch, *argv], prog="train")
    assert config.learning_rate == rate
    assert TrainConfig.model_validate(config.model_dump()).learning_rate == rate


def test_accumulation_makes_up_the_batch() -> None:
    config = read_config(TrainConfig, [*NEEDED, "--global-batch-size", "64", "--micro-batch-size", "4"], prog="train")
    assert config.accumulation_steps == 8

"""The loop alone, without Ray: a golden run, and the same losses however a step is split."""

from __future__ import annotations

from pathlib import Path

import pytest

from emollm.core.errors import TrainingError
from emollm.core.prompts import questions_for
from emollm.core.tasks import select_tasks
from emollm.data.instructions import read_rows
from emollm.models.load import load_base, prompt_encoder
from emollm.scoring.open import open_scorer
from emollm.training.loop import StepReport, num_steps, rate_factor, train
from emollm.training.options import TrainConfig
from emollm.training.row_tokens import encode_rows
from tests.tiny import Family, tiny_model
from tests.training.ranks import options, train_here

GOLDEN = Path(__file__).parent / "golden_losses.txt"

pytestmark = pytest.mark.usefixtures("alone")


def run(base: Path, data: Path, **changes: object) -> list[StepReport]:
    config = options(base, data, epochs=2.0, **changes)
    loaded = load_base(config.base)
    rows = encode_rows(read_rows(data, "train").slice(0, config.max_rows), prompt_encoder(loaded))
    reports: list[StepReport] = []
    train(loaded, rows, config, rank=0, world_size=1, device="cpu", on_step=reports.append)
    return reports


@pytest.mark.slow
def test_golden_run(tiny_base: Path, sample_data: Path) -> None:
    """A refactor leaves these losses alone; a change that moves them edits the file and says why in its commit."""
    losses = [report.loss for report in run(tiny_base, sample_data)]
    golden = [float(line) for line in GOLDEN.read_text().splitlines()]
    assert losses == pytest.approx(golden, rel=2e-4)
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"micro_batch_size": 16}, {"micro_batch_size": 2, "zero_stage": 0}])
def test_losses_do_not_depend_on_how_a_step_is_cut(
    tiny_base: Path, sample_data: Path, changes: dict[str, object]
) -> None:
    golden = [float(line) for line in GOLDEN.read_text().splitlines()]
    assert [report.loss for report in run(tiny_base, sample_data, **changes)] == pytest.approx(golden, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("opt", {"gradient_checkpointing": True}),
        ("bloom", {"method": "lora", "learning_rate": 1e-2}),
        ("t5", {}),
        ("bart", {"method": "lora", "learning_rate": 1e-2}),
    ],
)
def test_every_architecture_learns_and_its_model_directory_answers(
    tmp_path: Path, sample_data: Path, family: Family, changes: dict[str, object]
) -> None:
    base = tiny_model(family, tmp_path / "base")
    losses = train_here(options(base, sample_data, out=tmp_path / "model", epochs=6.0, **changes))
    assert len(losses) == 24
    # An epoch is four steps: the last against the first, on the same rows.
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    asked = questions_for("what a day :)", select_tasks(["V-oc", "E-c"]))
    assert [answer.error for answer in open_scorer(str(tmp_path / "model")).score(asked)] == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 2])
def test_training_that_diverges_stops_and_names_rows(tiny_base: Path, sample_data: Path, zero_stage: int) -> None:
    message = r"(loss is (nan|inf)|gradients are not finite) at step \d.*--learning-rate.*semeval2018/"
    with pytest.raises(TrainingError, match=message):
        run(tiny_base, sample_data, zero_stage=zero_stage, learning_rate=1e30, max_gradient_norm=1e30)


def test_the_rate_rises_then_falls() -> None:
    config = TrainConfig(data=Path("d"), out=Path("o"), warmup_fraction=0.25)
    factors = [rate_factor(config, step, 8) for step in range(1, 9)]
    # Two steps of warm-up at 1/3 and 2/3, then half a cosine over six steps, from 1 down to just above 0.
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert factors[5] == pytest.approx(0.5)
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert 0 < factors[-1] < 0.1
    constant = TrainConfig(data=Path("d"), out=Path("o"), warmup_fraction=0.0, schedule="constant")
    assert {rate_factor(constant, step, 8) for step in range(1, 9)} == {1.0}


def test_steps_are_counted_in_full_batches() -> None:
    config = TrainConfig(data=Path("d"), out=Path("o"), global_batch_size=32, epochs=1.5)
    assert num_steps(config, 100) == 4  # 150 rows, 32 at a time
    assert num_steps(config, 3) == 1

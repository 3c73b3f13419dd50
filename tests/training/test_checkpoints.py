"""A stopped run goes on exactly; damage is seen; a full disk harms nothing; the best weights are the ones kept."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import pytest
import torch

from emollm.core.errors import TrainingError
from emollm.core.options import with_values
from emollm.training.checkpoints import Position, damage, finished_folders, read_checkpoint
from emollm.training.validation import evaluation_steps
from tests.training.ranks import options, run_training

pytestmark = pytest.mark.usefixtures("alone")


@pytest.mark.slow
def test_a_run_with_dropout_continues_exactly_and_skips_a_damaged_checkpoint(
    tiny_base: Path, sample_data: Path, tmp_path: Path
) -> None:
    config = options(
        tiny_base, sample_data, method="lora", lora_dropout=0.3, checkpoint_steps=2, max_rows=128, keep_checkpoints=3
    )
    whole = run_training(config, tmp_path)
    assert [path.name for path in finished_folders(tmp_path)] == ["step-00000002", "step-00000004", "step-00000006"]
    assert all(damage(path) is None for path in finished_folders(tmp_path))

    (part,) = (tmp_path / "step-00000006").glob("*.safetensors")
    part.write_bytes(part.read_bytes()[:-10])
    (part,) = (tmp_path / "step-00000004").glob("*.safetensors")
    changed = bytearray(part.read_bytes())
    changed[-5] ^= 1
    part.write_bytes(changed)
    (tmp_path / ".writing-step-00000007").mkdir()
    again = run_training(config, tmp_path)
    assert again.resumed_at == 2
    assert ["bytes, not" in again.notes[0], "has changed since it was written" in again.notes[1]] == [True, True]
    assert again.losses == whole.losses[2:]  # bit for bit
    assert not list(tmp_path.glob(".writing-*"))

    # The damaged do not count among those kept; when all are damaged, the run starts anew.
    assert len(list(tmp_path.glob("damaged-step-*"))) == 2
    assert [path.name for path in finished_folders(tmp_path)] == ["step-00000002", "step-00000004", "step-00000006"]
    for path in finished_folders(tmp_path):
        (path / "checkpoint.json").write_text("{}")
    anew = run_training(config, tmp_path)
    assert (anew.resumed_at, anew.losses) == (0, whole.losses)


@pytest.mark.slow
def test_the_best_weights_are_kept_and_patience_ends_the_run(
    tiny_base: Path, sample_data: Path, tmp_path: Path
) -> None:
    # Far too high a rate: the loss on held-out rows rises, and the first evaluation stays the best.
    config = options(
        tiny_base, sample_data, learning_rate=10.0, max_gradient_norm=100.0, num_evaluations=8, validation_rows=8,
        patience=2, max_rows=128, keep_checkpoints=1, schedule="constant",
    )  # fmt: skip
    run = run_training(config, tmp_path)
    best = run.position.best_step
    assert best is not None
    assert [report.step for report in run.evaluations] == list(range(1, run.position.step + 1))
    assert run.position.step == best + 2 < 8
    losses = [report.loss for report in run.evaluations]
    assert losses[best - 1] == min(losses)
    saved = read_checkpoint(tmp_path / f"best-{best:08}")
    assert saved.position.best_loss == min(losses)
    assert finished_folders(tmp_path) == []  # a better evaluation alone saves no moments
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / f"best-{best:08}" / "part-0-of-1.safetensors")
    assert {key.split(":")[1] for key in tensors} == {"weight"}
    for name, parameter in run.loaded.model.named_parameters():
        expected = tensors[f"model.{name}:weight:0"]
        torch.testing.assert_close(parameter.detach().flatten(), expected, rtol=0, atol=0)


@pytest.mark.slow
def test_a_run_that_goes_on_still_ends_with_weights_that_were_best_before(
    tiny_base: Path, sample_data: Path, tmp_path: Path
) -> None:
    config = options(
        tiny_base, sample_data, learning_rate=3.0, max_gradient_norm=100.0, num_evaluations=8, validation_rows=8,
        max_rows=128, keep_checkpoints=1, checkpoint_steps=3, schedule="constant",
    )  # fmt: skip
    whole = run_training(config, tmp_path)
    best = whole.position.best_step
    assert best is not None and best < 6
    assert [path.name for path in finished_folders(tmp_path)] == ["step-00000006"]
    assert [path.name for path in finished_folders(tmp_path, "best")] == [f"best-{best:08}"]
    again = run_training(config, tmp_path)
    assert (again.resumed_at, again.position) == (6, whole.position)
    for one, other in zip(whole.loaded.model.parameters(), again.loaded.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_leaves_the_checkpoint_before(
    tiny_base: Path, sample_data: Path, tmp_path: Path
) -> None:
    config = options(tiny_base, sample_data, checkpoint_steps=2, max_rows=128)
    run_training(with_values(config, keep_checkpoints=8), tmp_path)
    for path in finished_folders(tmp_path)[1:]:
        shutil.rmtree(path)
    (first,) = finished_folders(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # no file may grow larger: an error like a full disk
    try:
        with pytest.raises(
            TrainingError, match=r"cannot write the checkpoint of step \d.*free some space, then run the same"
        ):
            run_training(config, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert finished_folders(tmp_path) == [first]
    assert damage(first) is None
    assert not list(tmp_path.glob(".writing-*"))


def test_the_position_counts_what_patience_needs() -> None:
    position = Position(step=1).evaluated(2.0)
    assert (position.best_step, position.best_loss, position.since_best) == (1, 2.0, 0)
    worse = Position(step=2, best_step=1, best_loss=2.0).evaluated(float("nan"))
    assert (worse.best_step, worse.since_best, worse.evaluations) == (1, 1, 1)


def test_evaluations_are_spread_over_the_run(tiny_base: Path, sample_data: Path) -> None:
    config = options(tiny_base, sample_data, num_evaluations=4)
    assert evaluation_steps(config, 100) == [25, 50, 75, 100]
    assert evaluation_steps(config, 2) == [1, 2]

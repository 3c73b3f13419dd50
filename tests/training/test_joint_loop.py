"""Heads in the training loop, without Ray: evaluated on the way, the best weights kept, continued exactly."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from emollm.training.checkpoints import finished_folders
from emollm.training.joint import StartingHeads
from emollm.training.loop import num_steps
from emollm.training.options import TrainConfig
from emollm.training.starting_heads import starting_heads
from emollm.training.worker import rows_of
from tests.training.ranks import Run, options, run_training

pytestmark = [pytest.mark.usefixtures("alone"), pytest.mark.slow]

TASKS = ("V-reg", "E-c")


def heads_options(base: Path, data: Path, **changes: Any) -> TrainConfig:
    settings = {
        "objective": "heads", "tasks": TASKS, "num_wordings": 1, "max_rows": None, "epochs": 0.2, "method": "lora",
        "heads": {"layers": [2], "poolings": ["mean"], "use_all_features": True}, "validation_rows": 24,
        "metric_rows": 8,
    }  # fmt: skip
    return options(base, data, **{**settings, **changes})


@pytest.fixture(scope="module")
def start(tiny_base: Path, sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> StartingHeads:
    """Heads of the frozen base, from a data folder whose validation rows cannot be read."""
    data = tmp_path_factory.mktemp("heads") / "aaid"
    shutil.copytree(sample_data, data)
    (data / "validation.parquet").write_bytes(b"closed")
    return starting_heads(heads_options(tiny_base, data, out=data.with_name("model")), device="cpu")


def test_a_run_that_continues_starts_from_the_heads_that_it_kept(
    tiny_base: Path, sample_data: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    config = heads_options(base, sample_data, out=tmp_path / "model")
    first = starting_heads(config, device="cpu", keep=tmp_path / "start")
    shutil.rmtree(base)  # so no text can be read again
    again = starting_heads(config, device="cpu", keep=tmp_path / "start")
    assert (again.prompt, again.feature_specs, again.heads) == (first.prompt, first.feature_specs, first.heads)
    for a, b in ((again.head_weights, first.head_weights), (again.scale, first.scale)):
        for name in a.__slots__:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert again.tasks == first.tasks and (again.held_out_N == first.held_out_N).all()


@pytest.mark.parametrize("objective", ["heads", "both"])
def test_a_run_is_evaluated_during_training_and_continues_exactly(
    tiny_base: Path, sample_data: Path, tmp_path: Path, start: StartingHeads, objective: str
) -> None:
    config = heads_options(
        tiny_base, sample_data, objective=objective, num_evaluations=2, metrics_every=2, checkpoint_steps=2,
        keep_checkpoints=9, lora_dropout=0.2,
    )  # fmt: skip
    whole = run_training(config, tmp_path, start=start)
    last = whole.steps[-1].step
    assert [len(report.scores) for report in whole.evaluations] == [0, 2]
    assert set(whole.evaluations[-1].scores) == set(TASKS)
    assert whole.evaluations[-1].step == last == num_steps(config, len(rows_of(config, whole.loaded, whole.joint)))
    assert whole.joint is not None and len(whole.joint.backbone.blocks) == 2  # asking the heads cut off no layer

    for path in finished_folders(tmp_path)[1:]:
        shutil.rmtree(path)
    again = run_training(config, tmp_path, start=start)
    assert 0 < again.resumed_at < last
    assert again.losses == whole.losses[again.resumed_at :]  # bit for bit
    before = [(r.loss, r.scores) for r in whole.evaluations if r.step > again.resumed_at]
    assert [(r.loss, r.scores) for r in again.evaluations] == before
    torch.testing.assert_close(state(again), state(whole), rtol=0, atol=0)


def test_the_validation_loss_is_the_mean_over_the_questions_of_the_texts(
    tiny_base: Path, sample_data: Path, start: StartingHeads
) -> None:
    config = heads_options(tiny_base, sample_data, num_evaluations=1, validation_rows=9999)
    run = run_training(config, None, start=start)
    assert run.joint is not None
    rows = rows_of(config, run.loaded, run.joint, "validation")
    run.loaded.model.eval()
    with torch.no_grad():
        micro = run.joint.collate(rows)
        loss = float(run.joint.module(micro.inputs, micro.labels_BT))
    # Each text once, with two questions: its valence and its emotions.
    assert run.evaluations[0].loss == pytest.approx(loss / (2 * len(rows)), rel=1e-4)
    assert len({row.id for row in rows}) == len(rows) > 50


def test_the_best_heads_are_kept_and_patience_ends_the_run(
    tiny_base: Path, sample_data: Path, tmp_path: Path, start: StartingHeads
) -> None:
    # Far too high a rate: the loss on held-out texts rises.
    config = heads_options(
        tiny_base, sample_data, method="full", learning_rate=3.0, max_gradient_norm=100.0, num_evaluations=8,
        epochs=0.4, patience=2, keep_checkpoints=1, schedule="constant",
    )  # fmt: skip
    run = run_training(config, tmp_path, start=start)
    best = run.position.best_step
    assert best is not None and run.position.step < num_steps(config, len(rows_of(config, run.loaded, run.joint)))
    losses = {report.step: report.loss for report in run.evaluations}
    assert losses[best] == min(losses.values()) < max(losses.values())
    saved = load_file(tmp_path / f"best-{best:08}" / "part-0-of-1.safetensors")
    trained = state(run)
    assert {"change_OF", "change_O"} <= set(trained)
    torch.testing.assert_close(
        {f"{name}:weight:0": value.flatten() for name, value in trained.items()},
        saved,
        rtol=0,
        atol=0,
    )


def state(run: Run) -> dict[str, torch.Tensor]:
    """What was trained, by name."""
    assert run.joint is not None
    return {name: p.detach() for name, p in run.joint.module.named_parameters() if p.requires_grad}

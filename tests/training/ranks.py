"""Trainings of a tiny model without Ray: in this process, or in two that a test starts."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from emollm.models.load import LoadedModel, attach_lora, load_base
from emollm.training.checkpoints import Checkpoints, Position
from emollm.training.joint import Joint, StartingHeads
from emollm.training.loop import StepReport, train
from emollm.training.options import TrainConfig
from emollm.training.ray_train import finished, prepared
from emollm.training.rows import training_tasks
from emollm.training.run_folder import run_folder
from emollm.training.validation import EvaluationReport
from emollm.training.worker import joint_of, rows_of, run_worker, validator_of


def options(base: Path, data: Path, **changes: Any) -> TrainConfig:
    settings = {
        "data": data, "out": "unused", "base": str(base), "method": "full", "max_rows": 64, "global_batch_size": 16,
        "micro_batch_size": 4, "learning_rate": 3e-3, "precision": "float32", "num_evaluations": 0,
        "lora_rank": 3, "lora_alpha": 8,
        "cluster": {"num_workers": 1},
    }  # fmt: skip
    return TrainConfig.model_validate({**settings, **changes})


class Run:
    """What one training reported."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.evaluations: list[EvaluationReport] = []
        self.notes: list[str] = []
        self.resumed_at = 0
        self.position = Position()
        self.loaded: LoadedModel
        self.joint: Joint | None = None

    @property
    def losses(self) -> list[float]:
        return [report.loss for report in self.steps]


def run_training(
    config: TrainConfig, checkpoints: Path | None, *, rank: int = 0, base: str | None = None,
    start: StartingHeads | None = None,
) -> Run:  # fmt: skip
    """Train in the process group there is; `base` stands for the fingerprint of other weights, `start` is where heads
    begin.
    """
    run = Run()
    world_size = config.cluster.num_workers
    run.loaded = loaded = _load(config)
    run.joint = joint = joint_of(config, loaded, start, "cpu")
    kept = checkpoints and Checkpoints(
        checkpoints, base=base or loaded.card.base.fingerprint, keep=config.keep_checkpoints, rank=rank,
        world_size=world_size, on_note=run.notes.append,
    )  # fmt: skip

    def on_resume(step: int) -> None:
        run.resumed_at = step

    _, run.position = train(
        loaded, rows_of(config, loaded, joint), config, rank=rank, world_size=world_size, device="cpu",
        on_step=run.steps.append, objective=joint,
        validator=validator_of(config, loaded, joint, rank=rank, world_size=world_size, device="cpu"),
        on_evaluation=run.evaluations.append,
        checkpoints=kept or None, on_resume=on_resume,
    )  # fmt: skip
    return run


def train_here(config: TrainConfig, *, start: StartingHeads | None = None) -> list[float]:
    """The whole of `ray_train.fit` but Ray, in the process group of one there is; returns the losses of the steps.

    The model directory is in its place, loaded again and compared.
    """
    config, reports = prepared(config), list[object]()
    with run_folder(config) as run:
        run_worker(config, run, rank=0, world_size=1, device="cpu", send=reports.append, start=start)
        summary = finished(config, run)
    assert summary["reload_difference"] < 1e-2
    return [report.loss for report in reports if isinstance(report, StepReport)]


def _load(config: TrainConfig) -> LoadedModel:
    torch.manual_seed(config.seed)
    loaded = load_base(config.base)
    loaded = replace(loaded, card=loaded.card.model_copy(update={"tasks": training_tasks(config)}))
    if config.method == "full":
        return loaded
    model = attach_lora(loaded.model, rank=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout)
    return LoadedModel(model, loaded.tokenizer, loaded.card)


def run_cases(rank: int, store: str, cases: list[tuple[str, dict[str, Any]]], out: str) -> None:
    """What each of two processes does: the cases one after the other; rank 0 writes what they gave."""
    os.environ.update(HF_HUB_OFFLINE="1", RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK="0")  # as torchrun sets them
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for name, settings in cases:
        config = TrainConfig.model_validate({**settings, "cluster": {"num_workers": 2}})
        run = run_training(config, Path(out) / name, rank=rank)
        if rank == 0:
            gave = {"losses": run.losses, "evaluations": [(e.loss, e.scores) for e in run.evaluations]}
            (Path(out) / f"{name}.json").write_text(json.dumps(gave))
    dist.destroy_process_group()

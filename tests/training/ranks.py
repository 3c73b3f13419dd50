"""Trainings of a tiny model without Ray: in this process, or in two that a test starts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from emollm.models import LoadedModel, attach_lora, load_base, prompt_encoder
from emollm.training.batches import encode_rows
from emollm.training.checkpoints import Checkpoints, Position
from emollm.training.config import TrainConfig
from emollm.training.loop import StepReport, train
from emollm.training.rows import training_rows
from emollm.training.validation import EvaluationReport, Validator, drawn_rows
from emollm.training.worker import metric_questions


def options(base: Path, data: Path, **changes: Any) -> TrainConfig:
    settings = {
        "data": data, "out": "unused", "base": str(base), "method": "full", "max_rows": 64, "global_batch_size": 16,
        "micro_batch_size": 4, "learning_rate": 3e-3, "precision": "float32", "evaluations": 0,
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

    @property
    def losses(self) -> list[float]:
        return [report.loss for report in self.steps]


def run_training(config: TrainConfig, checkpoints: Path | None, *, rank: int = 0, base: str | None = None) -> Run:
    """Train in the process group there is; `base` stands for the fingerprint of other weights."""
    run = Run()
    world_size = config.cluster.num_workers
    run.loaded = loaded = _load(config)
    encoder = prompt_encoder(loaded)
    validator = None
    if config.evaluations:
        table = training_rows(config, "validation")
        rows = encode_rows(table.take(drawn_rows(table.num_rows, config.validation_rows, config.seed)), encoder)
        questions = metric_questions(config, loaded.card.tasks) if config.metrics_every else []
        validator = Validator(loaded, rows, questions, config, rank=rank, world_size=world_size, device="cpu")
    kept = checkpoints and Checkpoints(
        checkpoints, base=base or loaded.card.base.fingerprint, keep=config.keep_checkpoints, rank=rank,
        world_size=world_size, on_note=run.notes.append,
    )  # fmt: skip

    def on_resume(step: int) -> None:
        run.resumed_at = step

    _, run.position = train(
        loaded, encode_rows(training_rows(config), encoder), config, rank=rank, world_size=world_size, device="cpu",
        on_step=run.steps.append, validator=validator, on_evaluation=run.evaluations.append,
        checkpoints=kept or None, on_resume=on_resume,
    )  # fmt: skip
    return run


def _load(config: TrainConfig) -> LoadedModel:
    torch.manual_seed(config.seed)
    loaded = load_base(config.base)
    if config.method == "full":
        return loaded
    model = attach_lora(loaded.model, rank=3, alpha=8, dropout=config.lora_dropout)
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

"""Evaluation during training: the validation loss, and at some evaluations task metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from emollm.metrics.predictions import Prediction
from emollm.metrics.questions import GoldQuestion
from emollm.metrics.scores import score_results
from emollm.models.device import activation_bytes, default_batch_tokens
from emollm.models.load import base_of
from emollm.training.batches import EncodedRow
from emollm.training.feed import fed
from emollm.training.objective import Objective
from emollm.training.options import TrainConfig

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """Report of one evaluation."""

    step: int
    loss: float
    """Mean nats per answer token, or for heads per labelled question, over the validation rows."""
    is_best: bool
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """Metrics by task, if they were computed; None is undefined."""
    seconds: float = 0.0


def evaluation_steps(config: TrainConfig, num_steps: int) -> list[int]:
    """The steps after which the model is evaluated: evenly spread over the run, including the last."""
    count = config.num_evaluations or 0
    return sorted({max(1, round(num_steps * (i + 1) / count)) for i in range(count)})


def drawn_rows(num_rows: int, count: int, seed: int) -> list[int]:
    """The validation rows in use: `count` of them, drawn once, in their order."""
    rng = np.random.default_rng(seed)
    return sorted(rng.permutation(num_rows)[:count].tolist())


class Validator:
    """Every rank calls it at the same steps. With ZeRO-3 a forward pass gathers weights from all ranks, so all ranks
    run equally many.
    """

    def __init__(
        self,
        rows: Sequence[EncodedRow],
        questions: Sequence[GoldQuestion],
        config: TrainConfig,
        *,
        rank: int,
        world_size: int,
        device: str,
    ) -> None:
        self._rows = rows
        self._questions = questions
        self._config = config
        self._rank, self._world_size, self._device = rank, world_size, device

    @torch.no_grad()
    def loss(self, engine: Any, objective: Objective) -> float:
        """Like `StepReport.loss`, over all validation rows. Collective."""
        batches = objective.cut(self._rows, self._rows_at_once(objective))
        # After its last batch a rank repeats the first ones, to stay in step, without counting them.
        mine = [first + self._rank for first in range(0, len(batches), self._world_size)]
        micros = fed([batches[i % len(batches)] for i in mine], objective, device=self._device)
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for i, micro in zip(mine, micros, strict=True):
            loss = engine(micro.inputs, micro.labels_BT)
            if i < len(batches):
                total += loss
        if self._world_size > 1:
            dist.all_reduce(total)
        return float(total) / sum(len(row.answer) for row in self._rows)

    def _rows_at_once(self, objective: Objective) -> int:
        """Rows that fill the device, more than in training without gradients; equal on all ranks. Collective."""
        model = base_of(objective.module.model)
        longest = max(map(len, self._rows))
        answered = max(len(row.answer) for row in self._rows)
        # For each answer token the logits and their softmax in float32, and before that in the model's own type.
        logits = 12 * answered * model.config.get_text_config().vocab_size
        bytes_per_token = activation_bytes(model) + logits // longest
        fitting = default_batch_tokens(self._device, bytes_per_token=bytes_per_token) // longest
        rows = torch.tensor(max(self._config.micro_batch_size, fitting), device=self._device)
        if self._world_size > 1:
            dist.all_reduce(rows, op=dist.ReduceOp.MIN)
        return int(rows)

    def scores(self, objective: Objective) -> dict[str, dict[str, float | None]]:
        """Metrics by task of the current model, scored as at inference. Collective."""
        together = self._config.zero_stage == 3 or self._world_size == 1
        mine = self._questions if together else self._questions[self._rank :: self._world_size]
        values = [answer.value for answer in objective.scorer().score([q.asked for q in mine])]
        if not together:
            values = gathered(values, self._world_size)
        predictions = [Prediction(question=q, value=value) for q, value in zip(self._questions, values, strict=True)]
        return {
            result.task: {name: None if math.isnan(value) else value for name, value in result.scores.items()}
            for result in score_results(predictions)
        }


def gathered(mine: Sequence[T], world_size: int) -> list[T]:
    """All ranks' items in their order, of which rank r has every `world_size`-th, from the r-th on. Collective."""
    parts: list[Any] = [None] * world_size
    dist.all_gather_object(parts, mine)
    together: list[Any] = [None] * sum(map(len, parts))
    for rank, part in enumerate(parts):
        together[rank::world_size] = part
    return together


def timed() -> Callable[[], float]:
    """Seconds since this call."""
    started = time.perf_counter()
    return lambda: time.perf_counter() - started

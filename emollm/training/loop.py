"""The training loop: reads top to bottom, knows DeepSpeed and no Ray.

Run it under Ray Train (`fit.py`), under torchrun, or alone in a process with a process group of one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from emollm.errors import TrainingError
from emollm.models import LoadedModel
from emollm.precision import resolve_precision
from emollm.training.batches import EncodedRow, share, steps
from emollm.training.config import TrainConfig
from emollm.training.objective import Answers, Objective
from emollm.training.zero import start_engine


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one optimizer step did, summed over all workers."""

    step: int
    num_steps: int
    loss: float
    """Mean nats an answer token, or of heads a labelled question."""
    learning_rate: float
    rows: int
    tokens: int
    """Prompt and answer tokens, padding not counted."""
    seconds: float


def num_steps(config: TrainConfig, num_rows: int) -> int:
    """Optimizer steps of a run: full batches only, and at least one."""
    return max(1, int(config.epochs * num_rows / config.global_batch_size))


def train(
    loaded: LoadedModel,
    rows: Sequence[EncodedRow],
    config: TrainConfig,
    *,
    rank: int,
    world_size: int,
    device: str,
    on_step: Callable[[StepReport], None],
    objective: Objective | None = None,
) -> None:
    """Fine-tune `loaded.model` in place. Every rank calls it with the same rows, in the same order.

    The loss of a step is the mean over all answer tokens of its global batch, so it does not depend on how the
    batch is split over workers and micro-batches. `objective` is what is learnt; None: the answers. Raises
    TrainingError when the loss or its gradients are not finite.
    """
    total = num_steps(config, len(rows))
    torch.manual_seed(config.seed)
    if config.gradient_checkpointing:
        loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        loaded.model.enable_input_require_grads()
    loaded.model.train()
    precision = resolve_precision(config.precision, device)
    objective = objective or Answers(loaded, device)
    engine = start_engine(objective.module, config, precision=precision, device=device)
    autocast = torch.autocast(
        "cuda" if device != "cpu" else "cpu",
        dtype=torch.bfloat16,
        enabled=precision is torch.bfloat16,
    )
    batches = steps(rows, global_batch_size=config.global_batch_size, num_steps=total, seed=config.seed)
    for step, batch in enumerate(batches, start=1):
        started = time.perf_counter()
        learning_rate = config.learning_rate * rate_factor(config, step, total)
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate
        answer_tokens = sum(len(row.answer) for row in batch)
        # DeepSpeed averages over workers and micro-batches; this makes that a mean over answer tokens.
        scale = world_size * config.accumulation_steps / answer_tokens
        loss_sum = torch.zeros((), device=device)
        for micro in share(batch, rank=rank, world_size=world_size, micro_batch_size=config.micro_batch_size):
            inputs = objective.collate(micro)
            with autocast:
                loss = engine(inputs.inputs, inputs.labels_BT)
            engine.backward(loss * scale)
            engine.step()
            loss_sum += loss.detach()
        if world_size > 1:
            dist.all_reduce(loss_sum)
        mean = loss_sum.item() / answer_tokens
        # DeepSpeed skips a step with non-finite gradients and trains on, to no effect, with a finite loss.
        norm = engine.get_global_grad_norm()
        finite_gradients = not engine.skipped_steps and (norm is None or math.isfinite(norm))
        if not (math.isfinite(mean) and finite_gradients):
            what = "gradients are not finite" if math.isfinite(mean) else f"loss is {mean}"
            raise TrainingError(
                f"the {what} at step {step}; lower --learning-rate (now {config.learning_rate:g}), "
                f"or look at the rows of this step: {', '.join(row.id for row in batch[:5])}, ..."
            )
        on_step(
            StepReport(
                step=step,
                num_steps=total,
                loss=mean,
                learning_rate=learning_rate,
                rows=len(batch),
                tokens=sum(len(row.prompt) + len(row.answer) for row in batch),
                seconds=time.perf_counter() - started,
            )
        )


def rate_factor(config: TrainConfig, step: int, total: int) -> float:
    """Learning rate at `step` (from 1) as a share of the peak."""
    warmup = round(config.warmup_fraction * total)
    if step <= warmup:
        return step / (warmup + 1)
    done = (step - 1 - warmup) / max(1, total - warmup)
    match config.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            return 1 - done
        case "constant":
            return 1.0

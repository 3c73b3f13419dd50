"""The training loop, to be read top to bottom. It uses DeepSpeed and no Ray.

It runs in an existing process group: `ray_train.py` starts one on a cluster.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist

from emollm.core.errors import TrainingError
from emollm.models.load import LoadedModel
from emollm.models.precision import DTYPES, training_precision
from emollm.training.batches import EncodedRow, steps
from emollm.training.checkpoints import Checkpoints, Position
from emollm.training.feed import fed_steps
from emollm.training.objective import Answers, Objective
from emollm.training.options import TrainConfig
from emollm.training.validation import EvaluationReport, Validator, evaluation_steps, timed
from emollm.training.zero import start_engine


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """Report of one optimizer step, summed over all workers."""

    step: int
    num_steps: int
    loss: float
    """Mean nats per answer token, or for heads per labelled question."""
    learning_rate: float
    rows: int
    tokens: int
    """Prompt and answer tokens, padding not counted."""
    seconds: float
    memory_gib: float
    """Peak memory of the first worker: of its GPU, or on a CPU of its process."""


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
    validator: Validator | None = None,
    on_evaluation: Callable[[EvaluationReport], None] = lambda _: None,
    checkpoints: Checkpoints | None = None,
    on_resume: Callable[[int], None] = lambda _: None,
) -> tuple[Any, Position]:
    """Fine-tune `loaded.model` in place; return the DeepSpeed engine around it and the final position.

    Every rank calls it with the same rows, in the same order. The loss of a step is the mean over all answer tokens of
    its global batch, so it does not depend on how the batch is split over workers and micro-batches. `objective`
    None: the answers. With `checkpoints` it goes on from the newest one (`on_resume` gets its step, 0 if there is
    none), and with a `validator` too it ends with the best weights seen. Raises TrainingError, on every
    rank, when the loss or its gradients are not finite or a checkpoint cannot be written.
    """
    total = num_steps(config, len(rows))
    torch.manual_seed(config.seed)
    if config.gradient_checkpointing:
        loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        loaded.model.enable_input_require_grads()
    loaded.model.train()
    precision = DTYPES[training_precision(config.precision, device)]
    objective = objective or Answers(loaded, device)
    engine = start_engine(objective.module, config, precision=precision, device=device)
    autocast = torch.autocast(
        "cuda" if device != "cpu" else "cpu",
        dtype=torch.bfloat16,
        enabled=precision is torch.bfloat16,
    )

    position = Position()
    if checkpoints:
        if found := checkpoints.newest():
            checkpoints.load(engine, found)
            position = found.position
        on_resume(position.step)
    evaluate_after = evaluation_steps(config, total) if validator else []
    last_saved = time.monotonic()
    batches = steps(rows, global_batch_size=config.global_batch_size, num_steps=total, seed=config.seed)
    left = islice(batches, position.step, None)
    feed = fed_steps(left, objective, config, rank=rank, world_size=world_size, device=device)
    for step, (batch, micro_batches) in enumerate(feed, start=position.step + 1):
        if _is_over(config, position):
            break
        started = time.perf_counter()
        # Dropout too depends only on the seed and the step, so a continued run equals an undisturbed one.
        torch.manual_seed((config.seed * 1_000_003 + step) * 4099 + rank)
        learning_rate = config.learning_rate * rate_factor(config, step, total)
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate
        answer_tokens = sum(len(row.answer) for row in batch)
        # DeepSpeed averages over workers and micro-batches; this factor turns it into a mean over answer tokens.
        scale = world_size * config.accumulation_steps / answer_tokens
        loss_sum = torch.zeros((), device=device)
        for micro in micro_batches:
            with autocast:
                loss = engine(micro.inputs, micro.labels_BT)
            engine.backward(loss * scale)
            engine.step()
            loss_sum += loss.detach()
        # One message per step: the loss, whether it is time to save, whether a rank is still writing.
        late = rank == 0 and time.monotonic() - last_saved > 60 * config.checkpoint_minutes
        is_writing = checkpoints is not None and checkpoints.is_writing
        sums = torch.stack([loss_sum, *torch.tensor([float(late), float(is_writing)], device=device)])
        if world_size > 1:
            dist.all_reduce(sums)
        mean = sums[0].item() / answer_tokens
        save_now, all_written = bool(sums[1] > 0), bool(sums[2] == 0)
        # DeepSpeed skips a step with non-finite gradients and continues, without training, with a finite loss.
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
                tokens=sum(map(len, batch)),
                seconds=time.perf_counter() - started,
                memory_gib=peak_memory_gib(device),
            )
        )
        if checkpoints and checkpoints.is_pending and all_written:
            checkpoints.commit()
        position = replace(position, step=step)
        if validator and step in evaluate_after:
            seconds = timed()
            engine.eval()
            with autocast:
                loss_now = validator.loss(engine, objective)
            position = position.evaluated(loss_now)
            with_scores = config.metrics_every and position.evaluations % config.metrics_every == 0
            scores = validator.scores(objective) if with_scores else {}
            engine.train()
            is_best = position.best_step == step
            if checkpoints and is_best and step < total:
                checkpoints.save_best(engine, position)
            on_evaluation(EvaluationReport(step=step, loss=loss_now, is_best=is_best, scores=scores, seconds=seconds()))
        if checkpoints:
            save_now |= config.checkpoint_steps is not None and step % config.checkpoint_steps == 0
            if save_now and step < total:
                checkpoints.save(engine, position)
                last_saved = time.monotonic()

    if checkpoints:
        checkpoints.commit()
        if position.best_step not in (None, position.step):
            checkpoints.load_weights(engine, position.best_step)
    return engine, position


def _is_over(config: TrainConfig, position: Position) -> bool:
    """Whether `patience` evaluations have passed without a better one."""
    return config.patience is not None and position.since_best >= config.patience


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


def peak_memory_gib(device: str) -> float:
    """Peak memory so far: of the GPU, or on a CPU of this process."""
    if device != "cpu":
        return float(torch.cuda.max_memory_allocated()) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

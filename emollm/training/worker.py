"""The work of each training process: load, train, save and verify. Without Ray."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from emollm.core import errors
from emollm.core.card import AffectCard
from emollm.core.errors import DataError, EmollmError, ModelError, ResourceError, TrainingError
from emollm.core.folders import write_json
from emollm.core.heads_card import Head
from emollm.core.tasks import Task
from emollm.metrics.questions import GoldQuestion, load_questions
from emollm.models.load import LoadedModel, attach_adapter, attach_lora, load_base, max_tokens, prompt_encoder
from emollm.models.precision import DTYPES, training_precision
from emollm.models.save import probe_logits, round_adapter, save_model, tolerance, trained_dtype, verify_saved
from emollm.scoring.heads.labels import read_labels
from emollm.scoring.heads.weights import HeadWeights
from emollm.training.batches import EncodedRow
from emollm.training.checkpoints import Checkpoints
from emollm.training.joint import Joint, StartingHeads, verify_heads
from emollm.training.loop import StepReport, train
from emollm.training.objective import Answers
from emollm.training.options import TrainConfig
from emollm.training.row_tokens import RowTokens, encode_rows, shared_rows
from emollm.training.rows import training_facts, training_rows, training_tasks
from emollm.training.run_folder import RunFolder, append_line
from emollm.training.validation import EvaluationReport, Validator, drawn_rows
from emollm.training.zero import whole_parameters

MOST_METRIC_QUESTIONS = 2048
"""Asked for task metrics at an evaluation, over all tasks and emotions."""

Report = StepReport | EvaluationReport | str
"""A step, an evaluation, or a note for the user."""


def dispatch(
    report: Report,
    *,
    on_step: Callable[[StepReport], None],
    on_evaluation: Callable[[EvaluationReport], None],
    on_note: Callable[[str], None],
) -> None:
    """Pass a report to its receiver."""
    if isinstance(report, StepReport):
        on_step(report)
    elif isinstance(report, EvaluationReport):
        on_evaluation(report)
    else:
        on_note(report)


def run_worker(
    config: TrainConfig, run: RunFolder, *, rank: int, world_size: int, device: str, send: Callable[[Report], None],
    start: Any = None,
) -> None:  # fmt: skip
    """Train with the other ranks and, on rank 0, leave the verified model in the run's folder. Needs a process group.

    An error of emollm would only occur again: it is written to a file, and workers that find one do nothing.
    """
    if run.error.exists():
        return
    try:
        send = send if rank == 0 else lambda _: None
        _run(config, run, rank=rank, world_size=world_size, device=device, send=send, start=start)
    except EmollmError as error:
        _write_error(run, error)
        raise
    except torch.OutOfMemoryError as error:
        first = str(error).strip().split("\n")[0]
        wrong = ResourceError(
            f"a worker's GPU memory is full ({first}); lower --micro-batch-size (now {config.micro_batch_size}), add "
            "--gradient-checkpointing, or see what fits: the same command with --plan"
        )
        _write_error(run, wrong)
        raise wrong from None


def _write_error(run: RunFolder, error: EmollmError) -> None:
    write_json(run.error, {"type": type(error).__name__, "message": str(error)})


def raise_written_error(run: RunFolder) -> None:
    """Raise the error that a worker has written, if any."""
    if run.error.exists():
        written = json.loads(run.error.read_text(encoding="utf-8"))
        cls: type[EmollmError] = getattr(errors, written["type"])
        raise cls(written["message"])


def _run(
    config: TrainConfig, run: RunFolder, *, rank: int, world_size: int, device: str, send: Callable[[Report], None],
    start: Any,
) -> None:  # fmt: skip
    torch.manual_seed(config.seed)
    loaded = _load(config, device)
    joint = joint_of(config, loaded, start, device)
    rows = rows_of(config, loaded, joint, tokens=run.tokens, rank=rank)
    validator = validator_of(config, loaded, joint, rank=rank, world_size=world_size, device=device)
    checkpoints = Checkpoints(
        run.checkpoints, base=loaded.card.base.fingerprint, keep=config.keep_checkpoints, rank=rank,
        world_size=world_size, on_note=send,
    )  # fmt: skip

    def on_step(report: StepReport) -> None:
        if rank == 0:
            append_line(run.metrics, asdict(report))
        send(report)

    def on_evaluation(report: EvaluationReport) -> None:
        if rank == 0:
            append_line(run.evaluations, asdict(report))
        send(report)

    def on_resume(step: int) -> None:
        if rank == 0:
            run.cut_back(step)
        if step:
            send(f"continuing after step {step}")

    engine, position = train(
        loaded, rows, config, rank=rank, world_size=world_size, device=device, on_step=on_step, objective=joint,
        validator=validator,
        on_evaluation=on_evaluation, checkpoints=checkpoints, on_resume=on_resume,
    )  # fmt: skip
    verified = _save(config, run, loaded, engine, joint, rank=rank, world_size=world_size)
    if rank == 0:
        write_json(run.outcome, {"stopped_after": position.step, "best_step": position.best_step, **verified})


def _load(config: TrainConfig, device: str) -> LoadedModel:
    """The base model with the card of the new model and attached adapters."""
    on_gpu = device != "cpu"
    dtype = DTYPES[training_precision(config.precision, device)] if on_gpu else torch.float32
    base = load_base(config.base, dtype=dtype, device=device)
    if base.card.base.architecture == "encoder" and config.objective != "heads":
        raise ModelError(f"{config.base} is an encoder and cannot generate answers; train it with --objective heads")
    model = _adapted(config, base)
    card = AffectCard(
        name=config.out.name,
        base=base.card.base,
        adapter="lora" if config.method == "lora" else None,
        layout=base.card.layout,
        tasks=training_tasks(config),
        max_post_tokens=config.max_post_tokens,
        training=training_facts(config),
    )
    return LoadedModel(model, base.tokenizer, card)


def _adapted(config: TrainConfig, base: LoadedModel) -> Any:
    """The base model with the run's adapters, if it has any: new ones, or those that it goes on from."""
    if config.start_from is not None:
        return attach_adapter(base, config.start_from, trainable=True)
    return attach_lora(base.model, **config.lora) if config.method == "lora" else base.model


def joint_of(config: TrainConfig, loaded: LoadedModel, start: StartingHeads | None, device: str) -> Joint | None:
    """The objective of a run with heads; None for a run without heads."""
    if start is None:
        return None
    with_answers = Answers(loaded, device).padded if config.objective == "both" else None
    return Joint(loaded, start, with_answers=with_answers, loss_weight=config.heads.loss_weight, device=device)


def rows_of(
    config: TrainConfig, loaded: LoadedModel, joint: Joint | None, split: str = "train", *,
    tokens: Path | None = None, rank: int = 0,
) -> Sequence[EncodedRow]:  # fmt: skip
    """The rows of a run, in their order: its training rows, or all possible validation rows.

    With `tokens` the ranks share what is tokenized in that folder. Collective then.
    """
    table = training_rows(config, split)
    rows: Sequence[EncodedRow] = []
    if config.objective != "heads":
        encoder = prompt_encoder(loaded)
        rows = encoded = shared_rows(table, encoder, tokens, rank=rank) if tokens else encode_rows(table, encoder)
        _check_lengths(encoded, loaded)
    if joint is None:
        return rows
    labelled = joint.start.learnt if split == "train" else read_labels(table, loaded.card.tasks)
    return joint.rows(labelled, table, rows)


def validator_of(
    config: TrainConfig, loaded: LoadedModel, joint: Joint | None, *, rank: int, world_size: int, device: str
) -> Validator | None:
    """Validation on rows that are drawn once; None for a run without validation."""
    if not config.num_evaluations:
        return None
    if joint is None:  # drawn before they are encoded: there may be tens of thousands
        table = training_rows(config, "validation")
        table = table.take(drawn_rows(table.num_rows, config.validation_rows, config.seed))
        drawn: Sequence[EncodedRow] = encode_rows(table, prompt_encoder(loaded))
    else:
        rows = rows_of(config, loaded, joint, "validation")
        drawn = [rows[i] for i in drawn_rows(len(rows), config.validation_rows, config.seed)]
    questions = metric_questions(config, loaded.card.tasks) if config.metrics_every else []
    return Validator(drawn, questions, config, rank=rank, world_size=world_size, device=device)


def _check_lengths(rows: RowTokens, loaded: LoadedModel) -> None:
    """Refuse a row that is longer than the model's positions: truncation might remove the answer."""
    most = max_tokens(loaded.model)
    if most is None:  # T5 and BLOOM use relative positions, without a limit
        return
    lengths_N = rows.lengths.max(axis=1) if loaded.is_encoder_decoder else rows.lengths.sum(axis=1)
    for place in np.flatnonzero(lengths_N > most).tolist():
        raise DataError(
            f"row {rows[place].id} has {lengths_N[place]:,} tokens, and {loaded.card.base.name} has positions for "
            f"{most:,}; lower --max-post-tokens (now {loaded.card.max_post_tokens})"
        )


def metric_questions(config: TrainConfig, tasks: Sequence[Task]) -> list[GoldQuestion]:
    """The fixed sample for task metrics: the first questions of each task and emotion."""
    assert config.data is not None
    most = MOST_METRIC_QUESTIONS // sum(len(task.keys) for task in tasks)
    return load_questions(config.data, tasks, max_rows=min(config.metric_rows, max(2, most)))


def _save(
    config: TrainConfig, run: RunFolder, loaded: LoadedModel, engine: Any, joint: Joint | None, *, rank: int,
    world_size: int,
) -> dict[str, Any]:  # fmt: skip
    """Write the model directory on rank 0 and load it again. Collective: the other ranks send their weights, and score
    their share of the texts that heads are calibrated on.
    """
    engine.eval()
    facts: dict[str, Any] = {"trainable_parameters": _num_trainable(engine)}
    if config.zero_stage == 3:
        # The model in training answers on all ranks; then its weights are loaded into a fresh copy on rank 0.
        expected = probe_logits(engine.module.model, loaded)
        weights = {name.removeprefix("model."): w for name, w in whole_parameters(engine) if rank == 0}
    finished = None
    if joint is not None:
        if adapter_dtype := _adapter_dtype(config):
            round_adapter(loaded.model, adapter_dtype)  # on all ranks, before they score
        finished = joint.finished(rank=rank, world_size=world_size)
    if rank != 0:
        return facts
    if config.zero_stage == 3:
        loaded = _fresh_copy(config, loaded, weights)
        _check_gathered(probe_logits(loaded.model, loaded), expected, trained_dtype(loaded.model))
    try:
        shutil.rmtree(run.model, ignore_errors=True)  # left by a worker that died while writing
        run.model.mkdir(parents=True)
        facts["reload_difference"] = _write(run.model, config, loaded, joint, finished)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"cannot write the model to {run.model}: {error}; free some space, then the same command continues "
            "from the last checkpoint"
        ) from None
    return facts


def _adapter_dtype(config: TrainConfig) -> torch.dtype | None:
    """What an adapter is stored in; None: the type it has."""
    return torch.bfloat16 if config.adapter_precision == "bf16" and config.method == "lora" else None


def _write(
    folder: Path, config: TrainConfig, loaded: LoadedModel, joint: Joint | None,
    finished: tuple[HeadWeights, tuple[Head, ...]] | None = None,
) -> float:  # fmt: skip
    """Save the model in the type it was trained in, with the finished heads of `joint`; returns the largest difference
    to what is loaded again in that type.
    """
    if adapter_dtype := _adapter_dtype(config):
        round_adapter(loaded.model, adapter_dtype)
    if joint is not None and finished is not None:
        head_weights, heads = finished
        loaded = replace(loaded, card=joint.card(heads, writes_answers=config.objective == "both"))
        head_weights.save(folder)
    writes = config.objective != "heads"
    dtype = trained_dtype(loaded.model)
    loaded.model.to("cpu").eval()
    expected = probe_logits(loaded.model, loaded) if writes else None
    if config.merge:
        card = loaded.card.model_copy(update={"adapter": None})
        # In bf16, deltas below 2**-9 of a weight would vanish.
        merged = loaded.model.to(torch.float32).merge_and_unload().to(dtype)
        loaded = LoadedModel(merged, loaded.tokenizer, card)
    save_model(folder, loaded, adapter_dtype=adapter_dtype if loaded.card.adapter == "lora" else None)
    difference = 0.0
    if joint is not None and finished is not None:
        difference = verify_heads(folder, loaded, joint, finished[0])
    if expected is None:
        return difference
    return max(difference, verify_saved(folder, loaded, expected=expected, tolerance=tolerance(dtype, expected)))


def _num_trainable(engine: Any) -> int:
    return sum(getattr(p, "ds_numel", p.numel()) for p in engine.module.parameters() if p.requires_grad)


def _fresh_copy(config: TrainConfig, loaded: LoadedModel, weights: dict[str, torch.Tensor]) -> LoadedModel:
    model = _adapted(config, load_base(config.base, dtype=next(iter(weights.values())).dtype))
    unknown = model.load_state_dict(weights, strict=False).unexpected_keys
    assert not unknown, unknown
    return replace(loaded, model=model.eval())


def _check_gathered(mine: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    difference = float((mine - expected).abs().max())
    if not difference <= tolerance(dtype, expected):
        raise ModelError(f"the weights gathered from all workers differ from those trained: logits by {difference:.2g}")

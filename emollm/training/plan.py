"""The plan of a training run before it starts: parameters, steps, memory per worker by part, hours.

No weights are loaded: the model is created from its configuration, without memory for its tensors. Memory is an
estimate, within about a quarter of measurements (LOG.md); a run that does not fit is refused with options that would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from transformers import AutoConfig

from emollm.core.bases import BASES, Architecture
from emollm.core.errors import ResourceError
from emollm.core.options import with_values
from emollm.models.errors import model_errors
from emollm.models.load import architecture_of, auto_class, linears_from, locate_base
from emollm.scoring.heads.backbone import Backbone
from emollm.scoring.heads.fit import MAX_READINGS
from emollm.training.frozen import candidates_of
from emollm.training.loop import num_steps
from emollm.training.options import TrainConfig
from emollm.training.start import with_start
from emollm.training.workload import Workload, workload

GIB = 2**30
_READ_TOKENS = {"gpu": 16_384, "cpu": 1024}
"""Tokens of texts that are read at once, as in the batches of `heads.extract.ReadPosts`."""
_BUCKET = 500_000_000
"""Elements of DeepSpeed's buffers for gradients, and for gathered weights with ZeRO-2; its defaults."""
_LIVE = 1_000_000_000
"""Weights gathered at once with ZeRO-3, DeepSpeed's default."""
_RUNTIME_GIB = {"gpu": 1.5, "cpu": 0.8}
"""The CUDA context, or a Python process with torch, transformers and DeepSpeed."""
_A100_FLOPS_S = 312e12
_CORE_FLOPS_S = 100e9
"""FLOP/s of float32 matrix products on one CPU core; 80 to 160 GFLOP/s were measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model's size, from its configuration."""

    name: str
    architecture: Architecture
    parameters: int
    multiplied: int
    """Parameters that every token of a row is multiplied by: all except embeddings and head."""
    read: int
    """Those of them that are used for heads: up to the deepest candidate layer."""
    trainable: int
    """Trained parameters of the base; an upper bound for heads, as layers above the selected ones are not computed."""
    features: int
    """Largest number of features of the heads."""
    layers: int
    width: int
    inner: int
    vocabulary: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    config: TrainConfig
    model: Model
    work: Workload
    steps: int
    trainable: int
    """Trained parameters of base and heads."""
    tokens_a_row: float
    """Tokens that pass through the model for a row: prompt and answer, text, or both."""
    longest_row: int
    memory_gib: dict[str, float]
    """Memory of a worker, by part."""
    loading_gib: float
    """Memory of a worker before sharding: the whole model."""
    host_gib: float
    """Host memory of all workers on one machine."""
    limit_gib: float
    flops: float
    hours: float
    """Hours of one worker, at the assumed speed."""

    @property
    def total_gib(self) -> float:
        return max(sum(self.memory_gib.values()), self.loading_gib)

    @property
    def fits(self) -> bool:
        return self.total_gib <= self.limit_gib


def plan(config: TrainConfig) -> Plan:
    """The plan of a run. Raises ResourceError, naming what would fit, if a worker's memory does not hold it."""
    config = with_start(config)
    chosen = _plan(config)
    if chosen.fits:
        return chosen
    parts = ", ".join(f"{name} {gib:.1f}" for name, gib in chosen.memory_gib.items())
    if chosen.total_gib == chosen.loading_gib:
        parts = "while loading: each worker holds the whole model before it is sharded"
    would = next((words for words, other in _alternatives(config) if _plan(other).fits), None)
    advice = f"this would fit: {would}" if would else "no option would fit; use a smaller base model or larger GPUs"
    raise ResourceError(
        f"{chosen.model.name} with {_way(config)} needs about {chosen.total_gib:.0f} GiB per worker ({parts}), "
        f"and a worker has {chosen.limit_gib:.0f}; {advice}"
    )


def _plan(config: TrainConfig) -> Plan:
    model = describe_model(config)
    return plan_of(config, model, workload(config, model.architecture))


def plan_of(config: TrainConfig, model: Model, work: Workload) -> Plan:
    """The plan for a given model and workload, whether it fits or not."""
    trainable = model.trainable + work.outputs * (model.features + 1)
    longest_row = int(work.lengths_N.max() + work.text_lengths_N.max())
    answer = float(work.answers_N.mean())
    if config.freeze:
        memory, host = _reading_memory(config, model), 0.0
    else:
        memory, host = _memory(config, model, trainable=trainable, longest=longest_row, answer=answer)
    steps = num_steps(config, work.rows) if work.rows else 0
    flops = _flops(config, model, work, steps)
    return Plan(
        config=config,
        model=model,
        work=work,
        steps=steps,
        trainable=trainable,
        tokens_a_row=float(work.lengths_N.mean() + work.text_lengths_N.mean()),
        longest_row=longest_row,
        memory_gib=memory,
        loading_gib=_weight_bytes(config) * model.parameters / GIB + memory["runtime"],
        host_gib=host,
        limit_gib=_limit_gib(config),
        flops=flops,
        hours=flops / (config.cluster.num_workers * _speed(config)) / 3600,
    )


def _flops(config: TrainConfig, model: Model, work: Workload, steps: int) -> float:
    """FLOPs of reading texts before the first step, and of the steps."""
    once = float(work.lengths_N.mean()) * model.multiplied + float(work.text_lengths_N.mean()) * model.read
    # Per parameter: 2 forward, 2 for gradients of activations, 2 for gradients of weights; 2 for recomputation.
    each = 4 + 2 * (config.method == "full") + 2 * config.gradient_checkpointing
    reading = 2 * work.texts * float(work.text_lengths_N.mean()) * model.read
    return reading + each * steps * config.global_batch_size * once


def describe_model(config: TrainConfig) -> Model:
    """The size of the base, from the registry's data or its own config.json."""
    settings = settings_of(config.base)
    architecture = architecture_of(settings)
    auto, options = auto_class(settings)
    with torch.device("meta"):
        model = auto.from_config(settings, **options)
    parameters, linears = _count(model), _linears(model)
    multiplied, inner = _count_weights(linears), max(m.out_features for m in linears)
    trained, adapted, read, features = parameters, linears, 0, 0
    if config.objective != "generate":
        candidates = candidates_of(config, architecture, settings.num_hidden_layers)
        feature_specs = candidates.feature_specs
        count = len(feature_specs) if candidates.all_used else min(MAX_READINGS, len(feature_specs))
        features = count * settings.hidden_size
        backbone = Backbone(model, architecture, depth=max(reading.layer for reading in feature_specs)).module
        read = _count_weights(_linears(backbone))
        if config.objective == "heads":
            trained, adapted = _count(backbone), _linears(backbone)
    if config.method == "lora":
        if config.lora_first_layer > 1:
            modules, names = dict(model.named_modules()), linears_from(model, config.lora_first_layer)
            adapted = [m for m in map(modules.__getitem__, names) if m in adapted]
        trained = sum(config.lora_rank * (m.in_features + m.out_features) for m in adapted)
    layers = settings.num_hidden_layers + (getattr(settings, "num_decoder_layers", None) or 0)
    if settings.model_type == "bart":
        layers = settings.encoder_layers + settings.decoder_layers
    return Model(
        name=config.base,
        architecture=architecture,
        parameters=parameters,
        multiplied=multiplied,
        read=read,
        trainable=0 if config.freeze else trained,
        features=features,
        layers=layers,
        width=settings.hidden_size,
        inner=inner,
        vocabulary=settings.vocab_size,
    )


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _linears(module: Any) -> list[torch.nn.Linear]:
    """All parameters except the vocabulary head."""
    head = module.get_output_embeddings()
    return [m for m in module.modules() if isinstance(m, torch.nn.Linear) and m is not head]


def _count_weights(linears: list[torch.nn.Linear]) -> int:
    return sum(m.weight.numel() for m in linears)


def settings_of(base: str) -> Any:
    if base in BASES:
        return AutoConfig.for_model(BASES[base].family, **BASES[base].settings)
    with model_errors(f"cannot read the configuration of {base}"):
        return AutoConfig.from_pretrained(locate_base(base))


def _reading_memory(config: TrainConfig, model: Model) -> dict[str, float]:
    """GiB of one worker that only reads texts, by part."""
    where = "gpu" if config.cluster.gpus > 0 else "cpu"
    size = _weight_bytes(config)
    parts = {
        "weights": size * model.parameters,
        "activations": _READ_TOKENS[where] * size * (8 * model.width + 4 * model.inner),
        "runtime": _RUNTIME_GIB[where] * GIB,
    }
    return {name: value / GIB for name, value in parts.items()}


def _memory(
    config: TrainConfig, model: Model, *, trainable: int, longest: int, answer: float
) -> tuple[dict[str, float], float]:
    """GiB of one worker by part, and of the host for all workers."""
    workers = config.cluster.num_workers
    on_gpu = config.cluster.gpus > 0
    size = _weight_bytes(config)
    sharded = {stage: workers if config.zero_stage >= stage else 1 for stage in (2, 3)}
    states = 12 if size == 2 or config.zero_stage else 8  # float32 master weights if there are any, and two moments
    tokens = config.micro_batch_size * longest
    layer = size * (8 * model.width + 4 * model.inner)
    kept = size * model.width * model.layers + layer if config.gradient_checkpointing else layer * model.layers
    logits = config.micro_batch_size * answer * model.vocabulary * (size + 8)
    buffers = size * min(_BUCKET, trainable) * (2 if config.zero_stage == 2 and workers > 1 else 1)
    parts = {
        "weights": size * model.parameters / sharded[3],
        "gradients": size * trainable / sharded[2],
        "optimizer": states * trainable / sharded[2],
        "activations": tokens * kept + logits,
        "buffers": buffers + (size * min(_LIVE, model.parameters) if config.zero_stage == 3 else 0),
        "runtime": _RUNTIME_GIB["gpu" if on_gpu else "cpu"] * GIB,
    }
    host = 0.0
    if on_gpu:
        # Gradients are kept next to the optimizer state.
        moved = [name for name, at in (("optimizer", 1), ("gradients", 1), ("weights", 2)) if at <= _offloaded(config)]
        host = workers * sum(parts.pop(name) for name in moved)
    return {name: value / GIB for name, value in parts.items()}, host / GIB


def _weight_bytes(config: TrainConfig) -> int:
    if config.freeze:  # heads are fitted to what the base gives
        return 2 if config.precision == "bf16" else 4
    return 2 if config.cluster.gpus > 0 and config.precision != "float32" else 4


def _way(config: TrainConfig) -> str:
    return "--freeze" if config.freeze else f"--method {config.method}"


def _offloaded(config: TrainConfig) -> int:
    return {"none": 0, "optimizer": 1, "all": 2}[config.offload]


def _limit_gib(config: TrainConfig) -> float:
    if config.cluster.gpus > 0:
        return config.gpu_memory_gib
    import psutil  # comes with deepspeed

    return float(psutil.virtual_memory().total) / GIB / config.cluster.num_workers


def _speed(config: TrainConfig) -> float:
    """Assumed FLOP/s of a worker: typical for such runs, not measured on this machine."""
    if config.cluster.gpus > 0:
        return _A100_FLOPS_S * config.cluster.gpus * (0.4 if config.offload == "none" else 0.25)
    return _CORE_FLOPS_S * max(1.0, config.cluster.cpus_per_worker)


def _alternatives(config: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """Options that need less memory, the least costly first. None for a frozen base, which needs little else."""
    if config.freeze:
        return
    changes: list[dict[str, Any]] = []
    most = 3 if config.objective == "generate" else 2
    workers = config.cluster.num_workers
    if not config.gradient_checkpointing:
        changes.append({"gradient_checkpointing": True})
    if config.zero_stage < most and workers > 1:
        changes.append({"zero_stage": most})
    if config.cluster.gpus > 0 and config.offload != "all":
        changes.append({"zero_stage": max(2, config.zero_stage), "offload": "optimizer"})
        if most == 3:
            changes.append({"zero_stage": 3, "offload": "all"})
    if config.micro_batch_size > 1:
        changes.append({"micro_batch_size": 1})
    tried: dict[str, Any] = {}
    for change in changes:  # one more at a time
        tried |= change
        yield _as_options(tried), with_values(config, **tried)
    for more in (2, 4, 8, 16):
        if config.global_batch_size % (workers * more * tried.get("micro_batch_size", config.micro_batch_size)) == 0:
            cluster = {**config.cluster.model_dump(), "num_workers": workers * more}
            words = f"{_as_options({**tried, 'zero_stage': most})} --cluster.num-workers {workers * more}"
            yield words, with_values(config, **{**tried, "zero_stage": most, "cluster": cluster})
    if config.method == "full":
        yield f"{_as_options(tried)} --method lora", with_values(config, **tried, method="lora")


def _as_options(values: dict[str, Any]) -> str:
    return " ".join(
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in values.items()
    )


def plan_report(plan: Plan) -> RenderableType:
    """The plan as text for the terminal."""
    config, model, work = plan.config, plan.model, plan.work
    workers = config.cluster.num_workers
    table = Table.grid(padding=(0, 2))
    table.add_row("base", f"{model.name}, {model.parameters:,} parameters")
    most = "" if config.objective == "generate" else "at most "
    share = plan.trainable / model.parameters
    table.add_row("trained", f"{most}{plan.trainable:,} ({share:.1%}), {_way(config)}")
    about = "" if work.are_counted else "about "
    if work.texts:
        held = f", {work.held_out:,} more held out to calibrate them" if work.held_out else ""
        length = f"{about}{work.text_lengths_N.mean():.0f} tokens per text"
        table.add_row("texts", f"{work.texts:,} read once to fit heads{held}, {length}")
    if plan.steps:
        table.add_row(
            "batch",
            f"{config.global_batch_size} = {workers} workers x {config.micro_batch_size} rows x "
            f"{config.accumulation_steps} accumulated",
        )
        what = "texts" if config.objective == "heads" else "rows"
        table.add_row("steps", f"{plan.steps:,} over {work.rows:,} {what}, {config.epochs:g} epochs")
        tokens = plan.steps * config.global_batch_size * plan.tokens_a_row
        length = f"{about}{plan.tokens_a_row:.0f} per row, {plan.longest_row} in the longest sampled"
        table.add_row("tokens", f"{tokens / 1e6:,.1f} million, {length}")
    what = "GPU" if config.cluster.gpus > 0 else "worker"
    table.add_row(f"memory per {what}", f"{plan.total_gib:.1f} of {plan.limit_gib:.0f} GiB")
    for name, gib in plan.memory_gib.items():
        table.add_row(f"  {name}", f"{gib:.2f}")
    if plan.host_gib:
        table.add_row("host memory", f"{plan.host_gib:.0f} GiB for all workers")
    table.add_row("work", f"{plan.flops / 1e15:,.1f} PFLOP")
    unit = "GPU-hours" if config.cluster.gpus > 0 else "worker-hours"
    table.add_row(
        unit,
        f"about {plan.hours * workers:,.1f}, {plan.hours:,.1f} h, at {_speed(config) / 1e12:,.2f} TFLOP/s per worker",
    )
    return Group(table)

"""DeepSpeed around a model: the configuration, the engine, and the engine's state by parameter name.

DeepSpeed's own checkpoints are pickled, one file a rank, for one number of ranks and one ZeRO stage. Here a rank reads
its own shard of the state, named by parameter and place, and sets it from whole parameters: so it fits any of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from emollm.models.precision import every_rank
from emollm.training.options import TrainConfig

WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's part of a flattened parameter."""

    name: str
    shape: tuple[int, ...]
    """Shape of the whole parameter."""
    start: int
    """Index of the first value in the flattened parameter."""
    tensors: dict[str, torch.Tensor]
    """By kind, such as `WEIGHT`."""


def adam_settings(config: TrainConfig, device: str) -> dict[str, Any]:
    """The Adam in use: PyTorch's, fused on a GPU; for state in host memory DeepSpeed's, if it can be built.

    Collective if the state is in host memory.
    """
    if device == "cpu":
        return {"torch_adam": True}
    if config.offload == "none":
        return {"torch_adam": True, "fused": True}
    return {} if every_rank(_builds_cpu_adam(), device) else {"torch_adam": True}


def _builds_cpu_adam() -> bool:
    """Whether DeepSpeed's Adam for CPUs is built or can be built here, which takes a minute the first time.

    It needs a C++ compiler and ninja; beside a GPU too it is built for the CPU alone.
    """
    from deepspeed.ops.op_builder import CPUAdamBuilder

    try:
        CPUAdamBuilder().load(verbose=False)
    except Exception as error:
        logging.getLogger(__name__).warning("using PyTorch's optimizer, since DeepSpeed's cannot be built: %s", error)
        return False
    return True


def deepspeed_settings(config: TrainConfig, *, bf16_weights: bool, adam: dict[str, Any]) -> dict[str, Any]:
    """The DeepSpeed configuration of a fine-tune; the learning rate is set step by step by the loop."""
    # bf16 weights without ZeRO use another optimizer of DeepSpeed; stage 1 does the same and shards its state.
    stage = max(1, config.zero_stage) if bf16_weights else config.zero_stage
    zero: dict[str, Any] = {"stage": stage}
    if config.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if config.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_batch_size": config.global_batch_size,
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": config.accumulation_steps,
        "gradient_clipping": config.max_gradient_norm,
        "zero_optimization": zero,
        "bf16": {"enabled": bf16_weights},
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": config.learning_rate, "weight_decay": config.weight_decay, **adam},
        },
        "wall_clock_breakdown": False,
    }


def start_engine(model: Any, config: TrainConfig, *, precision: torch.dtype, device: str) -> Any:
    """A DeepSpeed engine over the model's trainable parameters. The process group must be up.

    On a GPU with bf16 the weights are bf16 with float32 masters; on CPU they stay float32 under autocast.
    """
    on_cpu = device == "cpu"
    import deepspeed

    if on_cpu:
        # Its shared-memory all-reduce takes half a minute to compile, and stops the run if there is no
        # compiler. gloo, which is part of PyTorch, does the same.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    bf16_weights = not on_cpu and precision is torch.bfloat16
    settings = deepspeed_settings(config, bf16_weights=bf16_weights, adam=adam_settings(config, device))
    engine, *_ = deepspeed.initialize(model=model, model_parameters=trainable, config=settings)
    return engine


def trainable_parameters(engine: Any) -> list[tuple[str, Any]]:
    """Names and trained parameters, in the same order on all ranks."""
    return [(name, p) for name, p in engine.module.named_parameters() if p.requires_grad]


def read_state(engine: Any) -> Iterator[Shard]:
    """This rank's shard of the float32 weights and Adam's moments; needs a step done. Nothing is sent between ranks.

    A tensor may belong to the engine: copy it to keep it.
    """
    if _is_plain(engine):
        for name, p in _my_share(engine):
            moments = engine.optimizer.state[p]
            flat = {WEIGHT: p.detach().flatten(), **{key: moments[key].flatten() for key in MOMENTS}}
            yield Shard(name, tuple(p.shape), 0, flat)
        return
    for name, p in trainable_parameters(engine):
        if hasattr(p, "ds_id"):
            yield from _shard_of_stage_3(name, p)
        elif p._hp_mapping is not None:
            mapping = p._hp_mapping
            moments = {key: mapping.get_hp_fragment(key) for key in MOMENTS}
            start = mapping.lp_fragment_address.start
            yield Shard(name, tuple(p.shape), start, {WEIGHT: mapping.get_hp_fragment(), **moments})


def read_weights(engine: Any) -> Iterator[Shard]:
    """Like `read_state`, for the weights only, in the type of the forward pass."""
    for name, p in _my_share(engine):
        if not hasattr(p, "ds_id"):
            yield Shard(name, tuple(p.shape), 0, {WEIGHT: p.detach().flatten()})
    for name, p in trainable_parameters(engine):
        if hasattr(p, "ds_id"):
            yield from _cut_to_size(name, p, {WEIGHT: p.ds_tensor.detach()})


def _my_share(engine: Any) -> list[tuple[str, Any]]:
    """Of the parameters that every rank has completely, those that this rank writes."""
    return trainable_parameters(engine)[dist.get_rank() :: dist.get_world_size()]


def _shard_of_stage_3(name: str, parameter: Any) -> Iterator[Shard]:
    from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state

    moments = {key: safe_get_local_optimizer_state(parameter, key) for key in MOMENTS}
    yield from _cut_to_size(name, parameter, {WEIGHT: safe_get_local_fp32_param(parameter), **moments})


def _cut_to_size(name: str, parameter: Any, tensors: dict[str, torch.Tensor]) -> Iterator[Shard]:
    """Without the padding of the last ranks' parts of a parameter with ZeRO-3; nothing if all of it is padding."""
    start = parameter.ds_tensor.numel() * dist.get_rank()
    if start < parameter.ds_numel:
        flat = {key: tensor.flatten()[: parameter.ds_numel - start] for key, tensor in tensors.items()}
        yield Shard(name, tuple(parameter.ds_shape), start, flat)


def write_state(engine: Any, read: Callable[[str, str], torch.Tensor], *, step: int) -> None:
    """Set weights and Adam's state after `step` steps to the values of `read(name, key)`. Collective."""
    _create_moments(engine, step)
    write_weights(engine, read)
    for name, parameter in trainable_parameters(engine):
        for key in MOMENTS:
            _write_moment(engine, parameter, key, read(name, key))


def write_weights(engine: Any, read: Callable[[str, str], torch.Tensor]) -> None:
    """Set only the weights, for a model that is not trained any further. Collective."""
    for name, parameter in trainable_parameters(engine):
        _write_weight(engine, parameter, read(name, WEIGHT))


def whole_parameters(engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every trained parameter in the type of the forward pass, unsharded, on every rank. Collective."""
    import deepspeed

    for name, parameter in trainable_parameters(engine):
        if hasattr(parameter, "ds_id"):
            with deepspeed.zero.GatheredParameters([parameter]):
                yield name, parameter.detach().to("cpu", copy=True)
        else:
            yield name, parameter.detach().to("cpu", copy=True)


def _is_plain(engine: Any) -> bool:
    """Whether PyTorch's optimizer works on the model's own parameters: ZeRO 0 with float32 weights."""
    return isinstance(engine.optimizer, torch.optim.Optimizer)


def _flat_parameters(engine: Any) -> list[torch.Tensor]:
    """This rank's part of the flat float32 tensors that Adam updates."""
    zero = engine.optimizer
    if hasattr(zero, "fp32_partitioned_groups_flat"):  # stage 3
        return list(zero.fp32_partitioned_groups_flat)
    return list(zero.single_partition_of_fp32_groups)


def _create_moments(engine: Any, step: int) -> None:
    # PyTorch's Adam creates its state at its first step, which was in the stopped run.
    plain = _is_plain(engine)
    adam = engine.optimizer if plain else engine.optimizer.optimizer
    for flat in [p for _, p in trainable_parameters(engine)] if plain else _flat_parameters(engine):
        adam.state[flat] = {
            "step": _step_of(adam, flat, step),
            **{key: torch.zeros_like(flat, memory_format=torch.preserve_format).detach() for key in MOMENTS},
        }
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):  # stages 1 and 2: link them to parameters
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _step_of(adam: Any, flat: torch.Tensor, step: int) -> Any:
    if not isinstance(adam, torch.optim.AdamW):  # DeepSpeed's counts with a number
        return step
    # The fused kernel reads it where the weights are.
    return torch.tensor(float(step), device=flat.device if adam.defaults["fused"] else "cpu")


@torch.no_grad()
def _write_weight(engine: Any, parameter: Any, value: torch.Tensor) -> None:
    import deepspeed
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    if hasattr(parameter, "ds_id"):
        safe_set_local_fp32_param(parameter, _my_part(parameter, value))
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if dist.get_rank() == 0:
                parameter.data.copy_(value)
        return
    if not _is_plain(engine):
        safe_set_full_fp32_param(parameter, value)
    parameter.data.copy_(value)


def _write_moment(engine: Any, parameter: Any, key: str, value: torch.Tensor) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if hasattr(parameter, "ds_id"):
        safe_set_local_optimizer_state(parameter, _my_part(parameter, value), key)
    elif _is_plain(engine):
        engine.optimizer.state[parameter][key].copy_(value)
    else:
        safe_set_full_optimizer_state(parameter, value, key)


def _my_part(parameter: Any, value: torch.Tensor) -> torch.Tensor:
    """This rank's part of a parameter with ZeRO-3; the last part is padded if the size is not divisible."""
    size = parameter.ds_tensor.numel()
    padded = torch.zeros(size * dist.get_world_size(), dtype=value.dtype)
    padded[: value.numel()] = value.flatten()
    return padded.narrow(0, size * dist.get_rank(), size)

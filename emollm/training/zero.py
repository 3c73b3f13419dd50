"""DeepSpeed around a model: the settings, the engine, and the engine's state by parameter name.

DeepSpeed's own checkpoints are pickled, one file a rank, for one number of ranks and one ZeRO stage. Here the state
is read and written whole, parameter by parameter, so that it fits any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from emollm.training.options import TrainConfig

WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")


def deepspeed_settings(config: TrainConfig, *, bf16_weights: bool) -> dict[str, Any]:
    """The DeepSpeed configuration of a fine-tune; the learning rate is set step by step by the loop."""
    # bf16 weights without ZeRO are another optimizer of DeepSpeed's; stage 1 does the same and shards its state.
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
        # torch_adam: DeepSpeed's own Adam is compiled at first use; PyTorch's needs no compiler and is as exact.
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": config.learning_rate, "weight_decay": config.weight_decay, "torch_adam": True},
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
        # Its shared-memory all-reduce takes half a minute to compile, and stops the run where there is no
        # compiler. gloo, which PyTorch brings, does the same work.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    bf16_weights = not on_cpu and precision is torch.bfloat16
    settings = deepspeed_settings(config, bf16_weights=bf16_weights)
    engine, *_ = deepspeed.initialize(model=model, model_parameters=trainable, config=settings)
    return engine


def trainable_parameters(engine: Any) -> list[tuple[str, Any]]:
    """Names and parameters that are trained, in an order that all ranks share."""
    return [(name, p) for name, p in engine.module.named_parameters() if p.requires_grad]


def read_state(engine: Any) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """For each trained parameter its name, float32 weight and Adam moments, whole. Collective; needs a step done.

    A tensor may be the engine's own: copy what is to be kept.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    for name, parameter in trainable_parameters(engine):
        if _is_plain(engine):
            moments = engine.optimizer.state[parameter]
            yield name, {WEIGHT: parameter.detach(), **{key: moments[key] for key in MOMENTS}}
        else:
            moments = {key: safe_get_full_optimizer_state(parameter, key) for key in MOMENTS}
            yield name, {WEIGHT: safe_get_full_fp32_param(parameter).detach(), **moments}


def write_state(engine: Any, read: Callable[[str, str], torch.Tensor], *, step: int) -> None:
    """Set weights and Adam's state after `step` steps to what `read(name, key)` gives. Collective."""
    _create_moments(engine, step)
    write_weights(engine, read)
    for name, parameter in trainable_parameters(engine):
        for key in MOMENTS:
            _write_moment(engine, parameter, key, read(name, key))


def write_weights(engine: Any, read: Callable[[str, str], torch.Tensor]) -> None:
    """Set the weights alone, as for a model that will not be trained on. Collective."""
    for name, parameter in trainable_parameters(engine):
        _write_weight(engine, parameter, read(name, WEIGHT))


def whole_parameters(engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every trained parameter in the type the model computes with, whole, on every rank. Collective."""
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
    """The flat float32 tensors, this rank's part of them, that PyTorch's Adam really works on."""
    zero = engine.optimizer
    if hasattr(zero, "fp32_partitioned_groups_flat"):  # stage 3
        return list(zero.fp32_partitioned_groups_flat)
    return list(zero.single_partition_of_fp32_groups)


def _create_moments(engine: Any, step: int) -> None:
    # PyTorch's Adam makes its state at its first step, which here lies in an earlier life.
    plain = _is_plain(engine)
    adam = engine.optimizer if plain else engine.optimizer.optimizer
    for flat in [p for _, p in trainable_parameters(engine)] if plain else _flat_parameters(engine):
        adam.state[flat] = {
            "step": torch.tensor(float(step)),
            **{key: torch.zeros_like(flat, memory_format=torch.preserve_format).detach() for key in MOMENTS},
        }
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):  # stages 1 and 2: link them to parameters
        engine.optimizer._lazy_init_hp_params_optimizer_state()


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
    """This rank's part of a parameter under ZeRO-3; the last is padded where the parts do not divide it."""
    size = parameter.ds_tensor.numel()
    padded = torch.zeros(size * dist.get_world_size(), dtype=value.dtype)
    padded[: value.numel()] = value.flatten()
    return padded.narrow(0, size * dist.get_rank(), size)

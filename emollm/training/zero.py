"""DeepSpeed around a model: the settings, and the engine."""

from __future__ import annotations

from typing import Any

import torch

from emollm.training.config import TrainConfig


def deepspeed_settings(config: TrainConfig, *, bf16_weights: bool) -> dict[str, Any]:
    """The DeepSpeed configuration of a fine-tune; the learning rate is set step by step by the loop."""
    return {
        "train_batch_size": config.global_batch_size,
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": config.accumulation_steps,
        "gradient_clipping": config.max_gradient_norm,
        "zero_optimization": {"stage": config.zero_stage},
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

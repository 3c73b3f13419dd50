"""The options of a fine-tune."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from emollm.bases import DEFAULT_BASE
from emollm.config import ClusterConfig, Config


class TrainConfig(Config):
    """Fine-tune a base model on instruction data with Ray Train and DeepSpeed."""

    data: Path
    """Data folder that jobs/build_data.py wrote."""
    out: Path
    """Model directory to write. On a cluster: a folder that all nodes share."""
    base: str = DEFAULT_BASE
    """Base model: a name of the registry, a local folder, or a hub id."""
    method: Literal["lora", "full"] = "lora"
    """Train low-rank adapters, or all weights."""
    lora_rank: int = Field(16, ge=1)
    """Rank of the adapters."""
    lora_alpha: int = Field(32, ge=1)
    """Scale of the adapters; their effect is alpha / rank."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the adapters."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training rows."""
    tasks: tuple[str, ...] | None = None
    """Train on these tasks of the data folder only, and let the model be asked no others. None: all it has."""
    max_rows: int | None = Field(None, ge=1)
    """Train on the first so many of these rows. None: all of them."""
    num_wordings: int | None = Field(None, ge=1)
    """Train only on the first so many wordings of each task. None: all that the data folder has."""
    global_batch_size: int = Field(32, ge=1)
    """Rows an optimizer step, summed over workers and accumulation."""
    micro_batch_size: int = Field(8, ge=1)
    """Rows a worker passes through the model at once."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate. About 1e-3 suits LoRA, 1e-4 a full fine-tune of a small model."""
    weight_decay: float = Field(1e-5, ge=0)
    """AdamW weight decay."""
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of the steps during which the learning rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls to 0 after the warm-up, if it does."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    zero_stage: Literal[0, 2] = 2
    """DeepSpeed ZeRO stage: 0 keeps everything on each worker, 2 shards gradients and optimizer state."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Arithmetic of the forward pass. auto: bf16 where the hardware has it."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    max_post_tokens: int = Field(512, ge=1)
    """Longer posts are cut here, in training and in every later use of the model."""
    seed: int = 123
    """Seed of row order, adapters and dropout."""
    overwrite: bool = False
    """Replace a model directory that is already there."""
    cluster: ClusterConfig = ClusterConfig()
    """Workers, their CPUs and GPUs."""

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        at_once = self.micro_batch_size * self.cluster.num_workers
        if self.global_batch_size % at_once:
            multiple = max(1, round(self.global_batch_size / at_once)) * at_once
            raise ValueError(
                f"--global-batch-size {self.global_batch_size} is not a multiple of micro_batch_size x num_workers = "
                f"{self.micro_batch_size} x {self.cluster.num_workers} = {at_once}; try {multiple}"
            )
        return self

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches a worker goes through for one optimizer step."""
        return self.global_batch_size // (self.micro_batch_size * self.cluster.num_workers)

"""The options of a fine-tune."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from emollm.bases import DEFAULT_BASE
from emollm.config import ClusterConfig, Config
from emollm.heads.card import Pooling


class HeadOptions(Config):
    """What heads read of the backbone. All but the prompt is chosen by cross-validation unless it is given."""

    prefix: str | None = None
    """Words before the post. None: "Tweet:", and nothing for an encoder such as BERT."""
    suffix: str | None = None
    """Words behind the post. None: "How does the writer feel? The writer feels", and nothing for an encoder."""
    layers: tuple[int, ...] | None = None
    """Layers that may be read, counted from 1. None: six of the upper two thirds."""
    poolings: tuple[Pooling, ...] | None = None
    """How a layer may be pooled: last, mean, first. None: last and mean; of an encoder first and mean."""
    all_of_them: bool = False
    """Read every one of these layers and poolings, instead of the up to three that explain most together."""
    loss_weight: float = Field(1.0, gt=0)
    """With --objective both: what the heads' loss counts beside that of the answers."""


class TrainConfig(Config):
    """Fine-tune a base model with Ray Train and DeepSpeed: on instruction data, or heads that read a hidden layer."""

    data: Path | None = None
    """Data folder that jobs/build_data.py wrote. It may be left out only where a teacher labels the texts."""
    out: Path
    """Model directory to write. On a cluster: a folder that all nodes share."""
    base: str = DEFAULT_BASE
    """Base model: a name of the registry, a local folder, or a hub id."""
    objective: Literal["answers", "heads", "both"] = "answers"
    """What is learnt: to write answers, heads that give all answers in one pass of a post, or both in one model."""
    freeze: bool = False
    """With --objective heads: leave the base as it is and fit the heads alone, in closed form. Minutes on a CPU."""
    heads: HeadOptions = HeadOptions()
    """What the heads read."""
    teacher: str | None = None
    """Model whose probabilities are learnt on the texts of --unlabelled, with --objective heads --freeze."""
    teacher_engine: Literal["auto", "constrained", "heads"] = "auto"
    """How the teacher is asked."""
    unlabelled: Path | None = None
    """Posts for the teacher to label: Parquet, JSON lines, CSV or text, as for jobs/annotate.py."""
    max_unlabelled: int | None = Field(None, ge=1)
    """Label only the first so many of them. None: all."""
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
    def _objective_fits(self) -> Self:
        if self.freeze and self.objective != "heads":
            raise ValueError(
                f"--freeze leaves nothing to learn for --objective {self.objective}; add --objective heads"
            )
        if (self.teacher is None) != (self.unlabelled is None):
            raise ValueError("--teacher and --unlabelled belong together: the model that labels, and what it labels")
        if self.teacher is not None and not self.freeze:
            raise ValueError("a teacher's labels are learnt by heads on a frozen base; add --objective heads --freeze")
        if self.data is None and self.teacher is None:
            raise ValueError("--data is required; build it: python jobs/build_data.py aaid --out DIR")
        return self

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

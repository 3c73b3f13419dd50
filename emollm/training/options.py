"""The options of a fine-tune."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from emollm.core.bases import DEFAULT_BASE
from emollm.core.heads_card import Pooling
from emollm.core.options import ClusterConfig, Config
from emollm.training.recipes import with_recipe

# Words of a command line are text, and pydantic takes no "2" for the literal 2.
ZeroStage = Annotated[
    Literal[0, 2, 3], BeforeValidator(lambda value: int(value) if value in ("0", "2", "3") else value)
]


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
    use_all_features: bool = False
    """Read every one of these layers and poolings, instead of the up to three that explain most together."""
    loss_weight: float = Field(1.0, gt=0)
    """With --objective both: what the heads' loss counts beside that of the answers."""


class TrainConfig(Config):
    """Fine-tune a base model with Ray Train and DeepSpeed: on instruction data, or heads that read a hidden layer."""

    data: Path | None = None
    """Data folder that `emollm build-data` wrote. It may be left out only where a teacher labels the texts."""
    out: Path
    """Model directory to write. On a cluster: a folder that all nodes share."""
    recipe: str | None = None
    """Settings to start from: those of a published model, or smollm2-lora; see emollm/training/recipes.py. Options
    given beside it override it."""
    plan: bool = False
    """Only print what the run would take: parameters, steps, memory a worker, hours. Nothing is started."""
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
    """Posts for the teacher to label: Parquet, JSON lines, CSV or text, as for `emollm annotate`."""
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
    merge: bool = False
    """Write the adapters merged into full weights, for programs that know no adapters."""
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
    zero_stage: ZeroStage = 2
    """DeepSpeed ZeRO stage. 0: all on each worker; 2: gradients and optimizer state sharded; 3: the weights, too."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """Keep the optimizer state, or with ZeRO-3 the weights too, in the memory of the host instead of the GPU."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Arithmetic of the forward pass. auto: bf16 where the hardware has it."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    max_post_tokens: int = Field(512, ge=1)
    """Longer posts are cut here, in training and in every later use of the model."""
    evaluations: int | None = Field(None, ge=0)
    """Times the loss on validation rows is taken, evenly over the run; the best weights seen are the ones written.
    0: never. None: 4 where the data folder has validation rows."""
    validation_rows: int = Field(256, ge=1)
    """Validation rows for that loss, drawn once; where heads alone are learnt, texts."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many evaluations without a lower loss. None: never."""
    metrics_every: int = Field(0, ge=0)
    """At every so many evaluations ask the model questions and report its task metrics too. 0: never."""
    metric_rows: int = Field(32, ge=2)
    """Questions a task and emotion for these metrics."""
    checkpoint_minutes: float = Field(10.0, gt=0)
    """Save what is needed to continue a stopped run at least this often."""
    checkpoint_steps: int | None = Field(None, ge=1)
    """Save it every so many steps, too. None: by time alone."""
    keep_checkpoints: int = Field(2, ge=1)
    """Saved states kept beside the best one."""
    max_failures: int = Field(3, ge=0)
    """Times that workers which died (a lost node, a killed process) are started again, from the last saved state."""
    gpu_memory_gib: float = Field(80.0, gt=0)
    """Memory of a GPU, for --plan."""
    mlflow: str | None = None
    """MLflow server to log the run on too, such as http://127.0.0.1:5000. Needs the extra `mlflow`."""
    seed: int = 123
    """Seed of row order, adapters and dropout."""
    overwrite: bool = False
    """Replace a model directory that is already there. A run that was stopped with other options is forgotten; one with
    the same options is continued all the same."""
    cluster: ClusterConfig = ClusterConfig()
    """Workers, their CPUs and GPUs."""

    @model_validator(mode="before")
    @classmethod
    def _start_from_recipe(cls, values: Any) -> Any:
        return with_recipe(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _objective_fits(self) -> Self:
        if self.freeze and self.objective != "heads":
            raise ValueError(
                f"--freeze leaves nothing to learn for --objective {self.objective}; add --objective heads"
            )
        if self.objective != "answers" and self.zero_stage == 3:
            raise ValueError("heads are read off whole weights; with --objective heads or both use --zero-stage 2")
        if (self.teacher is None) != (self.unlabelled is None):
            raise ValueError("--teacher and --unlabelled belong together: the model that labels, and what it labels")
        if self.teacher is not None and not self.freeze:
            raise ValueError("a teacher's labels are learnt by heads on a frozen base; add --objective heads --freeze")
        if self.data is None and self.teacher is None:
            raise ValueError("--data is required; build it: emollm build-data aaid --out DIR")
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

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        needed = {"none": 0, "optimizer": 2, "all": 3}[self.offload]
        if self.zero_stage < needed:
            raise ValueError(f"--offload {self.offload} needs --zero-stage {needed}; it is {self.zero_stage}")
        for option in ("evaluations", "patience", "metrics_every"):
            if self.freeze and getattr(self, option):
                raise ValueError(f"--{option.replace('_', '-')} is for training in steps; --freeze fits heads in one")
        if self.plan and self.teacher is not None:
            raise ValueError("--plan cannot know what a teacher takes; ask: emollm annotate --dry-run 100 ...")
        if self.merge and self.objective != "answers":
            raise ValueError("--merge is for --objective answers; heads are read beside an adapter as it is")
        if self.merge and self.method != "lora":
            raise ValueError("--merge is for --method lora; a full fine-tune has nothing to merge")
        return self

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches a worker goes through for one optimizer step."""
        return self.global_batch_size // (self.micro_batch_size * self.cluster.num_workers)


FREE_TO_CHANGE = frozenset(
    ("micro_batch_size", "zero_stage", "offload", "precision", "gradient_checkpointing", "checkpoint_minutes",
     "checkpoint_steps", "keep_checkpoints", "max_failures", "merge", "plan", "gpu_memory_gib", "overwrite",
     "cluster", "out", "recipe", "mlflow")
)  # fmt: skip
"""Options that a stopped run may be continued with in another way: they change where and how fast, not what."""

"""The options of a fine-tune."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from emollm.core.bases import DEFAULT_BASE
from emollm.core.heads_card import Pooling
from emollm.core.options import ClusterConfig, Config, ModelRef
from emollm.training.recipes import with_recipe

# Command-line values are text, and pydantic does not accept "2" for the literal 2.
ZeroStage = Annotated[
    Literal[0, 2, 3], BeforeValidator(lambda value: int(value) if value in ("0", "2", "3") else value)
]


def _rate_of_method(given: dict[str, Any]) -> float:
    return 1e-4 if given.get("method") == "full" else 1e-3


class HeadOptions(Config):
    """Which hidden layers are pooled into features for the heads. Layers and poolings are selected by cross-validation
    from the candidates."""

    prefix: str | None = None
    """Prompt text before the post. None: "Tweet:", and nothing for an encoder such as BERT."""
    suffix: str | None = None
    """Prompt text after the post. None: "How does the writer feel? The writer feels", and nothing for an encoder."""
    emoji: Literal["kept", "named"] = "kept"
    """named: replace each emoji with its Unicode name, for tokenizers without emoji, such as BERT's."""
    layers: tuple[int, ...] | None = None
    """Candidate hidden layers, counted from 1. None: six of the upper two thirds."""
    poolings: tuple[Pooling, ...] | None = None
    """Candidate poolings over the tokens: last, mean, first. None: last and mean; for an encoder first and mean."""
    use_all_features: bool = False
    """Skip feature selection: use every candidate layer and pooling, not the best combination of at most three."""
    loss_weight: float = Field(1.0, gt=0)
    """With --objective both: weight of the heads' loss relative to the instruction-tuning loss."""


class TrainConfig(Config):
    """Fine-tune a base model with Ray Train and DeepSpeed, by instruction tuning or with heads on hidden states."""

    data: Path | None = None
    """Data folder that `emollm build-data` wrote. Optional only with --teacher and --freeze."""
    out: Path
    """Model directory to write. On a cluster: a folder that all nodes share."""
    recipe: str | None = None
    """Named set of defaults, such as emollama-7b or smollm2-lora; see docs/training.md. Options given explicitly
    override it."""
    plan: bool = False
    """Print parameters, steps, memory per worker and hours, and exit without training."""
    base: ModelRef = DEFAULT_BASE
    """Base model: a name from the registry, a local folder, or a Hugging Face hub id."""
    start_from: ModelRef | None = None
    """Go on from this model directory or bundled model: its adapter is trained further on its base, or kept as it is
    with --freeze. None: from the untrained base."""
    objective: Literal["generate", "heads", "both"] = "generate"
    """Training objective. generate: instruction tuning (next-token loss on the answer). heads: regression and
    classification heads on hidden states. both: both losses in one model."""
    freeze: bool = False
    """With --objective heads: keep the base model frozen and fit the heads in closed form. Minutes on a CPU."""
    heads: HeadOptions = HeadOptions()
    """Features of the heads."""
    teacher: tuple[ModelRef, ...] = ()
    """Distillation: model whose probabilities on --unlabelled are the targets; of several, comma-separated, their mean.
    Needs --objective heads."""
    teacher_engine: Literal["auto", "constrained", "heads"] = "auto"
    """Inference engine of the teachers."""
    unlabelled: Path | None = None
    """Posts for the teacher to label, in any format that `emollm annotate` reads."""
    max_unlabelled: int | None = Field(None, ge=1)
    """Label at most this many of them, from the start. None: all."""
    method: Literal["lora", "full"] = "lora"
    """Train low-rank adapters, or all weights."""
    lora_rank: int = Field(16, ge=1)
    """Rank of the adapters."""
    lora_alpha: int = Field(32, ge=1)
    """Scale of the adapters; their effect is alpha / rank."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the adapters."""
    lora_first_layer: int = Field(1, ge=1)
    """Adapt this layer and those above it, counted from 1. A higher one shortens the backward pass."""
    adapter_precision: Literal["trained", "bf16"] = "trained"
    """Type in which adapters are saved. bf16: rounded before heads are calibrated, in half the space of float32."""
    merge: bool = False
    """Merge the adapters into the base weights when saving, for programs that cannot load adapters."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training rows."""
    tasks: tuple[str, ...] | None = None
    """Train on these tasks only; the model can be asked no others. None: all tasks of the data folder."""
    max_rows: int | None = Field(None, ge=1)
    """Train on at most this many rows, from the start. None: all."""
    num_wordings: int | None = Field(None, ge=1)
    """Use at most this many prompt wordings per task. None: all in the data folder."""
    global_batch_size: int = Field(32, ge=1)
    """Rows per optimizer step, summed over workers and gradient accumulation."""
    micro_batch_size: int = Field(8, ge=1)
    """Rows per worker in one forward and backward pass, on average: more of short rows, fewer of long ones."""
    learning_rate: float = Field(default_factory=_rate_of_method, gt=0)
    """Peak learning rate. Default: 1e-3 with --method lora, 1e-4 with --method full."""
    weight_decay: float = Field(1e-5, ge=0)
    """AdamW weight decay."""
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of steps over which the learning rate rises linearly from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate schedule after the warm-up; cosine and linear decay to 0."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    zero_stage: ZeroStage = 2
    """DeepSpeed ZeRO stage. 0: all on each worker; 2: gradients and optimizer state sharded; 3: weights too."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """Keep the optimizer state, or with ZeRO-3 the weights too, in host memory instead of GPU memory."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Arithmetic of the forward pass. auto: bf16 if the hardware has it."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    max_post_tokens: int = Field(512, ge=1)
    """Longer posts are truncated to this many tokens, in training and in every later use of the model."""
    num_evaluations: int | None = Field(None, ge=0)
    """How often to compute the validation loss, spread evenly over training; the weights with the lowest loss are
    saved. 0: never. None: 4 if the data folder has validation rows."""
    validation_rows: int = Field(256, ge=1)
    """Validation rows for that loss, sampled once; with --objective heads, texts."""
    patience: int | None = Field(None, ge=1)
    """Early stopping: evaluations without a lower validation loss before training stops. None: never."""
    metrics_every: int = Field(0, ge=0)
    """Compute task metrics at every N-th evaluation. 0: never."""
    metric_rows: int = Field(32, ge=2)
    """Questions per task and emotion for these metrics; fewer where there would be more than 2,048 in all."""
    checkpoint_minutes: float = Field(10.0, gt=0)
    """Minutes between checkpoints, at most."""
    checkpoint_steps: int | None = Field(None, ge=1)
    """Also save a checkpoint every N steps. None: by time only."""
    keep_checkpoints: int = Field(2, ge=1)
    """Latest checkpoints to keep, in addition to the best one."""
    max_failures: int = Field(3, ge=0)
    """How often workers that died (a lost node, a killed process) are restarted from the last checkpoint."""
    gpu_memory_gib: float = Field(80.0, gt=0)
    """Memory per GPU in GiB, for --plan."""
    mlflow: str | None = None
    """Also log the run to this MLflow server, such as http://127.0.0.1:5000. Needs the extra `mlflow`."""
    seed: int = 123
    """Seed of row order, adapter initialisation and dropout."""
    overwrite: bool = False
    """Replace an existing model directory. An interrupted run with other options is discarded; one with the same
    options is continued."""
    cluster: ClusterConfig = ClusterConfig()
    """Workers, their CPUs and GPUs."""

    @model_validator(mode="before")
    @classmethod
    def _start_from_recipe(cls, values: Any) -> Any:
        return with_recipe(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _objective_fits(self) -> Self:
        if self.freeze and self.objective != "heads":
            raise ValueError(f"--freeze trains heads only, and --objective is {self.objective}; add --objective heads")
        if self.objective != "generate" and self.zero_stage == 3:
            raise ValueError("heads cannot be trained with ZeRO-3; with --objective heads or both use --zero-stage 2")
        if bool(self.teacher) != (self.unlabelled is not None):
            raise ValueError("--teacher and --unlabelled go together: the model that labels, and the posts it labels")
        if self.teacher and self.objective != "heads":
            raise ValueError("--teacher labels posts for heads; add --objective heads")
        if self.teacher and self.data is None and not self.freeze:
            raise ValueError("--teacher needs --data or --freeze: a base model is trained on labelled texts, too")
        if self.data is None and not self.teacher:
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
        for option in ("num_evaluations", "patience", "metrics_every"):
            if self.freeze and getattr(self, option):
                raise ValueError(
                    f"--{option.replace('_', '-')} needs training steps; --freeze fits the heads in closed form"
                )
        if self.plan and self.teacher:
            raise ValueError("--plan does not estimate a teacher's time; use: emollm annotate --dry-run 100 ...")
        if self.merge and self.objective != "generate":
            raise ValueError("--merge is for --objective generate; heads use the base model with its adapter as saved")
        if self.merge and self.method != "lora":
            raise ValueError("--merge is for --method lora; a full fine-tune has nothing to merge")
        return self

    @property
    def lora(self) -> dict[str, Any]:
        """The arguments of `attach_lora`."""
        return {
            "rank": self.lora_rank, "alpha": self.lora_alpha, "dropout": self.lora_dropout,
            "first_layer": self.lora_first_layer,
        }  # fmt: skip

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches per worker and optimizer step."""
        return self.global_batch_size // (self.micro_batch_size * self.cluster.num_workers)


FREE_TO_CHANGE = frozenset(
    ("micro_batch_size", "zero_stage", "offload", "precision", "gradient_checkpointing", "checkpoint_minutes",
     "checkpoint_steps", "keep_checkpoints", "max_failures", "merge", "plan", "gpu_memory_gib", "overwrite",
     "cluster", "out", "recipe", "mlflow")
)  # fmt: skip
"""Options that may differ when an interrupted run is continued: they change where and how fast, not the result."""

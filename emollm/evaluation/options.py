"""Options of the evaluation jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from emollm.core.bases import DEFAULT_BASE, DEFAULT_MODEL
from emollm.core.options import ClusterConfig, Config, ModelRef
from emollm.evaluation.baselines.endpoint import EndpointConfig
from emollm.evaluation.external import Parser, Scale
from emollm.metrics.scores import Invalid
from emollm.scoring.options import ScorerConfig
from emollm.scoring.scorer import Engine

Baseline = Literal["constant", "vader", "textblob", "lexicon", "zero-shot", "endpoint"]
LOCAL: tuple[Baseline, ...] = ("constant", "vader", "textblob")
"""What `--baselines local` stands for: those that score all rows in minutes."""


class EvaluateConfig(ScorerConfig):
    """Measure a model, baselines or external predictions on labelled rows, and write a report."""

    model: ModelRef | None = None  # type: ignore[assignment]
    """Model directory, the bundled default model by name, or an untrained base: its registry name, or base:FOLDER.
    None: the bundled default model, or none if --predictions or --compare-with are given."""
    data: Path | None = None
    """Data folder that `emollm build-data` wrote: its validation rows."""
    aeb: Path | None = None
    """Benchmark folder that `emollm build-data` aeb` wrote. Together with --data both are measured."""
    predictions: Path | None = None
    """External predictions, JSON lines or Parquet with `prediction` and `gold`; or a predictions.parquet of this
    job, to measure again without scoring."""
    task: str | None = None
    """Task of --predictions, unless a column `task` or the instructions name it."""
    scale: Scale | None = None
    """Scale of the numbers in --predictions, its golds included: the task's own range, or `unit`, 0..1. None: own, but
    refused where all are in 0..1 and the range is another."""
    parser: Parser = "strict"
    """How answers in --predictions are read. strict: an answer out of range or in another form is invalid. released:
    as the published evaluation did, to reproduce its tables: the first number, clipped to the range, and where there
    is none the middle of the range, class 0 or no label."""
    invalid: Invalid = "clip"
    """How to score an answer that is not a valid value. clip: a number is clipped to the range, anything else is wrong.
    drop: its row is left out. worst: it is wrong. The report shows all three."""
    tasks: tuple[str, ...] | None = None
    """Tasks to measure, comma-separated; `profile` is all five of SemEval-2018. None: all that have rows."""
    max_rows: int | None = Field(None, ge=1)
    """Questions per task and emotion of --aeb and --data, at most, from the start. None: all."""
    calibrated: bool = True
    """Apply the model's calibration, if it has one."""
    baselines: tuple[Baseline | Literal["local"], ...] = ()
    """Systems to compare with, on the same rows, comma-separated; `local` is constant, vader, textblob."""
    compare_with: tuple[Path, ...] = ()
    """Output folders of earlier runs on the same rows, comma-separated: their systems are measured again and stand
    beside this run's, without being scored again."""
    lexicon: Path | None = None
    """Emotion word list for the lexicon baseline, in the form of the NRC lexicon, or JSON."""
    zero_shot: ModelRef = DEFAULT_BASE
    """Untrained base of the zero-shot baseline."""
    slow_rows: int = Field(40, ge=1)
    """Questions per task and emotion, at most and evenly spread, for the zero-shot and endpoint baselines."""
    endpoint: EndpointConfig = EndpointConfig()
    """An OpenAI-compatible server, for the endpoint baseline."""
    wordings: Literal["first", "all"] = "first"
    """all: also ask some rows in every wording of their task, and with a typo, without emoji and with other names, and
    report how far that moves the answers. Heads are asked without words: theirs are moved by the text alone."""
    wording_rows: int = Field(100, ge=1)
    """Rows per task and emotion for --wordings all, evenly spread."""
    resamples: int = Field(1000, ge=0)
    """Bootstrap resamples for the 95% intervals. 0: no intervals."""
    seed: int = 0
    """Seed of the resamples."""
    right_share: float = Field(0.9, gt=0, le=1)
    """Accuracy for which the report gives the confidence threshold for abstaining."""
    out: Path | None = None
    """Folder for predictions.parquet, metrics.json, report.html and run.json. None: only the table is printed."""
    overwrite: bool = False
    """Replace an existing folder."""
    cluster: ClusterConfig = ClusterConfig()
    """Scoring actors, their CPUs and GPUs."""

    @model_validator(mode="after")
    def _has_rows(self) -> Self:
        if not (self.data or self.aeb or self.predictions or self.compare_with):
            raise ValueError("give rows to measure on: --data, --aeb, --predictions or --compare-with")
        if self.task and not self.predictions:
            raise ValueError("--task names the task of --predictions; to choose tasks, use --tasks")
        if self.max_rows and not (self.data or self.aeb):
            raise ValueError(
                "--max-rows is for the questions of --data and --aeb; --predictions are measured as they are"
            )
        if self.wordings == "all" and self.scored_model is None:
            raise ValueError("--wordings all asks a model again; name it with --model")
        if "lexicon" in self.baselines and not self.lexicon:
            raise ValueError("the lexicon baseline needs --lexicon FILE")
        return self

    @property
    def scored_model(self) -> str | None:
        """The model to score, if any."""
        return self.model if self.model or self.predictions or self.compare_with else DEFAULT_MODEL

    @property
    def chosen_baselines(self) -> tuple[Baseline, ...]:
        named = [one for name in self.baselines for one in (LOCAL if name == "local" else (name,))]
        return tuple(dict.fromkeys(named))


class CalibrateConfig(ScorerConfig):
    """Calibrate a model's probabilities on validation rows, and store the maps in its card."""

    model: ModelRef
    """Model directory; its affect.json is rewritten."""
    data: Path
    """Data folder that `emollm build-data` wrote: its validation rows, which the model was not trained on."""
    tasks: tuple[str, ...] | None = None
    """Tasks to calibrate. None: every task that the model and the data share."""
    max_rows: int | None = Field(None, ge=1)
    """Questions per task and emotion, at most. None: all."""
    engine: Engine = "auto"
    """Inference engine to calibrate; each has its own maps."""
    maps: bool = True
    """Fit maps of the probabilities. --no-maps: fit only where to abstain and the sets with a promise; the answers
    stay as the engine gives them."""
    right_share: float = Field(0.9, gt=0, le=1)
    """Accuracy for which the table printed names the confidence threshold for abstaining; the card keeps many."""
    cluster: ClusterConfig = ClusterConfig()
    """Scoring actors, their CPUs and GPUs."""


class AuditConfig(ScorerConfig):
    """Compare a model's scores of sentences that differ only in a gender or race word (Equity Evaluation Corpus)."""

    eec: Path
    """Equity-Evaluation-Corpus.csv, or its folder."""
    tasks: tuple[str, ...] = ("EI-reg", "V-reg")
    """Tasks whose scores are compared: regressions and ordinals that the model knows."""
    max_frames: int | None = Field(None, ge=2)
    """Sentence frames (template and emotion word) to use, of 144, evenly spread; each has 60 sentences. None: all."""
    correction: Literal["holm", "benjamini-hochberg"] = "holm"
    """Correction of p-values for multiple tests: holm bounds the family-wise error rate, benjamini-hochberg the false
    discovery rate."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Corrected p-values below this count as a difference."""
    out: Path | None = None
    """Folder for scores.parquet, audit.json, audit.html and run.json. None: only the table is printed."""
    overwrite: bool = False
    """Replace an existing folder."""
    cluster: ClusterConfig = ClusterConfig()
    """Scoring actors, their CPUs and GPUs."""


class CompareConfig(Config):
    """Tell whether run B is better than run A, by a paired bootstrap over the rows both answered."""

    run_a: Path
    """Output folder of `emollm evaluate`; the two may be given bare, `compare RUN_A RUN_B`."""
    run_b: Path
    """Another."""
    system_a: str | None = None
    """System of run A. None: its first, the model."""
    system_b: str | None = None
    """System of run B. None: its first, the model."""
    invalid: Invalid = "clip"
    """How to score an answer that is not a valid value; `drop` leaves out rows that are invalid in either run."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples."""
    seed: int = 0
    """Seed of the resamples."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Differences with a Holm-corrected p-value below this count."""

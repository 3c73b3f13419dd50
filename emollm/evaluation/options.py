"""Options of the evaluation jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from emollm.core.bases import DEFAULT_BASE, DEFAULT_MODEL
from emollm.core.options import ClusterConfig, Config, ModelRef
from emollm.evaluation.baselines.endpoint import EndpointConfig
from emollm.evaluation.external import Scale
from emollm.metrics.scores import Invalid
from emollm.scoring.options import ScorerConfig
from emollm.scoring.scorer import Engine

Baseline = Literal["constant", "vader", "textblob", "lexicon", "embedding", "zero-shot", "endpoint"]
LOCAL: tuple[Baseline, ...] = ("constant", "vader", "textblob", "embedding")
"""What `--baselines local` stands for: what runs here, in minutes, on all rows."""


class EvaluateConfig(ScorerConfig):
    """Measure a model, baselines, or anybody's predictions on labelled rows, and write the report."""

    model: ModelRef | None = None  # type: ignore[assignment]
    """Model directory, the model in the box by name, or an untrained base: its registry name, or base:FOLDER. None:
    the model in the box, or none where --predictions or --beside are given."""
    data: Path | None = None
    """Data folder that `emollm build-data` wrote: its validation rows."""
    aeb: Path | None = None
    """Benchmark folder that `emollm build-data` aeb` wrote. Together with --data both are measured."""
    predictions: Path | None = None
    """Somebody's predictions, JSON lines or Parquet with `prediction` and `gold`; or a predictions.parquet of this
    job, to measure again without scoring."""
    task: str | None = None
    """Task of --predictions, unless a column `task` or the instructions tell it."""
    scale: Scale | None = None
    """Scale of the numbers in --predictions, its golds included: the task's own range, or `unit`, 0..1. None: own, but
    refused where all are in 0..1 and the range is another."""
    invalid: Invalid = "clip"
    """What an answer that is no value counts as. clip: a number is clipped to the range, the rest is wrong. drop: its
    row is left out. worst: it is wrong. The report shows all three."""
    tasks: tuple[str, ...] | None = None
    """Tasks to measure, comma-separated; `profile` is all five of SemEval-2018. None: all that there are rows of."""
    max_rows: int | None = Field(None, ge=1)
    """At most so many questions a task and emotion of --aeb and --data, the first ones. None: all."""
    calibrated: bool = True
    """Put the model's answers through its calibration, if it has one."""
    baselines: tuple[Baseline | Literal["local"], ...] = ()
    """Systems to compare with, on the same rows, comma-separated; `local` is constant, vader, textblob, embedding."""
    train: Path | None = None
    """Data folder whose training rows teach the embedding baseline. None: --data."""
    beside: tuple[Path, ...] = ()
    """Output folders of earlier runs on the same rows, comma-separated: their systems are measured again and stand
    beside this run's, without being scored again."""
    lexicon: Path | None = None
    """Emotion word list for the lexicon baseline, in the form of the NRC lexicon, or JSON."""
    zero_shot: ModelRef = DEFAULT_BASE
    """Untrained base of the zero-shot baseline."""
    slow_rows: int = Field(40, ge=1)
    """At most so many questions a task and emotion, evenly spread, for the zero-shot and endpoint baselines."""
    endpoint: EndpointConfig = EndpointConfig()
    """An OpenAI-compatible server, for the endpoint baseline."""
    resamples: int = Field(1000, ge=0)
    """Bootstrap resamples for the 95% intervals. 0: no intervals."""
    seed: int = 0
    """Seed of the resamples."""
    right_share: float = Field(0.9, gt=0, le=1)
    """Share of right answers for which the report gives the confidence below which to abstain."""
    out: Path | None = None
    """Folder for predictions.parquet, metrics.json, report.html, report.md and run.json. None: only the table is
    printed."""
    overwrite: bool = False
    """Replace a folder that is already there."""
    cluster: ClusterConfig = ClusterConfig()
    """Scoring actors, their CPUs and GPUs."""

    @model_validator(mode="after")
    def _has_rows(self) -> Self:
        if not (self.data or self.aeb or self.predictions or self.beside):
            raise ValueError("give rows to measure on: --data, --aeb, --predictions or --beside")
        if self.task and not self.predictions:
            raise ValueError("--task names the task of --predictions; to choose tasks, use --tasks")
        if self.max_rows and not (self.data or self.aeb):
            raise ValueError(
                "--max-rows is for the questions of --data and --aeb; --predictions are measured as they are"
            )
        if "lexicon" in self.baselines and not self.lexicon:
            raise ValueError("the lexicon baseline needs --lexicon FILE")
        return self

    @property
    def scored_model(self) -> str | None:
        """The model to score, if any."""
        return self.model if self.model or self.predictions or self.beside else DEFAULT_MODEL

    @property
    def chosen_baselines(self) -> tuple[Baseline, ...]:
        named = [one for name in self.baselines for one in (LOCAL if name == "local" else (name,))]
        return tuple(dict.fromkeys(named))


class CalibrateConfig(ScorerConfig):
    """Fit maps on validation rows that make a model's probabilities mean what they say, and keep them in its card."""

    model: ModelRef
    """Model directory; its affect.json is written anew."""
    data: Path
    """Data folder that `emollm build-data` wrote: its validation rows, which the model was not trained on."""
    tasks: tuple[str, ...] | None = None
    """Tasks to calibrate. None: every task that the model and the data share."""
    max_rows: int | None = Field(None, ge=1)
    """At most so many questions a task and emotion. None: all."""
    engine: Engine = "auto"
    """The engine whose answers are calibrated; each has its own maps."""
    right_share: float = Field(0.9, gt=0, le=1)
    """Share of right answers for which the confidence below which to abstain is put into the card."""
    cluster: ClusterConfig = ClusterConfig()
    """Scoring actors, their CPUs and GPUs."""


class AuditConfig(ScorerConfig):
    """Compare a model's scores of sentences that differ in a gender or race word alone (Equity Evaluation Corpus)."""

    eec: Path
    """Equity-Evaluation-Corpus.csv, or its folder."""
    tasks: tuple[str, ...] = ("EI-reg", "V-reg")
    """Tasks whose scores are compared: regressions and ordinals that the model knows."""
    max_frames: int | None = Field(None, ge=2)
    """At most so many of the 144 sentence frames (template and emotion word), evenly spread; each has 60 sentences.
    None: all."""
    correction: Literal["holm", "benjamini-hochberg"] = "holm"
    """How p-values are corrected for the number of tests: holm bounds the chance of any false alarm, the other the
    share of false alarms."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Corrected p-values below this are called a difference."""
    out: Path | None = None
    """Folder for scores.parquet, audit.json, audit.html and run.json. None: only the table is printed."""
    overwrite: bool = False
    """Replace a folder that is already there."""
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
    """What an answer that is no value counts as; `drop` leaves out rows that are invalid in either."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples."""
    seed: int = 0
    """Seed of the resamples."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Differences with a Holm-corrected p-value below this count."""

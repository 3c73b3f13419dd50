"""The systems of a run, each as predictions on the same questions: the model, baselines, somebody's file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from emollm.core.bases import BASES
from emollm.core.card import AffectCard
from emollm.core.conformal import Conformal
from emollm.core.errors import ConfigError, DataError
from emollm.core.tasks import PROFILE, QuestionKey, Task
from emollm.evaluation.external import parquet_columns, read_external
from emollm.evaluation.options import Baseline, EvaluateConfig
from emollm.evaluation.predict import askable_tasks, model_size, predict
from emollm.metrics.predictions import METRICS_FILE, PREDICTIONS_FILE, Prediction, read_predictions
from emollm.metrics.questions import GoldQuestion
from emollm.scoring.open import known_card, resolve_engine

Role = Literal["model", "given", "baseline"]
OnRows = Callable[[int, int], None]
ZERO_SHOT = ", zero-shot"


@dataclass(frozen=True, slots=True)
class System:
    name: str
    role: Role
    predictions: list[Prediction]
    facts: dict[str, Any] = field(default_factory=dict)
    """Its cost where known (rows, seconds, questions_per_s, engine, parameters, bytes, price), and as `learnt`
    what `how_learnt` says of each task."""
    sets: tuple[Conformal, ...] = ()
    """Of the model's card, for the engine that answered."""


def model_system(config: EvaluateConfig, questions: Sequence[GoldQuestion], on_rows: OnRows) -> System:
    """The model's answers to the questions that it can be asked."""
    assert config.scored_model
    return _scored(config.scored_model, "model", config, questions, on_rows)


def baseline_system(
    name: Baseline, config: EvaluateConfig, questions: Sequence[GoldQuestion], on_rows: OnRows
) -> System:
    """A baseline's answers, to as many of the questions as it can answer and is asked."""
    if name == "zero-shot":
        asked = spread(questions, config.slow_rows)
        system = _scored(config.zero_shot, "baseline", config, asked, on_rows)
        return System(f"zero-shot {config.zero_shot}", "baseline", system.predictions, system.facts)
    started = time.monotonic()
    facts: dict[str, Any] = {}
    title: str = name
    match name:
        case "constant":
            from emollm.evaluation.baselines.constant import predict_constant

            title, predictions = "best constant", predict_constant(questions)
        case "vader" | "textblob":
            from emollm.evaluation.baselines.polarity import predict_polarity, textblob_polarity, vader_polarity

            title = {"vader": "VADER", "textblob": "TextBlob"}[name]
            predictions = predict_polarity(vader_polarity() if name == "vader" else textblob_polarity(), questions)
        case "lexicon":
            from emollm.evaluation.baselines.lexicon import predict_lexicon, read_lexicon

            assert config.lexicon
            title, predictions = (
                f"word list {config.lexicon.stem}",
                predict_lexicon(read_lexicon(config.lexicon), questions),
            )
        case "endpoint":
            from emollm.evaluation.baselines.endpoint import predict_endpoint

            asked = spread(questions, config.slow_rows)
            scored = predict_endpoint(config.endpoint, asked, on_rows=lambda n: on_rows(n, len(asked)))
            title, predictions, facts = f"endpoint {config.endpoint.model}", scored.predictions, scored.facts
    return System(title, "baseline", predictions, _pace(predictions, time.monotonic() - started) | facts)


def given_systems(config: EvaluateConfig, golds: Sequence[GoldQuestion] | None) -> list[System]:
    """The systems of --predictions: those of an earlier run, or the one that anybody's file holds."""
    assert config.predictions
    path = config.predictions
    if path.suffix == ".parquet" and path.is_file() and "system" in parquet_columns(path):
        return read_run(path.parent).systems
    answers = read_external(
        path, task=config.task, tasks=config.tasks, scale=config.scale, parser=config.parser, golds=golds
    )
    return [System(path.stem, "given", answers)]


class Run(NamedTuple):
    """What an earlier run left."""

    systems: list[System]
    rows_from: dict[str, str]


def read_run(folder: Path) -> Run:
    """The systems of an output folder of `emollm evaluate`: predictions, and what metrics.json tells of them.

    Raises DataError if either is not there or of another version.
    """
    try:
        metrics = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
        about = {system["name"]: system for system in metrics["systems"]}
        tasks = [Task.model_validate(task) for task in metrics["tasks"]]
        rows_from = dict(metrics["rows_from"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{folder} is not an output folder of `emollm evaluate` of this version") from None
    predictions = read_predictions(folder / PREDICTIONS_FILE, tasks)
    return Run(
        [System(name, about[name]["role"], p, about[name]["facts"]) for name, p in predictions.items()], rows_from
    )


def spread(questions: Sequence[GoldQuestion], most: int) -> list[GoldQuestion]:
    """At most `most` questions per task and emotion, evenly spread over their rows, in their order."""
    rows: dict[QuestionKey, list[int]] = {}
    for i, question in enumerate(questions):
        rows.setdefault(question.key, []).append(i)
    chosen = {i for mine in rows.values() for i in _evenly(mine, most)}
    return [question for i, question in enumerate(questions) if i in chosen]


def _evenly(rows: Sequence[int], most: int) -> list[int]:
    return list(rows) if len(rows) <= most else [rows[k * len(rows) // most] for k in range(most)]


def _scored(
    model: str, role: Role, config: EvaluateConfig, questions: Sequence[GoldQuestion], on_rows: OnRows
) -> System:
    engine = config.engine if role == "model" else "auto"
    known = {task.name for task in askable_tasks(model, engine)}
    asked = [question for question in questions if question.task.name in known]
    if not asked:
        raise ConfigError(f"{model} knows none of the tasks of these rows; it knows {', '.join(known)}")
    scored = predict(
        model,
        asked,
        options={**config.scorer_options(), "engine": engine} if role == "model" else {"engine": engine},
        cluster=config.cluster,
        calibrated=config.calibrated,
        on_rows=lambda n: on_rows(n, len(asked)),
    )
    card, names = known_card(model, engine), {question.task.name for question in asked}
    base = BASES.get(card.base.name if card else model)
    used = resolve_engine(model, engine)
    facts = {
        "engine": used,
        "actors": None if used == "server" else config.cluster.num_workers,
        "parameters": base.parameters if base else None,
        "bytes": model_size(model),
        "calibrated": bool(
            config.calibrated and card and used in card.calibration and card.calibration[used].questions
        ),
        "learnt": how_learnt(card, used, names) if card else dict.fromkeys(names, "not trained"),
        **scored.facts,
    }
    fitted = card.calibration.get(used) if card and config.calibrated else None
    sets = fitted.sets if fitted else ()
    return System(model, role, scored.predictions, _pace(scored.predictions, scored.seconds) | facts, sets)


def how_learnt(card: AffectCard, engine: str, asked: Set[str]) -> dict[str, str]:
    """How the engine came by its answers to each task: `trained`, `distilled`, `derived from TASK` or `not trained`.

    The last two are zero-shot in the sense of the published tables if the model was trained on AAID's five tasks alone.
    """
    heads = card.heads.heads if card.heads else ()
    origins = {h.task: f"derived from {h.derivation.source}" if h.derivation else h.origin for h in heads}
    taught = {task.name for task in card.tasks if not origins.get(task.name, "").startswith("derived")}
    if engine != "heads":
        origins = dict.fromkeys(taught, "trained")
    is_zero_shot = taught <= set(PROFILE)
    return {
        task: origins[task] if task in taught
        else origins.get(task, "not trained") + (ZERO_SHOT if is_zero_shot else "")
        for task in sorted(asked)
    }  # fmt: skip


def _pace(predictions: Sequence[Prediction], seconds: float) -> dict[str, Any]:
    return {
        "rows": len(predictions),
        "seconds": round(seconds, 1),
        "questions_per_s": round(len(predictions) / seconds, 1) if seconds else None,
    }

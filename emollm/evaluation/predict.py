"""Questions to a model's predictions, with a pool of Ray actors."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from emollm.core.bases import anywhere
from emollm.core.errors import EmollmError
from emollm.core.options import ClusterConfig
from emollm.core.prompts import worded
from emollm.core.tasks import TASKS, Task
from emollm.metrics.predictions import Prediction, read_value
from emollm.metrics.questions import GoldQuestion
from emollm.scoring.open import known_tasks, resolve_engine

_ASKED_AT_ONCE = 2048
"""Questions put to servers together: far more than are in flight, so that they seldom run out."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a pass over the questions gave."""

    predictions: list[Prediction]
    """In the order of the questions."""
    seconds: float
    """Wall time of the scoring alone, loading the model included and starting Ray not."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Of servers: how they were asked, what that took and cost, and how many distributions are known."""


def askable_tasks(model: str, engine: str) -> tuple[Task, ...]:
    """The tasks a model can be asked: those of its card and, for a model that writes answers, all others untrained.

    Heads answer only what they were fitted for or derive from it. Raises ModelError or ConfigError.
    """
    known = {task.name: task for task in known_tasks(model, engine)}
    return tuple(known.values() if resolve_engine(model, engine) == "heads" else {**TASKS, **known}.values())


def predict(
    model: str,
    questions: Sequence[GoldQuestion],
    *,
    options: Mapping[str, Any],
    cluster: ClusterConfig,
    calibrated: bool = True,
    templates: Sequence[int] | None = None,
    on_rows: Callable[[int], None] = lambda _done: None,
) -> Scored:
    """Ask a model all questions; `options` are those of `open_scorer`, the engine among them. `templates` says in
    which of its task's wordings each is asked; None: the first.

    `on_rows` gets the number of newly answered ones, on another thread.
    """
    if options["engine"] == "server":
        return _predict_here(
            model, questions, options=options, calibrated=calibrated, templates=templates, on_rows=on_rows
        )
    from emollm.runtime.errors import worker_error
    from emollm.runtime.placement import check_resources, with_gpus
    from emollm.runtime.pools import map_on_actors, quiet_ray_data, release_actors, reports_to
    from emollm.runtime.session import ray_session
    from emollm.scoring.rows import ScoreQuestions

    order = _order(questions, resolve_engine(model, options["engine"]))
    rows = pa.table(
        {
            "index": pa.array(order, pa.int64()),
            "task": pa.array([questions[i].task.name for i in order], pa.string()),
            "emotion": pa.array([questions[i].emotion for i in order], pa.string()),
            "text": pa.array([questions[i].text for i in order], pa.string()),
            "template": pa.array([templates[i] if templates else 0 for i in order], pa.int32()),
            "context": pa.array([questions[i].context for i in order], pa.string()),
            "target": pa.array([questions[i].target for i in order], pa.string()),
        }
    )
    with ray_session(cluster):
        import ray.data

        cluster = with_gpus(cluster, device=options.get("device", "auto"))
        check_resources(cluster, what="scoring actors", reads_data=True)
        quiet_ray_data()
        batch_size = max(1, min(256, math.ceil(len(order) / cluster.num_workers / 4)))
        with reports_to(on_rows) as queue:
            actor = {**options, "model": anywhere(model), "calibrated": calibrated, "reports": queue}
            blocks = ray.data.from_arrow([rows.slice(i, batch_size) for i in range(0, len(order), batch_size)])
            scored = map_on_actors(blocks, ScoreQuestions, actor, cluster, batch_size=batch_size)
            started = time.monotonic()
            failure: EmollmError | None = None
            try:
                tables = ray.get(scored.to_arrow_refs())
            except ray.exceptions.RayError as error:
                failure = worker_error(error, doing="scoring")
            seconds = time.monotonic() - started
            del scored, blocks
            release_actors()
            if failure:
                raise failure
    answers = pa.concat_tables(tables).sort_by("index").to_pylist()
    return Scored([_prediction(q, row) for q, row in zip(questions, answers, strict=True)], seconds)


def _predict_here(
    model: str,
    questions: Sequence[GoldQuestion],
    *,
    options: Mapping[str, Any],
    calibrated: bool,
    templates: Sequence[int] | None,
    on_rows: Callable[[int], None],
) -> Scored:
    """Through servers: this process keeps many busy, so no actor is started."""
    from emollm.scoring.calibrated import inner
    from emollm.scoring.open import open_scorer
    from emollm.scoring.server.engine import ServerScorer

    started = time.monotonic()
    scorer = open_scorer(model, calibrated=calibrated, **options)
    engine = inner(scorer)
    assert isinstance(engine, ServerScorer)
    order = _order(questions, "server")
    asked = [worded(questions[i].asked, templates[i] if templates else 0) for i in order]
    estimated, answers = engine.check_cost(asked), []
    for start in range(0, len(asked), _ASKED_AT_ONCE):
        answers += scorer.score(asked[start : start + _ASKED_AT_ONCE])
        on_rows(len(answers) - start)
    found: list[Prediction | None] = [None] * len(questions)
    for i, answer in zip(order, answers, strict=True):
        found[i] = Prediction.of(questions[i], answer)
    marks = Counter(answer.distribution for answer in answers if answer.distribution)
    facts = {"asked": engine.detected.told(), **asdict(engine.usage), "estimated_cost": estimated}
    return Scored([p for p in found if p], time.monotonic() - started, {**facts, "distributions": dict(marks)})


def model_size(model: str) -> int | None:
    """Bytes of a model directory's files; None of a base by name, whose folder is not asked for."""
    from emollm.core.bases import model_folder

    folder = Path(model_folder(model))
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else None


def _order(questions: Sequence[GoldQuestion], engine: str) -> list[int]:
    """Neighbours share a text where one pass answers all of its questions, else a task: tasks are asked by turns."""
    if engine == "heads":
        return sorted(range(len(questions)), key=lambda i: questions[i].text)
    return sorted(range(len(questions)), key=lambda i: questions[i].task.name)


def _prediction(question: GoldQuestion, row: dict[str, Any]) -> Prediction:
    return Prediction(
        question=question,
        value=None if row["error"] is not None else read_value(question.task, row["number"], row["labels"]),
        confidence=row["confidence"],
        std=row["std"],
        probabilities=dict(row["probabilities"] or ()),
        truncated=row["truncated"],
        error=row["error"],
        text=row["answer_text"],
    )

"""Score a model on labelled rows with a pool of Ray actors: what `jobs/evaluate.py` runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from emollm.affect_card import card_tasks
from emollm.bases import anywhere
from emollm.config import ClusterConfig, Config
from emollm.evaluation.scores import GoldQuestion, TaskResult, load_questions, score_results
from emollm.folders import check_new, new_folder, write_json, write_run
from emollm.scoring.scorer import Engine
from emollm.tasks import Kind, Value, select_tasks


class EvaluateConfig(Config):
    """Evaluate a model on the validation rows of a data folder."""

    model: str
    """Model directory; or, to see what fine-tuning brings, an untrained base: its registry name, or base:FOLDER."""
    data: Path
    """Data folder that jobs/build_data.py wrote."""
    tasks: tuple[str, ...] | None = None
    """Tasks to evaluate; `profile` is all five of SemEval-2018. None: every task the model and the data share."""
    max_rows: int | None = Field(None, ge=1)
    """At most so many questions a task and emotion, the first ones of the folder. None: all."""
    engine: Engine = "constrained"
    """How answers are had from the model."""
    out: Path | None = None
    """Folder for predictions.parquet, metrics.json and run.json. None: only the table is printed."""
    overwrite: bool = False
    """Replace a folder that is already there."""
    cluster: ClusterConfig = ClusterConfig()
    """Scoring actors, their CPUs and GPUs."""


def evaluate(
    config: EvaluateConfig, *, on_rows: Callable[[int, int], None] = lambda _done, _total: None
) -> list[TaskResult]:
    """Score the model; write predictions and metrics if `out` is given. `on_rows` gets (new rows, all rows)."""
    known = card_tasks(config.model)
    tasks = known if config.tasks is None else select_tasks(config.tasks, known)
    questions = load_questions(config.data, tasks, max_rows=config.max_rows)
    if config.out:
        check_new(config.out, overwrite=config.overwrite)
    predictions = _predict(config, questions, lambda done: on_rows(done, len(questions)))
    results = score_results(questions, _values(questions, predictions))
    order = [task.name for task in tasks]
    results.sort(key=lambda result: order.index(result.task))
    if config.out:
        with new_folder(config.out, overwrite=config.overwrite) as folder:
            pq.write_table(_prediction_table(questions, predictions), folder / "predictions.parquet")
            write_json(folder / "metrics.json", [_without_nan(result) for result in results])
            write_run(folder, job="evaluate", config=config.model_dump(mode="json"))
    return results


def _predict(config: EvaluateConfig, questions: Sequence[GoldQuestion], on_rows: Callable[[int], None]) -> pa.Table:
    """The answers, one row a question, in the order of the questions."""
    from emollm.ray_session import check_resources, map_on_actors, quiet_ray_data, ray_session, reports_to, worker_error
    from emollm.scoring.rows import ScoreQuestions

    # Neighbours in task: the generating engine works through one task at a time.
    order = sorted(range(len(questions)), key=lambda i: questions[i].task.name)
    rows = pa.table(
        {
            "index": pa.array(order, pa.int64()),
            "task": pa.array([questions[i].task.name for i in order]),
            "emotion": pa.array([questions[i].emotion for i in order], pa.string()),
            "text": pa.array([questions[i].text for i in order], pa.string()),
        }
    )
    with ray_session(config.cluster):
        import ray.data

        check_resources(config.cluster, what="scoring actors", reads_data=True)
        quiet_ray_data()
        batch_size = max(1, min(64, math.ceil(len(order) / config.cluster.num_workers / 4)))
        with reports_to(on_rows) as queue:
            options = {"model": anywhere(config.model), "engine": config.engine, "reports": queue}
            blocks = ray.data.from_arrow([rows.slice(i, batch_size) for i in range(0, len(order), batch_size)])
            scored = map_on_actors(blocks, ScoreQuestions, options, config.cluster, batch_size=batch_size)
            try:
                tables = ray.get(scored.to_arrow_refs())
            except ray.exceptions.RayError as error:
                raise worker_error(error, doing="scoring") from None
    return pa.concat_tables(tables).sort_by("index")


def _values(questions: Sequence[GoldQuestion], predictions: pa.Table) -> list[Value | None]:
    """Numbers and labels back as values of each question's kind."""
    values: list[Value | None] = []
    for question, row in zip(questions, predictions.to_pylist(), strict=True):
        if row["error"] is not None:
            values.append(None)
            continue
        match question.task.kind:
            case Kind.REGRESSION:
                values.append(row["number"])
            case Kind.ORDINAL:
                values.append(int(row["number"]))
            case Kind.SINGLE_LABEL:
                values.append(row["labels"][0])
            case Kind.LABEL_SET:
                values.append(tuple(row["labels"]))
    return values


def _prediction_table(questions: Sequence[GoldQuestion], predictions: pa.Table) -> pa.Table:
    from emollm.answers import answer_string

    questions_table = pa.table(
        {
            "id": [q.id for q in questions],
            "task": [q.task.name for q in questions],
            "emotion": pa.array([q.emotion for q in questions], pa.string()),
            "text": [q.text for q in questions],
            "gold": [answer_string(q.task, q.gold, q.emotion) for q in questions],
        }
    )
    for name in ("number", "labels", "confidence", "error", "answer_text"):
        questions_table = questions_table.append_column(name, predictions[name])
    return questions_table


def _without_nan(result: TaskResult) -> dict[str, object]:
    """For JSON, which has no NaN: an undefined score is null."""

    def clean(scores: dict[str, float]) -> dict[str, float | None]:
        return {name: None if math.isnan(value) else value for name, value in scores.items()}

    return {**asdict(result), "scores": clean(result.scores), "by_emotion": clean(result.by_emotion)}

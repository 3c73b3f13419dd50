"""Labelled questions out of a data folder, and metrics out of the answers to them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emollm.errors import DataError
from emollm.evaluation import metrics
from emollm.instructions import gold_value, read_rows
from emollm.tasks import Kind, Task, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldQuestion:
    """A question with its known answer."""

    id: str
    task: Task
    emotion: str | None
    text: str
    gold: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """What a model scored on one task."""

    task: str
    rows: int
    valid: float
    """Share of answers that could be read, 0..1."""
    scores: dict[str, float]
    """By metric name; NaN where it is undefined. The task's headline metric comes first."""
    by_emotion: dict[str, float] = field(default_factory=dict)
    """The headline metric for each emotion of the task."""


def load_questions(
    folder: Path, tasks: Sequence[Task], *, split: str = "validation", max_rows: int | None = None
) -> list[GoldQuestion]:
    """The labelled questions of a data folder, each once, however many wordings it stands in.

    Raises DataError if the folder holds none of the tasks.
    """
    by_name = {task.name: task for task in tasks}
    questions: dict[str, GoldQuestion] = {}
    counts: dict[tuple[str, str | None], int] = defaultdict(int)
    columns = ["id", "task", "emotion", "text", "value", "labels"]
    for row in read_rows(folder, split).select(columns).to_pylist():
        task = by_name.get(row["task"])
        row_id = row["id"].rsplit("/", 1)[0]  # without the number of its wording
        key = (row["task"], row["emotion"])
        if task is None or row_id in questions or (max_rows is not None and counts[key] >= max_rows):
            continue
        counts[key] += 1
        questions[row_id] = GoldQuestion(
            id=row_id, task=task, emotion=row["emotion"], text=row["text"], gold=gold_value(task, row)
        )
    if not questions:
        raise DataError(f"{folder}/{split}.parquet has no row of {', '.join(by_name)}")
    return list(questions.values())


def score_results(questions: Sequence[GoldQuestion], predicted: Sequence[Value | None]) -> list[TaskResult]:
    """Metrics a task, in the order tasks first occur; None is an answer that could not be read.

    An unread answer counts as wrong for labels and classes. A correlation has no wrong value to give it: it is
    taken over the answers that were read, and `valid` tells how many.
    """
    grouped: dict[str, list[tuple[GoldQuestion, Value | None]]] = defaultdict(list)
    for question, value in zip(questions, predicted, strict=True):
        grouped[question.task.name].append((question, value))
    return [_score_task(pairs) for pairs in grouped.values()]


def _score_task(pairs: list[tuple[GoldQuestion, Value | None]]) -> TaskResult:
    task = pairs[0][0].task
    read = [(q, v) for q, v in pairs if v is not None]
    by_emotion: dict[str, float] = {}
    match task.kind:
        case Kind.REGRESSION | Kind.ORDINAL:
            for emotion in task.emotions or ("",):
                mine = [(q.gold, v) for q, v in read if (q.emotion or "") == emotion]
                by_emotion[emotion] = metrics.pearson([g for g, _ in mine], [v for _, v in mine])  # type: ignore[misc]
            # EI tasks: the mean over the emotions, undefined if any is.
            scores = {"pearson": math.fsum(by_emotion.values()) / len(by_emotion)}
            if task.kind is Kind.ORDINAL:
                scores["accuracy"] = metrics.accuracy([q.gold for q, _ in pairs], [v for _, v in pairs])
        case Kind.SINGLE_LABEL:
            scores = {"accuracy": metrics.accuracy([q.gold for q, _ in pairs], [v for _, v in pairs])}
        case Kind.LABEL_SET:
            gold: list[Any] = [q.gold for q, _ in pairs]
            # A label outside every list: an unread answer shares nothing with any gold, not even emptiness.
            sets: list[Any] = [v if v is not None else ("<unread>",) for _, v in pairs]
            micro, macro = metrics.f1_scores(gold, sets, task.labels)
            scores = {"jaccard": metrics.jaccard(gold, sets), "micro-F1": micro, "macro-F1": macro}
    return TaskResult(
        task=task.name,
        rows=len(pairs),
        valid=len(read) / len(pairs),
        scores=scores,
        by_emotion=by_emotion if task.emotions else {},
    )

"""The table of predictions, the common form of all systems, from which metrics are computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from emollm.core.answers import Answer, answer_string
from emollm.core.errors import DataError
from emollm.core.tasks import Kind, Task, Value, as_labels, as_number
from emollm.data.raters import decode, encode
from emollm.metrics.questions import GoldQuestion

PREDICTIONS_FILE = "predictions.parquet"
METRICS_FILE = "metrics.json"
"""File next to the predictions with the metrics by system and task."""

SCHEMA = pa.schema(
    [
        pa.field("system", pa.string(), metadata={"about": "the model's or baseline's name"}),
        pa.field("id", pa.string()),
        pa.field("task", pa.string()),
        pa.field("emotion", pa.string()),
        pa.field("text", pa.string(), metadata={"about": "null if the predictions have no texts"}),
        pa.field("gold", pa.string(), metadata={"about": "the gold as answer text; a regression's in 0..1"}),
        pa.field("gold_number", pa.float64(), metadata={"about": "gold of a regression (own range) or ordinal"}),
        pa.field("gold_labels", pa.list_(pa.string()), metadata={"about": "gold of a single label or label set"}),
        pa.field("gold_ratings", pa.list_(pa.string()), metadata={"about": "what each rater said, as JSON; else null"}),
        pa.field("number", pa.float64(), metadata={"about": "predicted number, which may be out of range: see error"}),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("confidence", pa.float64(), metadata={"about": "probability of the answer, 0..1"}),
        pa.field("std", pa.float64(), metadata={"about": "standard deviation of a regression, own range"}),
        pa.field("probabilities", pa.map_(pa.string(), pa.float64())),
        pa.field("truncated", pa.bool_()),
        pa.field("error", pa.string(), metadata={"about": "null if the answer is valid"}),
        pa.field("answer_text", pa.string(), metadata={"about": "the output, if it was not a valid answer"}),
    ]
)

OUT_OF_RANGE = "out_of_range"
"""The error of a number outside the task's range, or between its classes: the one kind that can be clipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One system's answer to one question with known gold."""

    question: GoldQuestion
    value: Value | None
    out_of_range_value: float | None = None
    """The invalid number where `error` is `OUT_OF_RANGE`."""
    confidence: float | None = None
    std: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    truncated: bool = False
    error: str | None = None
    text: str | None = None
    """The output, if it was not a valid answer."""

    @classmethod
    def of(cls, question: GoldQuestion, answer: Answer) -> Self:
        return cls(
            question=question,
            value=answer.value,
            confidence=answer.confidence,
            std=answer.std,
            probabilities=answer.probabilities,
            truncated=answer.truncated,
            error=answer.error,
            text=answer.text,
        )


def predictions_table(systems: Mapping[str, Sequence[Prediction]]) -> pa.Table:
    """All systems' predictions, one row each. Columns: `SCHEMA`."""
    rows = [_row(system, prediction) for system, predictions in systems.items() for prediction in predictions]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def read_predictions(path: Path, tasks: Iterable[Task]) -> dict[str, list[Prediction]]:
    """The systems of a predictions.parquet, in the order of their first row; raises DataError for another file."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if missing := set(SCHEMA.names) - set(table.column_names):
        raise DataError(f"{path} was not written by `emollm evaluate` of this version: no {', '.join(sorted(missing))}")
    known = {task.name: task for task in tasks}
    systems: dict[str, list[Prediction]] = {}
    for row in table.to_pylist():
        if row["task"] not in known:
            raise DataError(f"{path}: unknown task {row['task']!r}; known: {', '.join(known)}")
        task = known[row["task"]]
        gold = read_value(task, row["gold_number"], row["gold_labels"])
        assert gold is not None
        systems.setdefault(row["system"], []).append(
            Prediction(
                question=GoldQuestion(
                    id=row["id"],
                    task=task,
                    emotion=row["emotion"],
                    text=row["text"] or "",
                    gold=gold,
                    ratings=decode(row["gold_ratings"]),
                ),
                value=read_value(task, row["number"], row["labels"]) if row["error"] is None else None,
                out_of_range_value=row["number"] if row["error"] is not None else None,
                confidence=row["confidence"],
                std=row["std"],
                probabilities=dict(row["probabilities"] or ()),
                truncated=bool(row["truncated"]),
                error=row["error"],
                text=row["answer_text"],
            )
        )
    return systems


def read_value(task: Task, number: float | None, labels: Sequence[str] | None) -> Value | None:
    """Converts a number or labels back to a value of the task's kind."""
    match task.kind:
        case Kind.REGRESSION:
            return number
        case Kind.ORDINAL:
            return None if number is None else int(number)
        case Kind.SINGLE_LABEL:
            return labels[0] if labels else None
        case Kind.LABEL_SET:
            return None if labels is None else tuple(labels)


def _row(system: str, prediction: Prediction) -> dict[str, Any]:
    question = prediction.question
    return {
        "system": system,
        "id": question.id,
        "task": question.task.name,
        "emotion": question.emotion,
        "text": question.text or None,
        "gold": answer_string(question.task, question.gold, question.emotion),
        "gold_number": as_number(question.gold),
        "gold_labels": as_labels(question.gold),
        "gold_ratings": encode(question.ratings) or None,
        "number": prediction.out_of_range_value if prediction.value is None else as_number(prediction.value),
        "labels": as_labels(prediction.value),
        "confidence": prediction.confidence,
        "std": prediction.std,
        "probabilities": list(prediction.probabilities.items()) or None,
        "truncated": prediction.truncated,
        "error": prediction.error,
        "answer_text": prediction.text,
    }

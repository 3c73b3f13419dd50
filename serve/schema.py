"""What goes over the wire."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from emollm.answers import Answer
from emollm.tasks import Task, Value

MAX_TEXTS = 256
MAX_CHARACTERS = 20_000


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AnnotateRequest(_Message):
    texts: Annotated[list[Annotated[str, Field(max_length=MAX_CHARACTERS)]], Field(min_length=1, max_length=MAX_TEXTS)]
    """The posts, one to 256, each of at most 20,000 characters."""
    tasks: list[str] | None = None
    """Tasks by name, or `profile`. Without: every task of the model."""


class AnswerMessage(_Message):
    task: str
    emotion: str | None
    value: Value | None
    """In the task's own range, classes or labels; null where `error` is set."""
    confidence: float | None
    truncated: bool
    error: str | None

    @classmethod
    def of(cls, task: Task, emotion: str | None, answer: Answer) -> AnswerMessage:
        return cls(
            task=task.name,
            emotion=emotion,
            value=answer.value,
            confidence=answer.confidence,
            truncated=answer.truncated,
            error=answer.error,
        )


class AnnotateResponse(_Message):
    results: list[list[AnswerMessage]]
    """For each text, in order, its answers."""


class TaskMessage(_Message):
    name: str
    title: str
    kind: str
    low: float | None
    high: float | None
    classes: dict[int, str]
    labels: list[str]
    emotions: list[str]
    source: str

    @classmethod
    def of(cls, task: Task) -> TaskMessage:
        return cls(
            name=task.name,
            title=task.title,
            kind=str(task.kind),
            low=task.low,
            high=task.high,
            classes={c.value: c.phrase for c in task.classes},
            labels=list(task.labels),
            emotions=list(task.emotions),
            source=task.source,
        )


class ModelMessage(_Message):
    name: str
    base: str
    licence: str
    adapter: str | None
    base_fingerprint: str
    engine: str
    max_post_tokens: int
    tasks: list[str]

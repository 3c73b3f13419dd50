"""What goes over the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from emollm.core.answers import Answer
from emollm.core.card import AffectCard
from emollm.core.prompts import Question
from emollm.core.tasks import Task, Value

MAX_TEXTS = 256
MAX_STREAM_TEXTS = 20_000
MAX_CHARACTERS = 20_000

Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]
_TASKS = "Tasks by name, or `profile` for the five of SemEval-2018. Without: every task of the model."


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class AnnotateRequest(_Message):
    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS, examples=[["what a day :)"]])]
    """The posts, one to 256, each of at most 20,000 characters."""
    tasks: list[str] | None = Field(None, description=_TASKS, examples=[["profile"]])


class StreamRequest(_Message):
    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_STREAM_TEXTS, examples=[["what a day :)"]])]
    """The posts, one to 20,000, each of at most 20,000 characters."""
    tasks: list[str] | None = Field(None, description=_TASKS, examples=[["profile"]])


class AnswerMessage(_Message):
    task: str
    emotion: str | None
    """The emotion asked about, of a task that has emotions."""
    value: Value | None
    """In the task's own range, classes or labels; null where `error` is set."""
    confidence: float | None
    """Probability of the value, 0..1; of a regression that of a number within a tenth of its range."""
    std: float | None
    """Standard deviation, of a regression, in its own range."""
    probabilities: dict[str, float]
    """Of each class or label; of a regression, of the tenths of 0..1. Empty where the engine knows none."""
    valid_mass: float | None
    """Probability that the model, left free, gives a valid answer: near 0 means, do not trust the rest."""
    error: str | None
    """`empty_text`, `invalid_answer` or `scoring_failed`."""

    @classmethod
    def of(cls, question: Question, answer: Answer) -> AnswerMessage:
        return cls(
            task=question.task.name,
            emotion=question.emotion,
            value=answer.value,
            confidence=answer.confidence,
            std=answer.std,
            probabilities=answer.probabilities,
            valid_mass=answer.valid_mass,
            # What stands behind the colon is an exception's own words: for the log, not for the wire.
            error=answer.error.split(":")[0] if answer.error else None,
        )


class TextResult(_Message):
    truncated: bool
    """Whether the text was cut at the model's token limit."""
    answers: list[AnswerMessage]
    """One a question: one a task, or one an emotion of a task that has emotions."""

    @classmethod
    def of(cls, questions: Sequence[Question], answers: Sequence[Answer]) -> TextResult:
        return cls(
            truncated=any(answer.truncated for answer in answers),
            answers=[AnswerMessage.of(q, a) for q, a in zip(questions, answers, strict=True)],
        )


class AnnotateResponse(_Message):
    results: list[TextResult]
    """One a text, in order."""


class StreamLine(TextResult):
    """One line of a stream. The last line is `{"done": N}`, or `{"error": ...}` where it broke off."""

    index: int
    """Which of the texts, from 0."""


class FieldProblem(_Message):
    field: str
    """Where in the body, `texts.3`."""
    message: str


class ErrorBody(_Message):
    code: str
    """A word to program against: `invalid_request`, `too_large`, `queue_full`, ..."""
    message: str
    fields: list[FieldProblem] = []
    request_id: str


class ErrorMessage(_Message):
    error: ErrorBody


class ClassMessage(_Message):
    value: int
    phrase: str


class TaskMessage(_Message):
    name: str
    title: str
    kind: str
    """`regression`, `ordinal`, `single-label` or `label-set`."""
    low: float | None
    high: float | None
    classes: list[ClassMessage]
    labels: list[str]
    emotions: list[str]
    no_label: str | None
    """What an empty label set is called."""
    source: str
    origin: str | None
    """Of heads: `trained`, `distilled`, or `derived` from another task's answer. Null where words are the answer."""

    @classmethod
    def of(cls, task: Task, origin: str | None = None) -> TaskMessage:
        return cls(
            name=task.name,
            title=task.title,
            kind=str(task.kind),
            low=task.low,
            high=task.high,
            classes=[ClassMessage(value=c.value, phrase=c.phrase) for c in task.classes],
            labels=list(task.labels),
            emotions=list(task.emotions),
            no_label=task.no_label,
            source=task.source,
            origin=origin,
        )


class ModelMessage(_Message):
    name: str
    base: str
    licence: str
    adapter: str | None
    base_fingerprint: str
    weights_fingerprint: str | None
    """Of the model directory's own files; null for an untrained base."""
    engine: str
    precision: str
    max_post_tokens: int
    tasks: list[str]
    metrics: dict[str, Any]
    """What the training run wrote beside the weights."""
    card: dict[str, Any]
    """`affect.json`, whole."""

    @classmethod
    def of(
        cls, card: AffectCard, *, engine: str, precision: str, weights: str | None, metrics: dict[str, Any]
    ) -> ModelMessage:
        return cls(
            name=card.name,
            base=card.base.name,
            licence=card.base.licence,
            adapter=card.adapter,
            base_fingerprint=card.base.fingerprint,
            weights_fingerprint=weights,
            engine=engine,
            precision=precision,
            max_post_tokens=card.max_post_tokens,
            tasks=[task.name for task in card.tasks],
            metrics=metrics,
            card=card.model_dump(mode="json"),
        )

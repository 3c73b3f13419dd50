"""Request and response bodies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from emollm.core.answers import Answer
from emollm.core.card import AffectCard
from emollm.core.english import looks_english
from emollm.core.prompts import Question, as_context, column_name
from emollm.core.tasks import MAX_LABELS, Task, Value, Way
from emollm.scoring.extras import Extras
from emollm.serve.batching import Beside

MAX_TEXTS = 256
MAX_STREAM_TEXTS = 20_000
MAX_CHARACTERS = 20_000

Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]
_TASKS = (
    "Task names, or `profile`: those of SemEval-2018, and intensities in any post; or tasks of your own, which the "
    'model need not know: `{"labels": ["relief", "dread"]}`. Default: every task of the model.'
)
MAX_TASKS = 64
MAX_LABEL = 200
Label = Annotated[str, Field(max_length=MAX_LABEL)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


def _is_none(value: object) -> bool:
    return value is None


class _Asked(_Message):
    """Optional additions to the answers; see docs/trust.md."""

    abstain: str | float | None = Field(None, examples=["precision=0.8"])
    """`precision=0.8`: leave answers empty so that 80% of the others are right, by the model's card; a number: those
    below this confidence."""
    second: bool = False
    """Add the second most likely answer."""
    sets: float | None = Field(None, examples=[0.9])
    """Add the set or interval that contains the truth for this share of posts like those of the calibration:
    0.5, 0.8, 0.9 or 0.95."""
    explain: bool = False
    """Add the words whose removal changes each answer most: one forward pass per word."""

    def extras(self) -> dict[str, Any]:
        return {"abstain": self.abstain, "second": self.second, "sets": self.sets, "explain": self.explain}


class AskedTask(_Message):
    """A task of your own: `labels`, or `classes` in ascending order, or `low` and `high`."""

    labels: Annotated[list[Label], Field(min_length=1, max_length=MAX_LABELS)] | None = None
    many: bool = False
    """Whether any number of the labels may hold, not exactly one."""
    classes: Annotated[list[Label], Field(min_length=2, max_length=MAX_LABELS)] | None = None
    low: float | None = None
    high: float | None = None
    name: Annotated[str, Field(max_length=100)] | None = None
    """Name of the task in the answers; needed but for labels."""
    title: Label | None = None
    """What is asked, in a few words, such as `the tone of the complaint`."""
    about: Literal["writer", "reader"] | None = None
    """Whose emotion is meant; the writer's by default."""
    descriptions: dict[Label, Label] | list[Label] | None = None
    """A sentence for each label that is true where it fits; of a number for its two ends."""
    way: Way | None = None
    """How it is answered: `constrained`, `entailment` or `embedding`; by default as the endpoint was started."""


def _shape(task: Any) -> str:
    return "name" if isinstance(task, str) else "task"


NameOrTask = Annotated[Annotated[str, Tag("name")] | Annotated[AskedTask, Tag("task")], Discriminator(_shape)]


class _Posts(_Asked):
    tasks: Annotated[list[NameOrTask], Field(max_length=MAX_TASKS)] | None = Field(
        None, description=_TASKS, examples=[["profile"]]
    )
    contexts: list[Text | Annotated[list[Text], Field(max_length=100)] | None] | None = None
    """What comes before each text, one entry per text: a string, earlier posts in a list, oldest first, or null."""
    targets: list[Annotated[str, Field(max_length=500)] | None] | None = None
    """The name or aspect that is asked about, one entry per text, or null."""

    @model_validator(mode="after")
    def _one_per_text(self) -> Self:
        texts = getattr(self, "texts", [])
        for name in ("contexts", "targets"):
            given = getattr(self, name)
            if given is not None and len(given) != len(texts):
                raise ValueError(f"{name} has {len(given)} entries for {len(texts)} texts; give one for each, or null")
        return self

    @property
    def beside(self) -> list[Beside]:
        """Context and target of each text; empty where the request has neither."""
        if self.contexts is None and self.targets is None:
            return []
        count = len(getattr(self, "texts", []))
        contexts, targets = self.contexts or [None] * count, self.targets or [None] * count
        return [Beside(as_context(c), (t or "").strip()) for c, t in zip(contexts, targets, strict=True)]

    @property
    def asked(self) -> list[str | dict[str, Any]] | None:
        """Names of tasks, and tasks of the request as `core.ask` reads them."""
        if self.tasks is None:
            return None
        return [task if isinstance(task, str) else task.model_dump(exclude_none=True) for task in self.tasks]


class AnnotateRequest(_Posts):
    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS, examples=[["what a day :)"]])]
    """The posts, one to 256, each of at most 20,000 characters."""


class StreamRequest(_Posts):
    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_STREAM_TEXTS, examples=[["what a day :)"]])]
    """The posts, one to 20,000, each of at most 20,000 characters."""


class WordMessage(_Message):
    """A word whose removal changes an answer."""

    about: str | None
    """The label whose probability it is; null for a number or a class."""
    base: float
    """The answer to the whole text: value, expected class, or the label's probability."""
    word: str
    start: int
    end: int
    """Its position in the text, in Unicode characters."""
    effect: float
    """`base` minus the answer without the word."""


class BesideMessage(_Message):
    """The requested additions to an answer; others are absent."""

    abstained: bool | None = Field(None, exclude_if=_is_none)
    """Whether `value` is empty because the confidence is too low."""
    best: Value | None = Field(None, exclude_if=_is_none)
    """The best guess, also if `value` is empty."""
    second: Value | None = Field(None, exclude_if=_is_none)
    """The second most likely answer."""
    set: list[int] | list[str] | None = Field(None, exclude_if=_is_none)
    """The classes or labels that contain the truth for the requested share of posts."""
    low: float | None = Field(None, exclude_if=_is_none)
    high: float | None = Field(None, exclude_if=_is_none)
    """The ends of that interval for a number."""
    words: list[WordMessage] | None = Field(None, exclude_if=_is_none)


class AnswerMessage(_Message):
    task: str
    emotion: str | None
    """The emotion asked about, for tasks that have emotions."""
    value: Value | None
    """In the task's own range, classes or labels; null where `error` is set."""
    confidence: float | None
    """Probability of the value, 0..1; for a regression, of a number within a tenth of its range."""
    std: float | None
    """Standard deviation of a regression, in its own range."""
    probabilities: dict[str, float]
    """Probability of each class or label; for a regression, of the tenths of 0..1. Empty if the engine has none."""
    valid_mass: float | None
    """Probability that unconstrained generation gives a valid answer; near 0, do not trust the other numbers."""
    way: str | None
    """Of a task of your own, how it was answered and by which model, such as `embedding by minilm-l6`; else null."""
    error: str | None
    """`empty_text`, `invalid_answer`, `labels_alike`, `way_unavailable` or `scoring_failed`."""
    beside: BesideMessage | None = Field(None, exclude_if=_is_none)
    """The requested additions."""

    @classmethod
    def of(cls, question: Question, answer: Answer, extras: Extras | None = None) -> AnswerMessage:
        beside = None
        if extras is not None:
            (value,), found = extras.beside(question, [answer])
            answer = replace(answer, value=value)
            # By their endings: the columns are named for the question.
            start = len(column_name(question)) + 1
            beside = BesideMessage.model_validate({name[start:]: each[0] for name, each in found.items()})
        # Not validated: the values are the scorer's own, and validation took four times as long as the rest.
        return cls.model_construct(
            task=question.task.name,
            emotion=question.emotion,
            value=answer.value,
            confidence=answer.confidence,
            std=answer.std,
            probabilities=answer.probabilities,
            valid_mass=answer.valid_mass,
            way=answer.way,
            # The part after the colon is an exception's message: for the log, not for clients.
            error=answer.error.split(":")[0] if answer.error else None,
            beside=beside,
        )


class TextResult(_Message):
    truncated: bool
    """Whether the text was truncated at the model's token limit."""
    not_english: bool
    """Whether the text seems to be in another language, which the bundled models did not learn."""
    notes: list[str]
    """How context and target were read, where not wholly: `context_cut`, `target_cut`, `target_not_in_text`,
    `context_not_read`, `target_not_read`."""
    answers: list[AnswerMessage]
    """One per question: one per task, or one per emotion for tasks that have emotions."""

    @classmethod
    def of(
        cls, text: str, questions: Sequence[Question], answers: Sequence[Answer], extras: Extras | None = None
    ) -> TextResult:
        return cls.model_construct(
            truncated=any(answer.truncated for answer in answers),
            not_english=not looks_english(text),
            notes=list(dict.fromkeys(note for answer in answers for note in answer.notes)),
            answers=[AnswerMessage.of(q, a, extras) for q, a in zip(questions, answers, strict=True)],
        )


class AnnotateResponse(_Message):
    results: list[TextResult]
    """One per text, in order."""


class StreamLine(TextResult):
    """One line of a stream. The last line is `{"done": N}`, or `{"error": ...}` if it broke off."""

    index: int
    """Number of the text, from 0."""


class FieldProblem(_Message):
    field: str
    """Position in the body, such as `texts.3`."""
    message: str


class ErrorBody(_Message):
    code: str
    """Machine-readable: `invalid_request`, `too_large`, `queue_full`, ..."""
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
    """Name of the empty label set."""
    source: str
    origin: str | None
    """For heads: `trained`, `distilled`, or `derived` from another task's answer. Null for other engines."""

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
    digest: str
    """16 hex digits over the model directory's files; `name:MODEL` for an untrained base."""
    engine: str
    precision: str
    max_post_tokens: int
    tasks: list[str]
    metrics: dict[str, Any]
    """Summary of the training run, from `run.json`."""
    card: dict[str, Any]
    """The whole `affect.json`."""

    @classmethod
    def of(cls, card: AffectCard, *, engine: str, precision: str, digest: str, metrics: dict[str, Any]) -> ModelMessage:
        return cls(
            name=card.name,
            base=card.base.name,
            licence=card.base.licence,
            adapter=card.adapter,
            base_fingerprint=card.base.fingerprint,
            digest=digest,
            engine=engine,
            precision=precision,
            max_post_tokens=card.max_post_tokens,
            tasks=[task.name for task in card.tasks],
            metrics=metrics,
            card=card.model_dump(mode="json"),
        )

"""The answers of a task: gold value to answer string, free text to value or None, and what a scorer returns."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from emollm.core.tasks import Kind, Task, Value

Distribution = Literal["exact", "truncated", "unknown"]
"""exact: all of it except .05%. truncated: some of it is in answers that were not followed, or in alternatives
that the server does not return. unknown: the server returns no log-probabilities."""


class WordEffect(NamedTuple):
    """The effect of one word of a post on an answer."""

    about: str | None
    """The label whose probability it is; None for a number or a class."""
    base: float
    """The answer to the whole post: the value, the expected class, or the label's probability."""
    word: str
    start: int
    end: int
    """Its position in the post, in characters."""
    effect: float
    """`base` minus the answer without the word: positive if the word raises it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A scorer's answer to one question.

    `value` is in the task's own range, or None with `error` set: a bad answer is data, never a guess.
    """

    value: Value | None
    """For a regression the expected value if the engine computes it; else the answer with the largest probability."""
    unit: float | None = None
    """A regression's value in 0..1, the range that models are asked for."""
    mode: Value | None = None
    """The answer of greedy decoding: for a regression the most likely digits one by one, not the most likely number."""
    std: float | None = None
    """Standard deviation of a regression's distribution, in the task's own range."""
    confidence: float | None = None
    """Probability of the answer, 0..1; for a regression the probability of a number within .1 (of 0..1)."""
    probabilities: dict[str, float] = field(default_factory=dict)
    """Over the closed answer space if the engine computes them, else empty.

    For classes and single labels they sum to 1; for a label set they are each label's own; for a regression those of
    the tenths "0.0" (0.000 to 0.099) to "0.9" and of "1", in 0..1.
    """
    valid_mass: float | None = None
    """Probability that unconstrained generation gives one of the answers: low if not trained for the task."""
    distribution: Distribution | None = None
    """For the server engine: completeness of the distribution. None for engines that compute it themselves."""
    truncated: bool = False
    """Whether the post was truncated at the token limit."""
    way: str | None = None
    """How a task given at call time was answered, and by which model: `embedding by minilm-l6`."""
    notes: tuple[str, ...] = ()
    """How context and target were read, where not wholly: `prompts.notes_of`."""
    error: str | None = None
    """Why there is no value: `EMPTY_TEXT`, `INVALID_ANSWER`, or `SCORING_FAILED` with the reason behind a colon."""
    text: str | None = None
    """The model's output, kept if it was not a valid answer."""
    words: tuple[WordEffect, ...] = ()
    """The words with the largest effects, if requested."""


EMPTY_TEXT = "empty_text"
INVALID_ANSWER = "invalid_answer"
SCORING_FAILED = "scoring_failed"
LABELS_ALIKE = "labels_alike"
"""Two labels of a task given at call time are one to the model's tokenizer."""
WAY_UNAVAILABLE = "way_unavailable"
"""The model that a task given at call time needs cannot be loaded."""


def to_unit(task: Task, value: float) -> float:
    """A value of the task's own range mapped to the 0..1 that models are asked for."""
    assert task.low is not None and task.high is not None
    return (value - task.low) / (task.high - task.low)


def unit_of(task: Task, value: Value | None) -> float | None:
    """`to_unit` of any answer; None if it is not a number or there is none."""
    return to_unit(task, value) if task.kind is Kind.REGRESSION and isinstance(value, float | int) else None


def from_unit(task: Task, unit: float) -> float:
    """The inverse of `to_unit`."""
    assert task.low is not None and task.high is not None
    return task.low + unit * (task.high - task.low)


def answer_string(task: Task, value: Value, emotion: str | None = None) -> str:
    """The answer a model is trained to give; raises DataError for a value that is not one of the task's."""
    task.check_value(value)
    match task.kind:
        case Kind.REGRESSION:
            assert isinstance(value, float | int)
            # At most three places, trailing zeros cut: "0.5", "1", "0" (AAID).
            return f"{to_unit(task, value):.3f}".rstrip("0").rstrip(".")
        case Kind.ORDINAL:
            phrase = next(c.phrase for c in task.classes if c.value == value)
            return f"{value}: {phrase.format(emotion=emotion)}{task.answer_end}"
        case Kind.SINGLE_LABEL:
            return f"{value}{task.answer_end}"
        case Kind.LABEL_SET:
            assert isinstance(value, tuple) and task.no_label is not None
            named = [label for label in task.labels if label in value]
            return (", ".join(named) or task.no_label) + task.answer_end


_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_CLASS = re.compile(r"([+-]?\d+)\s*(:|$)")


def parse_answer(task: Task, text: str) -> Value | None:
    """The value that free text states, in the task's own range, or None if it states none.

    Strict on purpose: one "48: disgust" among 975 answers takes Pearson from .80 to .08, so a number out of
    range is not an answer and is never clipped here.
    """
    text = text.strip()
    match task.kind:
        case Kind.REGRESSION:
            text = text.removesuffix(".")
            if not _NUMBER.fullmatch(text):
                return None
            unit = float(text)
            return from_unit(task, unit) if 0.0 <= unit <= 1.0 else None
        case Kind.ORDINAL:
            found = _CLASS.match(text)
            value = int(found.group(1)) if found else None
            return value if value in task.answer_values else None
        case Kind.SINGLE_LABEL:
            by_name = {label.casefold(): label for label in task.labels}
            return by_name.get(text.removesuffix(".").strip().casefold())
        case Kind.LABEL_SET:
            assert task.no_label is not None
            names = [part.strip().casefold() for part in text.removesuffix(".").split(",")]
            if names == [task.no_label.casefold()]:
                return ()
            by_name = {label.casefold(): label for label in task.labels}
            if not all(name in by_name for name in names):
                return None
            return tuple(label for label in task.labels if label.casefold() in names)

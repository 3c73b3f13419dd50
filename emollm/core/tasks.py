"""Affect tasks as data: what is asked, on which scale or over which labels, and how it is measured."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import Literal, NamedTuple, Self, get_args

from pydantic import ValidationError, model_validator

from emollm.core.errors import ConfigError, DataError, did_you_mean
from emollm.core.frozen import Frozen

Value = float | int | str | tuple[str, ...]
"""A gold or predicted value: float (regression), int (ordinal), str (single label), tuple (label set)."""


Way = Literal["auto", "constrained", "entailment", "embedding"]
"""How a task that a model was not trained for is answered; docs/ask.md says what each does."""
WAYS: tuple[Way, ...] = get_args(Way)

MAX_LABELS = 200
"""Of a task given at call time: a prompt names them all, and an answer is sought among all."""
_LONGEST_LABEL = 200


class Kind(StrEnum):
    REGRESSION = "regression"
    """A number in [low, high]."""
    ORDINAL = "ordinal"
    """One of some ordered integer classes, each with a phrase."""
    SINGLE_LABEL = "single-label"
    """Exactly one label."""
    LABEL_SET = "label-set"
    """Any set of labels, the empty one included."""


class QuestionKey(NamedTuple):
    """What is asked, independent of the post: a task, and an emotion if the task has emotions."""

    task: str
    emotion: str | None = None

    def __str__(self) -> str:
        return f"{self.task}.{self.emotion}" if self.emotion else self.task


class OrdinalClass(Frozen):
    value: int
    phrase: str
    """Its wording; `{emotion}` is filled in if a task is asked once per emotion."""


class Task(Frozen):
    """One affect task.

    A task is data rather than a class per benchmark: all differences between tasks are in these fields.
    """

    name: str
    kind: Kind
    title: str
    """The heading in tables and on the page."""
    source: str
    metric: Literal["pearson", "jaccard", "accuracy"]
    """The headline metric of the task; `emollm.metrics.metrics` computes it and others."""
    low: float | None = None
    high: float | None = None
    """The task's own range, regressions only. Models are asked for 0..1, and the answer is mapped."""
    classes: tuple[OrdinalClass, ...] = ()
    labels: tuple[str, ...] = ()
    no_label: str | None = None
    """The answer text of an empty label set."""
    emotions: tuple[str, ...] = ()
    """The emotions the task is asked for, one question each; empty for a task without that slot."""
    text_name: str = "Tweet"
    """What the prompt calls the text."""
    full_stop: bool = True
    """Whether a full stop is appended to a text that does not end in one of `. ! ?`, as AAID does."""
    question: str
    """The end of the prompt, with the trailing space."""
    answer_end: str = ""
    """The end of an answer, "." for E-c."""
    templates: tuple[str, ...]
    """Wordings with the same meaning; the first one is used at inference."""
    about: Literal["writer", "reader"] = "writer"
    """Whose emotion is meant: the one that the text's writer shows, or the one that its reader has."""
    descriptions: tuple[str, ...] = ()
    """A sentence per label or class, in their order; of a regression one for `low` and one for `high`."""
    way: Way | None = None
    """How a task that was given at call time is answered; None: it is a task of a model's card."""

    @model_validator(mode="after")
    def _parts_fit_kind(self) -> Self:
        wanted = {
            Kind.REGRESSION: self.low is not None and self.high is not None and self.low < self.high,
            Kind.ORDINAL: len(self.classes) >= 2,
            Kind.SINGLE_LABEL: len(self.labels) >= 2,
            Kind.LABEL_SET: len(self.labels) >= 1 and self.no_label is not None,
        }
        if not wanted[self.kind]:
            need = {
                Kind.REGRESSION: "low < high",
                Kind.ORDINAL: "two or more classes",
                Kind.SINGLE_LABEL: "two or more labels",
                Kind.LABEL_SET: "labels and no_label",
            }
            raise ValueError(f"task {self.name!r} is of kind {self.kind} and needs {need[self.kind]}")
        values = [c.value for c in self.classes]
        if values != sorted(set(values)):
            raise ValueError(f"task {self.name!r}: classes must ascend and differ, got {values}")
        if not self.templates:
            raise ValueError(f"task {self.name!r} has no template")
        for wrong in (
            self._wrong_range(), self._wrong_label(), self._wrong_phrase(), self._wrong_description(),
            clashing_columns([self]),
        ):  # fmt: skip
            if wrong:
                raise ValueError(f"task {self.name!r}: {wrong}")
        return self

    @property
    def keys(self) -> tuple[QuestionKey, ...]:
        """The questions of the task about a post: one per emotion, or one without an emotion."""
        return tuple(QuestionKey(self.name, emotion) for emotion in self.emotions or (None,))

    @property
    def answer_values(self) -> tuple[Value, ...]:
        """The classes of an ordinal, or the labels of the other kinds; empty for a regression."""
        return tuple(c.value for c in self.classes) or self.labels

    @property
    def answer_names(self) -> tuple[str, ...]:
        """`answer_values` as the keys of an answer's probabilities."""
        return tuple(map(str, self.answer_values))

    def _wrong_range(self) -> str | None:
        numbers = [number for number in (self.low, self.high) if number is not None]
        return None if all(map(math.isfinite, numbers)) else f"low and high must be finite, not {numbers}"

    def _wrong_label(self) -> str | None:
        """Why an answer with one of the labels could not be read back."""
        seen: dict[str, str] = {}
        for label in [*self.labels, *([self.no_label] if self.no_label is not None else [])]:
            if label != label.strip().removesuffix(".") or not label or not label.isprintable():
                return f"label {label!r} is empty, or has blanks, line ends or a full stop at its ends"
            if self.kind is Kind.LABEL_SET and "," in label:
                return f"label {label!r} has a comma, which separates the labels of an answer"
            if label.casefold() in seen:
                other = "no_label" if label == self.no_label else "another label"
                return f"label {label!r} and {seen[label.casefold()]!r} differ at most in case; rename {other}"
            seen[label.casefold()] = label
        return None

    def _wrong_phrase(self) -> str | None:
        for one in self.classes:
            try:
                fields = {name for _, name, _, _ in Formatter().parse(one.phrase) if name is not None}
            except ValueError as error:
                return f"phrase {one.phrase!r}: {error}; write a brace as {{{{ or }}}}"
            if fields - {"emotion"} or (fields and not self.emotions):
                allowed = "{emotion}" if self.emotions else "no name, as the task has no emotions,"
                return f"phrase {one.phrase!r} may have {allowed} in braces; write a brace as {{{{ or }}}}"
        return None

    def _wrong_description(self) -> str | None:
        if self.way and max(len(self.labels), len(self.classes)) > MAX_LABELS:
            return f"{len(self.labels or self.classes)} labels, at most {MAX_LABELS}; spread them over several tasks"
        if self.way and (long := next((label for label in self.labels if len(label) > _LONGEST_LABEL), None)):
            return f"label {long[:40]!r}... has {len(long)} characters, at most {_LONGEST_LABEL}"
        wanted = 2 if self.kind is Kind.REGRESSION else len(self.answer_values)
        if self.descriptions and len(self.descriptions) != wanted:
            return f"{len(self.descriptions)} descriptions, expected {wanted}"
        folded = [text.casefold().strip() for text in self.descriptions]
        wrong = next((text for text in self.descriptions if not text.strip() or not text.isprintable()), None)
        if wrong is not None:
            return f"description {wrong!r} is empty or holds a line end"
        return "two descriptions are equal" if len(set(folded)) < len(folded) else None

    @property
    def columns(self) -> list[str]:
        """The columns of its answers, one per emotion: names that no query language needs to quote, `ei_reg_joy`."""
        return [fold_name(f"{self.name}.{emotion}" if emotion else self.name) for emotion in self.emotions or (None,)]

    def check_emotion(self, emotion: str | None) -> None:
        """Raise DataError unless `emotion` is one of the task's (None if it has no emotions)."""
        if emotion not in (self.emotions or (None,)):
            choices = ", ".join(self.emotions) or "none: the task takes no emotion"
            raise DataError(f"unknown emotion {emotion!r} for {self.name}; choose from: {choices}")

    def check_value(self, value: Value) -> None:
        """Raise DataError unless `value` is of the task's kind and within its range, classes or labels."""
        match self.kind:
            case Kind.REGRESSION:
                assert self.low is not None and self.high is not None
                is_number = isinstance(value, float | int) and not isinstance(value, bool)
                # A NaN fails both comparisons, so it is refused here as well.
                if not (is_number and self.low <= value <= self.high):  # type: ignore[operator]
                    raise DataError(f"{value!r} is not a number in [{self.low:g}, {self.high:g}] for {self.name}")
            case Kind.ORDINAL:
                if isinstance(value, bool) or value not in self.answer_values:
                    raise DataError(f"{value!r} is not a class of {self.name}; choose from: {list(self.answer_values)}")
            case Kind.SINGLE_LABEL:
                if value not in self.labels:
                    raise DataError(f"{value!r} is not a label of {self.name}; choose from: {', '.join(self.labels)}")
            case Kind.LABEL_SET:
                unknown = [v for v in value if v not in self.labels] if isinstance(value, tuple) else [value]
                if unknown:
                    raise DataError(f"{unknown!r} not among the labels of {self.name}: {', '.join(self.labels)}")


def as_number(value: Value | None) -> float | None:
    """The value of a regression or ordinal as a float; None for the other kinds."""
    return float(value) if isinstance(value, float | int) else None


def as_labels(value: Value | None) -> list[str] | None:
    """The value of a single label or label set as a list; None for the other kinds."""
    match value:
        case str():
            return [value]
        case tuple():
            return list(value)
        case _:
            return None


def fold_name(name: str) -> str:
    """In lower case, with an underscore for every character that is neither a letter nor a digit."""
    return "".join(c if c.isalnum() else "_" for c in name).lower()


_DETAILS = (
    *("", "_std", "_confidence", "_probabilities", "_error", "_unit", "_mode", "_distribution"),
    *("_peak", "_peak_sentence", "_trajectory", "_window_shares"),
    *("_abstained", "_best", "_second", "_set", "_low", "_high", "_words", "_way", "_valid_mass"),
)


def clashing_columns(tasks: Iterable[Task]) -> str | None:
    """A message if answers of these tasks would have the same column; None if each has its own."""
    taken = dict.fromkeys(("id", "text", "truncated", "error", "not_english"), "every output")
    for task in tasks:
        mine = {column + detail: task.name for column in task.columns for detail in _DETAILS}
        if len(mine) < len(task.columns) * len(_DETAILS):
            return "two of its emotions have the same column; rename one"
        for column, name in mine.items():
            if column in taken:
                return f"column {column!r} is that of {name} and of {taken[column]}; rename the task"
        taken.update(mine)
    return None


def problems(error: ValidationError, whole: str = "task") -> str:
    """What pydantic found wrong, in one line; `whole` names what is wrong as a whole."""
    found = [(".".join(map(str, e["loc"])), _SAID.get(e["type"]) or e["msg"].removeprefix("Value error, "))
             for e in error.errors()]  # fmt: skip
    # What a task says of itself as a whole begins with its name.
    return "; ".join(said if not at and said.startswith("task ") else f"{at or whole}: {said}" for at, said in found)


_SAID = {"missing": "is required", "extra_forbidden": "is not the name of a field"}


def load_tasks(path: Path) -> dict[str, Task]:
    """Read a task file (TOML, a list `[[task]]`); see `tasks.toml` in this package for the form.

    Raises ConfigError naming the file and each field that is wrong.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no task file at {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a readable TOML file: {error}") from None
    tasks: dict[str, Task] = {}
    for number, entry in enumerate(data.get("task", []), start=1):
        try:
            task = Task.model_validate(entry)
        except ValidationError as error:
            raise ConfigError(f"{path}, task {number} ({entry.get('name', 'unnamed')}): {problems(error)}") from None
        if task.name in tasks:
            raise ConfigError(f"{path}: task {task.name!r} occurs twice")
        tasks[task.name] = task
    if not tasks:
        raise ConfigError(f"{path} has no [[task]]")
    if clash := clashing_columns(tasks.values()):
        raise ConfigError(f"{path}: {clash}")
    return tasks


TASKS: Mapping[str, Task] = load_tasks(Path(str(resources.files("emollm") / "core" / "tasks.toml")))

PROFILE = ("EI-reg", "EI-oc", "V-reg", "V-oc", "E-c")
"""The affect profile of a post as in SemEval-2018: eleven questions."""

ANY_POST = "Intensity"
"""Part of the profile of models that answer it: EI-reg's numbers say little if the emotion is absent."""


def select_tasks(names: Sequence[str | Task], known: Mapping[str, Task] | Iterable[Task] = TASKS) -> tuple[Task, ...]:
    """The tasks of these names, in this order; the name `profile` stands for `ANY_POST` and the five of `PROFILE`.

    A `Task` among the names, as `core.ask` makes it at call time, stands for itself. Raises ConfigError listing the
    choices when a name is unknown, or where two tasks would have one name.
    """
    # No model is named, so `profile` stands for the tasks that any model can be asked.
    profile = PROFILE if known is TASKS else (ANY_POST, *PROFILE)
    by_name = dict(known) if isinstance(known, Mapping) else {task.name: task for task in known}
    wanted: dict[str, Task | None] = {}
    for name in names:
        if isinstance(name, Task):
            if (other := by_name.get(name.name) or wanted.get(name.name)) and other != name:
                raise ConfigError(f"there is another task {name.name!r}; give yours a name of its own")
            wanted[name.name] = name
            continue
        for one in [p for p in profile if p in by_name] if name == "profile" else [name]:
            wanted[one] = wanted.get(one) or by_name.get(one)
    unknown = [name for name, task in wanted.items() if task is None]
    if unknown or not wanted:
        problem = f"unknown task {', '.join(map(repr, unknown))}" if unknown else "no task named"
        raise ConfigError(f"{problem}; {did_you_mean(unknown, by_name)}choose from: {', '.join(by_name)}, or profile")
    chosen = tuple(task for task in wanted.values() if task is not None)
    if clash := clashing_columns(chosen):
        raise ConfigError(f"tasks cannot be asked together: {clash}")
    return chosen


def references(tasks: Iterable[Task]) -> tuple[str | Task, ...]:
    """What stands for the tasks in another process: a name of the model's card, or the task that was given."""
    return tuple(task.name if task.way is None else task for task in tasks)

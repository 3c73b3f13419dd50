"""Any engine, and beside it what answers the tasks that its model was not trained for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from emollm.core.answers import LABELS_ALIKE, WAY_UNAVAILABLE, Answer, answer_string
from emollm.core.ask import STATEMENT, statements
from emollm.core.bases import BASE_PREFIX, BASES, DEFAULT_BASE
from emollm.core.card import AffectCard
from emollm.core.errors import ModelError
from emollm.core.prompts import Question
from emollm.core.tasks import Kind, Task, Way
from emollm.scoring.arrays import ArrayScorer, PostAnswers
from emollm.scoring.scorer import Scorer, count_tokens

DEFAULT_ENCODER = "minilm-l6"
"""Compares descriptions where the model itself is no encoder."""


class Route(NamedTuple):
    """Which way a task is answered, and by which model: None is the model that is open."""

    way: Way
    model: str | None


class Answers(Protocol):
    """What a way needs."""

    def score(self, questions: Sequence[Question]) -> list[Answer]: ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A way that is ready."""

    scorer: Answers
    name: str
    """As an answer names it: `embedding by minilm-l6`."""
    ids: Callable[[str], Sequence[int]] | None
    """Tokens of a label; None where they are not known."""


def route(way: Way, card: AffectCard, engine: str) -> Route:
    """How a model answers a task that it was not trained for.

    auto: a model that writes answers is asked in its own prompt, constrained to the labels, or, where it was trained on
    statements, whether each is true; of a language model under heads, its base is asked; an encoder compares sentences.
    """
    architecture, base = card.base.architecture, card.base.name
    base = base if base in BASES else f"{BASE_PREFIX}{base}"
    if way == "auto":
        knows_statements = engine != "heads" and any(task.name == STATEMENT for task in card.tasks)
        way = "embedding" if architecture == "encoder" else "entailment" if knows_statements else "constrained"
    if way == "embedding":
        return Route(way, base if architecture == "encoder" else DEFAULT_ENCODER)
    if architecture == "encoder":
        return Route(way, DEFAULT_BASE)
    return Route(way, base if engine == "heads" else None)


class AskingScorer:
    """Tasks of the card go to the engine, untouched; those given at call time the way they name."""

    def __init__(self, engine: Scorer, *, name: str, way: Way = "auto", open_way: Callable[[Route], Opened]) -> None:
        """`name` is the engine's; `way` is for tasks that leave it open. `open_way` raises ModelError if it cannot."""
        self._engine, self._name, self._way, self._open = engine, name, way, open_way
        self._opened: dict[Route, Opened] = {}
        self._alike: dict[tuple[Task, Route], str | None] = {}

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return count_tokens(self._engine, texts)

    @property
    def card(self) -> AffectCard:
        return self._engine.card

    @property
    def wrapped(self) -> Scorer:
        """The engine."""
        return self._engine

    def __getattr__(self, name: str) -> Any:
        # What an engine has beside the interface stays at hand.
        return getattr(self._engine, name)

    def prepare(self, tasks: Iterable[Task]) -> None:
        """Open what these tasks need. Raises ModelError if a model is not to be had."""
        for task in tasks:
            if task.way is not None:
                self._way_of(task)

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        by_task: dict[Task | None, list[int]] = {}
        for number, question in enumerate(questions):
            by_task.setdefault(question.task if question.task.way else None, []).append(number)
        found: dict[int, Answer] = {}
        for task, numbers in by_task.items():
            mine = [questions[n] for n in numbers]
            answers = self._engine.score(mine) if task is None else self._asked(task, mine)
            found.update(zip(numbers, answers, strict=True))
        return [found[n] for n in range(len(questions))]

    def _asked(self, task: Task, questions: Sequence[Question]) -> list[Answer]:
        try:
            opened = self._way_of(task)
        except ModelError as error:
            return [Answer(value=None, error=f"{WAY_UNAVAILABLE}: {error}")] * len(questions)
        if alike := self._labels_alike(task, opened):
            return [Answer(value=None, error=f"{LABELS_ALIKE}: {alike}", way=opened.name)] * len(questions)
        return [replace(answer, way=opened.name) for answer in opened.scorer.score(questions)]

    def _route(self, task: Task) -> Route:
        assert task.way is not None
        return route(self._way if task.way == "auto" else task.way, self.card, self._name)

    def _way_of(self, task: Task) -> Opened:
        chosen = self._route(task)
        if chosen not in self._opened:
            self._opened[chosen] = self._open(chosen)
        return self._opened[chosen]

    def _labels_alike(self, task: Task, opened: Opened) -> str | None:
        """Two answers that the tokenizer spells alike: no model could tell them apart."""
        key = (task, self._route(task))
        if key not in self._alike:
            self._alike[key] = _first_alike(_spoken(task, key[1].way), opened.ids) if opened.ids else None
        return self._alike[key]


class AskingArrayScorer(AskingScorer):
    """The same around an engine that reads a post once for all questions of its card."""

    def score_posts(self, texts: Sequence[str], questions: Sequence[Question]) -> PostAnswers:
        """As the engine has it; the questions are of its card."""
        assert isinstance(self._engine, ArrayScorer)
        return self._engine.score_posts(texts, questions)


def _spoken(task: Task, way: Way) -> dict[str, str]:
    """Of each label what the model is given to read or to write."""
    if task.kind is Kind.REGRESSION or way != "constrained":
        said = statements(task)
        names = task.answer_names or ("the low end", "the high end")
        return dict(zip(names, said, strict=True))
    values = [(value,) for value in task.labels] if task.kind is Kind.LABEL_SET else task.answer_values
    return {name: answer_string(task, value) for name, value in zip(task.answer_names, values, strict=True)}


def _first_alike(spoken: dict[str, str], ids: Callable[[str], Sequence[int]]) -> str | None:
    seen: dict[tuple[int, ...], str] = {}
    for name, text in spoken.items():
        other = seen.setdefault(tuple(ids(text)), name)
        if other != name:
            return f"{other!r} and {name!r} are the same to the model's tokenizer; rename one"
    return None

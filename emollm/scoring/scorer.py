"""The interface of every inference engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol, get_args, runtime_checkable

from emollm.core.answers import Answer
from emollm.core.card import AffectCard
from emollm.core.errors import ConfigError
from emollm.core.prompts import Question
from emollm.core.tasks import Task

Engine = Literal["auto", "constrained", "generate", "heads", "server"]
Precision = Literal["auto", "fastest", "float32", "tf32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda"]
UNDECIDED = "undecided"
"""The precision of a job before a worker was asked what its device supports."""
ENGINES: tuple[str, ...] = get_args(Engine)


class Scorer(Protocol):
    """Answers questions about posts. It does not use Ray: it runs in a script, an actor or a replica."""

    @property
    def card(self) -> AffectCard:
        """The card of its model."""

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, in the same order, for any mix of tasks.

        A question that cannot be answered gets an `Answer` with `error` set; the others are not affected.
        """


@runtime_checkable
class TokenCounter(Protocol):
    """An engine that counts the tokens of a text against its model's limit."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, without truncation."""


_BYTES_PER_TOKEN = 3


def count_tokens(scorer: Scorer, texts: Sequence[str]) -> list[int]:
    """The number of tokens of each text; for a scorer that cannot count, an estimate that is rather too high."""
    if isinstance(scorer, TokenCounter):
        return scorer.count_tokens(texts)
    return [-(-len(text.encode()) // _BYTES_PER_TOKEN) for text in texts]


def prepare(scorer: Scorer, tasks: Iterable[Task]) -> None:
    """Open what tasks given at call time need. Raises ModelError if that is not to be had, or ConfigError if a scorer
    that is no `AskingScorer` is to answer one.
    """
    asked = [task for task in tasks if task.way is not None]
    if asked and not hasattr(scorer, "prepare"):
        raise ConfigError(f"{type(scorer).__name__} answers no task given at call time; open one with open_scorer")
    if asked:
        scorer.prepare(asked)  # type: ignore[attr-defined]

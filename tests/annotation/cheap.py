"""A scorer without a model, for what is around a scorer: `annotate_corpus(..., opener=CheapOpener(...))`.

Its answers depend on the text alone. It raises over posts that hold RAISE, and kills its process over those that hold
KILL.
"""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emollm.core.answers import EMPTY_TEXT, Answer, from_unit
from emollm.core.card import AffectCard, BaseModelInfo
from emollm.core.prompts import Question
from emollm.core.tasks import Kind

CARD = AffectCard(name="cheap", base=BaseModelInfo(name="none", architecture="decoder", licence="", fingerprint=""))


@dataclass(frozen=True)
class CheapScorer:
    log: Path | None = None
    """Gets a line a post that is scored: the process and the text."""
    seconds: float = 0.0
    """To sleep, a post."""
    hold: Path | None = None
    """While this file is there, nothing more is scored once `log` has as many lines as the file says."""

    @property
    def card(self) -> AffectCard:
        return CARD

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        posts = list(dict.fromkeys(q.text for q in questions))
        if any("RAISE" in text for text in posts):
            raise RuntimeError("told to raise")
        if any("KILL" in text for text in posts):
            os.kill(os.getpid(), signal.SIGKILL)
        while self._is_held():
            time.sleep(0.05)
        time.sleep(self.seconds * len(posts))
        if self.log:
            with self.log.open("a") as file:  # one write: lines of several actors do not mix
                file.write("".join(f"{os.getpid()} {text}\n" for text in posts))
        return [_answer(question) for question in questions]

    def _is_held(self) -> bool:
        try:
            said = self.hold.read_text() if self.hold else None
        except FileNotFoundError:
            return False
        return said is not None and len(lines_of(self.log)) >= int(said or 0)  # empty: it is being written


@dataclass(frozen=True)
class CheapOpener:
    log: Path | None = None
    seconds: float = 0.0
    hold: Path | None = None

    def __call__(self, *_: Any, **__: Any) -> CheapScorer:
        return CheapScorer(self.log, self.seconds, self.hold)

    def lines(self) -> list[str]:
        return lines_of(self.log)


def lines_of(log: Path | None) -> list[str]:
    """What was scored so far: `PROCESS TEXT` a post."""
    assert log is not None
    return log.read_text().splitlines() if log.exists() else []


cheap_scorer = CheapOpener()


def _answer(question: Question) -> Answer:
    if not question.text.strip():
        return Answer(value=None, error=EMPTY_TEXT)
    task, unit = question.task, zlib.crc32(f"{question.column} {question.text}".encode()) / 2**32
    match task.kind:
        case Kind.REGRESSION:
            return Answer(value=from_unit(task, unit), unit=unit, std=0.1, confidence=unit)
        case Kind.LABEL_SET:
            shares = {label: (unit * (i + 3)) % 1 for i, label in enumerate(task.labels)}
            named = tuple(label for label, share in shares.items() if share > 0.5)
            return Answer(value=named, confidence=unit, probabilities=shares)
        case _:
            space = [c.value for c in task.classes] or list(task.labels)
            chosen = space[int(unit * len(space))]
            rest = (1 - unit) / (len(space) - 1)
            return Answer(
                value=chosen, confidence=unit, probabilities={str(v): unit if v == chosen else rest for v in space}
            )

"""One bad row harms no other: what every engine wraps around its batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from emollm.core.answers import EMPTY_TEXT, SCORING_FAILED, Answer
from emollm.core.encoding import EncodedPrompt
from emollm.core.prompts import Question

_log = logging.getLogger(__name__)

ScoreBatch = Callable[[Sequence[Question], Sequence[EncodedPrompt]], list[Answer]]
Batches = Callable[[Sequence[Question], Sequence[EncodedPrompt]], Iterator[list[int]]]


def score_safely(
    questions: Sequence[Question], *, encode: Callable[[Question], EncodedPrompt], batches: Batches, score: ScoreBatch
) -> list[Answer]:
    """One answer a question, in order. A question without text, or one that fails by itself, gets an error."""
    answers: dict[int, Answer] = {}
    prompts: dict[int, EncodedPrompt] = {}
    for number, question in enumerate(questions):
        if not question.text.strip():
            answers[number] = Answer(value=None, error=EMPTY_TEXT)
            continue
        try:
            prompts[number] = encode(question)
        except Exception as error:
            answers[number] = _failed(error)
    numbers = list(prompts)
    for batch in batches([questions[n] for n in numbers], [prompts[n] for n in numbers]):
        mine = [numbers[i] for i in batch]
        answers.update(
            zip(mine, _halving([questions[n] for n in mine], [prompts[n] for n in mine], score), strict=True)
        )
    return [answers[number] for number in range(len(questions))]


def _halving(questions: Sequence[Question], prompts: Sequence[EncodedPrompt], score: ScoreBatch) -> list[Answer]:
    """Score a batch; if it raises, its halves: a bad row is cornered in few steps, and too large a batch fits."""
    try:
        return score(questions, prompts)
    except Exception as error:
        if len(questions) == 1:
            # Not what it says: that may quote the text, and the endpoint writes this log too.
            _log.warning("a question could not be scored: %s", type(error).__name__)
            return [_failed(error)]
        half = len(questions) // 2
    return [
        *_halving(questions[:half], prompts[:half], score),
        *_halving(questions[half:], prompts[half:], score),
    ]


def _failed(error: Exception) -> Answer:
    return Answer(value=None, error=f"{SCORING_FAILED}: {type(error).__name__}: {str(error)[:200]}")

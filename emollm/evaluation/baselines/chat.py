"""A question as the messages of a chat, and a reply as a prediction."""

from __future__ import annotations

import re
from collections.abc import Sequence

from emollm.core.answers import INVALID_ANSWER, answer_string
from emollm.core.prompts import Question, render
from emollm.core.tasks import Kind, Task
from emollm.evaluation.external import read_raw
from emollm.metrics.predictions import OUT_OF_RANGE, Prediction
from emollm.metrics.questions import GoldQuestion

Messages = list[dict[str, str]]

_MARKUP = re.compile(r"(?<!\w)[*_`\"']+|[*_`\"']+(?!\w)")
"""Emphasis around words; inside a word, as in very_happy, the character belongs to the label."""


def messages(question: GoldQuestion) -> Messages:
    """The instruction of the protocol, in the wording that spells out classes or labels, and the form of the answer."""
    task = question.task
    wording = next((t for t in task.templates if "{classes}" in t or "{labels}" in t), task.templates[0])
    asked = render(Question(task, question.text, question.emotion), wording).text
    return [{"role": "system", "content": _form(task)}, {"role": "user", "content": asked}]


def reply_prediction(question: GoldQuestion, reply: str) -> Prediction:
    """A reply read strictly: markup and the prompt's own last words may stand around an answer, nothing else.

    Regressions are asked in 0..1 and mapped.
    """
    task = question.task
    text = _MARKUP.sub("", reply.strip().partition("\n")[0]).strip()
    text = text.removeprefix(task.question.strip()).strip()
    value, out_of_range_value = read_raw(task, text, "unit")
    if value is not None:
        return Prediction(question=question, value=value)
    error = INVALID_ANSWER if out_of_range_value is None else OUT_OF_RANGE
    return Prediction(
        question=question, value=None, out_of_range_value=out_of_range_value, error=error, text=reply[:200]
    )


def num_tokens(asked: Sequence[Messages], tasks: Sequence[Task]) -> tuple[int, int]:
    """Estimated tokens of prompts and replies: four characters each, and a few a message."""
    prompts = sum(len(message["content"]) // 4 + 5 for one in asked for message in one)
    return prompts, sum(_REPLY_TOKENS[task.kind] for task in tasks)


_REPLY_TOKENS = {Kind.REGRESSION: 4, Kind.ORDINAL: 12, Kind.SINGLE_LABEL: 4, Kind.LABEL_SET: 10}


def _form(task: Task) -> str:
    match task.kind:
        case Kind.REGRESSION:
            return "Reply with one decimal number between 0 and 1, at most three places, and with nothing else."
        case Kind.ORDINAL:
            shown = answer_string(task, task.classes[-1].value, task.emotions[0] if task.emotions else None)
            return f"Reply with one class as it is listed, number first, such as: {shown}"
        case Kind.SINGLE_LABEL:
            return f"Reply with one of these labels and nothing else: {', '.join(task.labels)}."
        case Kind.LABEL_SET:
            labels = ", ".join(task.labels)
            none = f"Where none fits: {task.no_label}."
            return f"Reply with labels out of this list, comma-separated, and nothing else: {labels}. {none}"

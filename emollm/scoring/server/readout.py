"""A server's reply to answers: values parsed strictly, and distributions from the decisions along the reply.

The distribution of an answer is marked: `exact` if less than `TOLERANCE` of the probability is unaccounted for,
`truncated` if more is in prefixes that were not followed or in tokens that the server did not return, and `unknown`
without log-probabilities.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emollm.core.answers import INVALID_ANSWER, Answer, Distribution, answer_string, parse_answer, to_unit, unit_of
from emollm.core.prompts import Question
from emollm.core.tasks import Kind, Task, Value
from emollm.scoring.constrained.outcome import closed_outcome, decimal_outcomes
from emollm.scoring.constrained.search import TOLERANCE
from emollm.scoring.server.asked import Asked
from emollm.scoring.server.decisions import Branch, Decisions, Token, decisions
from emollm.scoring.server.json_reply import Places, parse_object

_MARKUP = re.compile(r"(?<!\w)[*_`\"']+|[*_`\"']+(?!\w)")
"""Emphasis around words; inside a word, as in very_happy, the character belongs to the label."""
_THOUSANDTHS = [f"{n / 1000:.3f}" for n in range(1001)]


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to one request."""

    text: str
    tokens: tuple[Token, ...] | None
    """None if the server returned no log-probabilities."""
    prompt_tokens: int
    reply_tokens: int

    def spelled(self) -> tuple[str, tuple[Token, ...] | None]:
        """The text, and its tokens if they spell it: byte tokens of a letter cut in two do not.

        A server may leave out the first token's leading blank.
        """
        whole = "".join(token.text for token in self.tokens or ())
        if self.tokens is None or not whole.lstrip().startswith(self.text.strip()):
            return self.text, None
        return whole, self.tokens


def read_reply(asked: Asked, reply: Reply) -> list[Answer]:
    """One answer per question of the request; missing ones have INVALID_ANSWER and the reply's text."""
    answers = _read_json(asked, reply) if asked.names else [_read_plain(asked.questions[0], reply)]
    return [replace(a, truncated=asked.truncated, text=reply.text[:200] if a.error else None) for a in answers]


def read_value(task: Task, text: str) -> Value | None:
    """A text reply, parsed strictly: only markup and the prompt's last words may surround an answer.

    Regressions are asked in 0..1 and mapped.
    """
    return parse_answer(task, bare(task, text))


def bare(task: Task, text: str) -> str:
    """The first line of a reply without markup and without the prompt's last words."""
    line = _MARKUP.sub("", text.strip().partition("\n")[0]).strip()
    return line.removeprefix(task.question.strip()).strip()


def _read_plain(question: Question, reply: Reply) -> Answer:
    task = question.task
    value = read_value(task, reply.text)
    text, tokens = reply.spelled()
    written = bare(task, reply.text)
    if value is None or tokens is None or written not in text:
        return _only(task, value)
    start = text.index(written)
    return _with_distribution(question, value, decisions(tokens, start, start + len(written)))


def _read_json(asked: Asked, reply: Reply) -> list[Answer]:
    try:
        text, tokens = reply.spelled()
        found, places = parse_object(text)
    except ValueError:
        return [Answer(value=None, error=INVALID_ANSWER)] * len(asked.questions)
    answers = []
    for question, name in zip(asked.questions, asked.names, strict=True):
        raw = found.get(name)
        if question.task.kind is Kind.LABEL_SET:
            answers.append(_read_flags(question.task, raw, name, places, tokens))
            continue
        value = read_value(question.task, str(raw)) if isinstance(raw, str | int | float) else None
        place = places.get((name,))
        if value is None or tokens is None or place is None or not isinstance(raw, str):
            answers.append(_only(question.task, value))
        else:
            answers.append(_with_distribution(question, value, decisions(tokens, *place, closing='"')))
    return answers


def _read_flags(task: Task, raw: Any, name: str, places: Places, tokens: tuple[Token, ...] | None) -> Answer:
    """A label set as an object with true or false for each label."""
    if not isinstance(raw, dict) or not all(isinstance(raw.get(label), bool) for label in task.labels):
        # A model without an enforced schema may list them.
        listed = ", ".join(map(str, raw)) or str(task.no_label) if isinstance(raw, list) else str(raw)
        return _only(task, parse_answer(task, listed) if isinstance(raw, str | list) else None)
    value = tuple(label for label in task.labels if raw[label])
    if tokens is None or not all((name, label) in places for label in task.labels):
        return _only(task, value)
    probabilities, sure, hidden = {}, 1.0, 0.0
    for label in task.labels:
        read = decisions(tokens, *places[name, label], closing=",} \n")
        yes, no = (_mass_of(read, word) for word in ("true", "false"))
        probabilities[label] = yes / (yes + no)
        sure *= probabilities[label] if raw[label] else 1.0 - probabilities[label]
        hidden = max(hidden, read.hidden / (yes + no))
    # Each label's decision is conditional on those before it: the branches of other decisions were not followed.
    mark = _mark(1.0 - sure + hidden)
    return Answer(value=value, mode=value, confidence=sure, probabilities=probabilities, distribution=mark)


def _mass_of(read: Decisions, word: str) -> float:
    branches = [read.written, *read.others]
    return sum(b.mass for b in branches if (b.text == word if b.ended else b.text and word.startswith(b.text)))


def _only(task: Task, value: Value | None) -> Answer:
    if value is None:
        return Answer(value=None, error=INVALID_ANSWER)
    return Answer(value=value, unit=unit_of(task, value), mode=value, distribution="unknown")


def _with_distribution(question: Question, value: Value, read: Decisions) -> Answer:
    match question.task.kind:
        case Kind.REGRESSION:
            answer, unread = _decimal(question.task, value, read)
        case Kind.LABEL_SET:
            answer, unread = _label_set(question.task, value, read)
        case _:
            answer, unread = _closed(question, value, read)
    total = answer.valid_mass or 1.0
    return replace(answer, distribution=_mark((unread + read.hidden) / total))


def _mark(unaccounted: float) -> Distribution:
    """The mark of a distribution that leaves out this share of the probability."""
    return "exact" if unaccounted <= TOLERANCE else "truncated"


def _closed(question: Question, value: Value, read: Decisions) -> tuple[Answer, float]:
    task = question.task
    strings = {answer_string(task, each, question.emotion): each for each in task.answer_values}
    mass, unread = dict.fromkeys(task.answer_values, 0.0), 0.0
    mass[value] += read.written.mass
    for branch in read.others:
        fits = [each for text, each in strings.items() if _leads_to(branch, text)]
        unread += branch.mass if len(fits) > 1 else 0.0
        for each in fits:
            mass[each] += branch.mass / len(fits)
    return closed_outcome(mass, mode=value, reference=0.0), unread


def _leads_to(branch: Branch, text: str) -> bool:
    # Only the class, "2", is an answer as well.
    if branch.ended:
        return branch.text.strip() in (text, text.partition(":")[0])
    return bool(branch.text.strip()) and text.startswith(branch.text.lstrip())


def _decimal(task: Task, value: Value, read: Decisions) -> tuple[Answer, float]:
    mass_N, unread = np.zeros(1001), 0.0
    assert isinstance(value, float | int)
    mass_N[round(to_unit(task, value) * 1000)] += read.written.mass
    for branch in read.others:
        text = branch.text.strip()
        if branch.ended:
            unit = parse_answer(task, text)
            if isinstance(unit, float):
                mass_N[round(to_unit(task, unit) * 1000)] += branch.mass
            continue
        below = [n for n, spelled in enumerate(_THOUSANDTHS) if text and spelled.startswith(text)]
        if below:
            mass_N[below] += branch.mass / len(below)
            # An unread third decimal moves the expectation by less than a hundredth of its mass.
            unread += branch.mass if len(below) > 10 else 0.0
    [answer] = decimal_outcomes([task], mass_N[None], mode_units=[to_unit(task, value)], references=[0.0])
    return answer, unread


def _label_set(task: Task, value: Value, read: Decisions) -> tuple[Answer, float]:
    """Each label's share of the branches that name it; a branch that was not followed names no later ones."""
    assert isinstance(value, tuple)
    total = read.written.mass
    labels = {label: total if label in value else 0.0 for label in task.labels}
    unread = 0.0
    for branch in read.others:
        named = _named(task, branch)
        if named is None:
            continue
        total += branch.mass
        unread += 0.0 if branch.ended else branch.mass
        for label in named:
            labels[label] += branch.mass
    return (
        Answer(
            value=value,
            mode=value,
            confidence=read.written.mass / total,
            probabilities={label: mass / total for label, mass in labels.items()},
            valid_mass=min(1.0, total),
        ),
        unread,
    )


def _named(task: Task, branch: Branch) -> Sequence[str] | None:
    """The labels that the beginning of an answer names for certain; None if no answer begins so."""
    text = branch.text.strip()
    if branch.ended:
        found = parse_answer(task, text)
        return found if isinstance(found, tuple) else None
    *whole, last = text.removesuffix(task.answer_end).split(", ") if task.answer_end else text.split(", ")
    if any(part not in task.labels for part in whole):
        return None
    last = last.rstrip(",")
    fits = [label for label in task.labels if label.startswith(last)] if last else []
    is_none = not whole and bool(last) and str(task.no_label).startswith(last)
    if last and not fits and not is_none:
        return None
    # "an" may become anger or anticipation, and names neither.
    return [*whole, *(fits if len(fits) == 1 and not is_none else [])]

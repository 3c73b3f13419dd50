"""The log-probabilities of a reply's tokens as branches: the answer in the reply, and its alternatives.

At every token of an answer the server returns the most likely alternatives. Each is the beginning of another answer;
its probability is that of the text before it times its own. The remaining probability is hidden: it belongs to tokens
beyond the top k that the server returns. Text is compared, not tokens, so this works with any tokenizer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

_END = re.compile(r"</?s>|<\|[^|]*\|>|<(eos|end_of_turn|endoftext)>|\[/?INST\]")
"""The texts of tokens that end a reply."""

_IMPOSSIBLE = -100.0
"""Servers write -9999 for tokens that structured output forbids."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a reply and the most likely tokens at its position, including itself."""

    text: str
    log_p: float
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """The beginning of an answer, or a complete one."""

    text: str
    ended: bool
    """Whether the answer ends here."""
    mass: float
    """Its probability, including all continuations."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """Everything that a reply's tokens say about one value in it."""

    written: Branch
    others: list[Branch]
    hidden: float
    """Probability of tokens that the server did not return."""


def is_end(text: str) -> bool:
    """Whether a token ends the reply."""
    return text == "" or _END.fullmatch(text.strip()) is not None


def decisions(tokens: Sequence[Token], start: int, stop: int, *, closing: str = "") -> Decisions:
    """The decisions between characters `start` and `stop` of the tokens' text.

    `closing` are the characters that end a value in JSON, such as a quote; without it the reply's end does.
    """
    mass, hidden, place = 1.0, 0.0, 0
    others: list[Branch] = []
    value = "".join(token.text for token in tokens)[start:stop]
    for token in tokens:
        first, place = place, place + len(token.text)
        if place <= start and not is_end(token.text):
            continue
        if closing and first > stop:
            break
        # A token may begin before the value, as `": "` and `0` may be one.
        lead = token.text[: start - first] if first < start else ""
        before = value[: max(0, first - start)]
        seen = math.exp(token.log_p)
        for text, log_p in token.alternatives:
            if text == token.text or log_p < _IMPOSSIBLE:
                continue
            seen += math.exp(log_p)
            if text.startswith(lead):
                others.append(_branch(before + text[len(lead) :], is_end(text), mass * math.exp(log_p), closing))
        hidden += mass * max(0.0, 1.0 - seen)
        mass *= math.exp(token.log_p)
        if is_end(token.text):
            break
    return Decisions(
        Branch(value, True, mass), [branch for branch in others if branch.text != value or not branch.ended], hidden
    )


def _branch(text: str, ended: bool, mass: float, closing: str) -> Branch:
    if ended:
        text = _END.sub("", text)
    for i, character in enumerate(text):
        if character in closing:
            return Branch(text[:i], True, mass)
    return Branch(text, ended, mass)

"""Questions to requests: the training prompts of a model directory, or chat messages."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from emollm.core.card import AffectCard
from emollm.core.encoding import CONTEXT_TOKENS, TARGET_TOKENS, PromptEncoder
from emollm.core.prompts import (
    Pieces,
    Question,
    column_name,
    fill_template,
    notes_of,
    render,
    with_surroundings,
)
from emollm.core.tasks import Task
from emollm.scoring.server.forms import in_words, json_in_words, longest, structured
from emollm.scoring.server.usage import CHARACTERS_PER_TOKEN, estimate_tokens

Messages = list[dict[str, str]]

ANSWER = "answer"
"""The property of a JSON reply with the answer to a single question."""
_CHARACTERS_PER_TOKEN = 8
"""A chat model's tokenizer is not available, so a post is truncated at `max_post_tokens` times this many characters."""
_CONTROL = re.compile(r"<(?=\||/?s>|(?:start|end)_of_turn>|[be]os>)|\[(?=/?INST\])")
"""Beginnings of control tokens of chat models: in a post they are text, and must not end its message."""
_EXTRA_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its body, and the questions that its reply answers."""

    questions: tuple[Question, ...]
    """More than one if one prompt asks them all; they are about the same text."""
    body: dict[str, Any]
    """`messages`, or `prompt`, with the structured output; sampling and the model's name are added when it is sent."""
    names: tuple[str, ...]
    """The properties of a JSON reply, one per question; empty if the reply is the answer string itself."""
    max_tokens: int
    truncated: bool
    """Whether the post was truncated."""
    notes: tuple[str, ...] = ()
    """How context and target were read: `prompts.notes_of`."""

    @property
    def prompt_tokens(self) -> int:
        """Estimated if the prompt is not sent as token ids."""
        if "messages" in self.body:
            return estimate_tokens(message["content"] for message in self.body["messages"])
        return len(self.body["prompt"])

    @property
    def reply_tokens(self) -> int:
        """Estimated."""
        return self.max_tokens // CHARACTERS_PER_TOKEN

    def key(self, model: str) -> bytes:
        """The content address of its answers; `model` identifies the model and how it is asked.

        Two tasks may be asked in the same words and differ in their ranges.
        """
        tasks = [[q.task.name, q.emotion, q.task.low, q.task.high, *q.task.answer_names] for q in self.questions]
        return hashlib.sha256(json.dumps([model, self.body, tasks], sort_keys=True).encode()).digest()


@dataclass(frozen=True, slots=True)
class Prompter:
    """Creates the requests for a model's questions."""

    card: AffectCard
    encoder: PromptEncoder | None
    """For a model directory, whose prompts are sent as token ids, so that nothing in a post becomes a special token.
    None: chat."""
    structure: str
    """The kind of structured output to request, or `none`."""
    one_prompt: bool = False

    def requests(self, questions: Sequence[Question]) -> list[tuple[list[int], Asked]]:
        """The requests with the indices of their questions, in an order that lets servers reuse prefixes.

        All posts of an instruction come together, and so do the questions of a post.
        """
        if self.one_prompt:
            groups = _by_post(questions)
            return [(places, self._chat([questions[n] for n in places])) for places in groups]
        order = sorted(range(len(questions)), key=lambda n: _beginning(questions[n]))
        if self.encoder is None:
            return [([n], self._chat([questions[n]])) for n in order]
        prompts = self.encoder.prompts([render(questions[n]) for n in order])
        return [
            (
                [n],
                Asked(
                    (questions[n],),
                    {"prompt": prompt.ids, **structured(self.structure, [questions[n]], [ANSWER])},
                    (ANSWER,) if self.structure == "json_schema" else (),
                    longest(questions[n], as_json=self.structure == "json_schema") + _EXTRA_TOKENS,
                    prompt.truncated,
                    notes_of(questions[n].text, questions[n].target, prompt),
                ),
            )
            for n, prompt in zip(order, prompts, strict=True)
        ]

    def _chat(self, questions: Sequence[Question]) -> Asked:
        as_json = self.one_prompt or self.structure == "json_schema"
        post, truncated, notes = _chat_post(questions[0], self.card.max_post_tokens)
        names = tuple(column_name(q) for q in questions) if self.one_prompt else (ANSWER,) if as_json else ()
        said = _profile(questions, names, post) if self.one_prompt else _single(post, as_json=as_json)
        most = sum(
            longest(q, as_json=as_json) + len(name) + 8 for q, name in zip(questions, names or [""], strict=True)
        )
        return Asked(
            tuple(questions),
            {"messages": said, **structured(self.structure, questions, names)},
            names,
            most + _EXTRA_TOKENS,
            truncated,
            notes,
        )


def _by_post(questions: Sequence[Question]) -> list[list[int]]:
    """Questions about one post with the same context and target, each column once: a repeated post is asked again."""
    groups: dict[tuple[str, str, str, int], list[int]] = {}
    repeats: Counter[tuple[str, str, str, str]] = Counter()
    for n, question in enumerate(questions):
        post = question.text, question.context, question.target
        column = (*post, column_name(question))
        groups.setdefault((*post, repeats[column]), []).append(n)
        repeats[column] += 1
    return list(groups.values())


def tokens_of(text: str) -> int:
    """The tokens of a post that is asked by chat, guessed so that one is cut exactly if it has too many."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def _beginning(question: Question) -> tuple[str, str]:
    pieces = render(question)
    return pieces.prefix, pieces.post


def repair(asked: Asked, reply: str) -> dict[str, Any]:
    """The body of a second try after an invalid answer: a chat says so, otherwise the answer is sampled again."""
    if "messages" not in asked.body:
        return {**asked.body, "temperature": 0.5, "seed": 1}
    wanted = (
        "a JSON object with exactly the properties that were named" if asked.names else in_words(asked.questions[0])
    )
    more = [
        {"role": "assistant", "content": reply[:1000]},
        {"role": "user", "content": f"This is not a valid answer. Reply with {wanted}, and with nothing else."},
    ]
    return {**asked.body, "messages": [*asked.body["messages"], *more]}


def _as_data(text: str, most: int) -> tuple[str, bool]:
    """The truncated post without text that looks like control tokens; and whether it was truncated."""
    clean = _CONTROL.sub(lambda found: f"{found[0]} ", text.encode("utf-8", "replace").decode("utf-8"))
    return clean[:most], len(clean) > most


class _Cut(NamedTuple):
    context_cut: bool
    target_cut: bool


def _chat_post(question: Question, post_tokens: int) -> tuple[Question, bool, tuple[str, ...]]:
    """The question with its texts as data, whether the post was truncated, and how context and target were read."""
    text, truncated = _as_data(question.text, post_tokens * _CHARACTERS_PER_TOKEN)
    room = CONTEXT_TOKENS * _CHARACTERS_PER_TOKEN
    context, _ = _as_data(question.context, len(question.context) * 2)
    target, target_cut = _as_data(question.target, TARGET_TOKENS * _CHARACTERS_PER_TOKEN)
    notes = notes_of(question.text, question.target, _Cut(len(context) > room, target_cut))
    return replace(question, text=text, context=context[-room:], target=target), truncated, notes


def _single(question: Question, *, as_json: bool) -> Messages:
    """The instruction of the protocol, in the wording that spells out classes or labels, and the answer's format."""
    pieces: Pieces = render(question, _wording(question.task))
    if as_json:
        form = f'Reply with a JSON object {{"{ANSWER}": X}}, where X is {json_in_words(question)}.'
    else:
        form = f"Reply with {in_words(question)}, and with nothing else."
    return [{"role": "system", "content": form}, {"role": "user", "content": pieces.text}]


def _profile(questions: Sequence[Question], names: Sequence[str], post: Question) -> Messages:
    """All questions of a post at once; the part that is the same for all posts comes first."""
    lines = [
        f'"{name}": {fill_template(q.task, _wording(q.task))}'
        f"{f' Emotion E: {q.emotion}.' if q.emotion else ''} The value is {json_in_words(q)}."
        for name, q in zip(names, questions, strict=True)
    ]
    system = "Answer these questions about a text with a JSON object that has one property per question.\n" + "\n".join(
        lines
    )
    said = with_surroundings(
        Pieces(prefix="", post=f" {post.text}", suffix=""), f" {post.task.text_name}:", post.context, post.target
    )
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": said.text.strip()},
    ]


def _wording(task: Task) -> str:
    return next((t for t in task.templates if "{classes}" in t or "{labels}" in t), task.templates[0])

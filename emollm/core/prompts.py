"""Task and post to prompt pieces: a prefix shared by all posts, the post, a suffix.

Why pieces rather than one string: the prefix is tokenised and computed once for all posts; the post is user
text, tokenised so that nothing in it becomes a special token; and training and scoring cannot drift apart,
since both go through here.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from emollm.core.frozen import Frozen
from emollm.core.tasks import QuestionKey, Task, fold_name


@dataclass(frozen=True, slots=True)
class Question:
    """One thing asked of one post."""

    task: Task
    text: str
    emotion: str | None = None
    context: str = ""
    """What comes before the text: earlier posts, oldest first, or the document around a sentence."""
    target: str = ""
    """The name or aspect that the question is about."""

    @property
    def key(self) -> QuestionKey:
        return QuestionKey(self.task.name, self.emotion)

    @property
    def column(self) -> str:
        """The name of its answer, `EI-reg.joy` or `V-reg`."""
        return str(self.key)


class Post(NamedTuple):
    """A text and what is read beside it."""

    text: str
    context: str = ""
    target: str = ""


class Pieces(NamedTuple):
    """A prompt in parts; joined they are the instruction of an AAID row, letter for letter.

    The post, the context and the target are user text; the other parts are ours. Without context and target a prompt
    is prefix, post and suffix.
    """

    prefix: str
    """`Task: <template> Tweet:`, equal for all posts of a task and template."""
    post: str
    """The text, after the space that separates it from the prefix."""
    suffix: str
    """` Emotion E: joy. Intensity Score: `, equal for all posts of a task and emotion."""
    context: str = ""
    """What precedes the post, led by a space; the prefix then ends in ` Context:`."""
    bridge: str = ""
    """` Tweet:` between the context and the post."""
    lead: str = ""
    """` Target:` between the post and the target."""
    target: str = ""
    """What is asked about, led by a space."""

    @property
    def text(self) -> str:
        return self.prefix + self.context + self.bridge + self.post + self.lead + self.target + self.suffix


class Layout(Frozen):
    """The text around the instruction: part of the model, stored in `affect.json`."""

    opening: str = ""
    """Text before the instruction."""
    closing: str = "\n"
    """Text between the instruction and the answer."""
    bos: bool = False
    """Whether the tokenizer's begin token comes first."""


LAYOUTS = {
    "emollm": Layout(),
    # The published models were trained with a space after the colon and without BOS, but used without it and with BOS.
    "emollms-training": Layout(opening="Human: \n", closing="\n\nAssistant: \n"),
    "emollms-released": Layout(opening="Human: \n", closing="\n\nAssistant:\n", bos=True),
}


def questions_for(text: str, tasks: tuple[Task, ...]) -> list[Question]:
    """All questions of these tasks about one text: one per emotion where a task has emotions."""
    return [Question(task, text, key.emotion) for task in tasks for key in task.keys]


def worded(question: Question, template: int) -> Question:
    """The question in another of its task's wordings, counted from 0."""
    return replace(question, task=_worded(question.task, template)) if template else question


@functools.cache
def _worded(task: Task, template: int) -> Task:
    """The task with that wording first, which is the one in use."""
    first, *rest = task.templates[template:] + task.templates[:template]
    return task.model_copy(update={"templates": (first, *rest)})


def column_name(question: Question) -> str:
    """The name of a question's column, one that no query language needs to quote: `ei_reg_joy` of `EI-reg.joy`."""
    return fold_name(question.column)


def fill_template(task: Task, template: str) -> str:
    """A template with the task's classes and labels in it."""
    if "{classes}" in template:
        classes = " ".join(f"{c.value}: {c.phrase.format(emotion='E')}." for c in task.classes)
        template = template.replace("{classes}", classes)
    return template.replace("{labels}", ", ".join(task.labels))


def render(question: Question, template: str | None = None) -> Pieces:
    """The prompt pieces of a question, worded by `template` (the task's first by default)."""
    task = question.task
    post = question.text
    if task.full_stop and not post.endswith((".", "!", "?")):
        post += "."
    emotion = f" Emotion E: {question.emotion}." if question.emotion else ""
    stop = "." if question.target else ""
    return with_surroundings(
        Pieces(
            prefix=f"Task: {fill_template(task, template or task.templates[0])}",
            post=f" {post}",
            suffix=f"{stop}{emotion} {task.question}",
        ),
        f" {task.text_name}:",
        question.context,
        question.target,
    )


def with_surroundings(pieces: Pieces, name: str, context: str, target: str) -> Pieces:
    """Pieces whose prefix lacks `name`, the words before the post, with context and target where there are any."""
    if context:
        pieces = pieces._replace(
            prefix=f"{pieces.prefix} Context:".lstrip(), context=f" {context}", bridge=f" {name.strip()}"
        )
    else:
        pieces = pieces._replace(prefix=pieces.prefix + name)
    return pieces._replace(lead=" Target:", target=f" {target}") if target else pieces


def lay_out(pieces: Pieces, layout: Layout) -> Pieces:
    """The pieces with the layout's text around them; only the answer has to be added."""
    return pieces._replace(prefix=layout.opening + pieces.prefix, suffix=pieces.suffix + layout.closing)


BETWEEN_POSTS = " | "
"""Between the earlier posts of a context."""


def as_context(value: Any) -> str:
    """A context as tables and requests hold it, as one text: a string, a list of earlier posts, or nothing.

    JSON files carry a list as its JSON text. What is neither text nor a list of texts is written as Python shows it.
    """
    if isinstance(value, str) and value.startswith('["'):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Sequence) or hasattr(value, "tolist"):
        posts = (as_context(each) for each in (value.tolist() if hasattr(value, "tolist") else value))
        return BETWEEN_POSTS.join(post for post in posts if post)
    return "" if type(value).__name__ in ("NAType", "NaTType") else str(value)


class _Cut(Protocol):
    @property
    def context_cut(self) -> bool: ...
    @property
    def target_cut(self) -> bool: ...


CONTEXT_CUT, TARGET_CUT, TARGET_NOT_IN_TEXT = "context_cut", "target_cut", "target_not_in_text"
CONTEXT_NOT_READ, TARGET_NOT_READ = "context_not_read", "target_not_read"


def notes_of(text: str, target: str, prompt: _Cut) -> tuple[str, ...]:
    """What a reader of an answer should know of how context and target were read."""
    notes = {
        CONTEXT_CUT: prompt.context_cut,
        TARGET_CUT: prompt.target_cut,
        TARGET_NOT_IN_TEXT: bool(target) and target.casefold() not in text.casefold(),
    }
    return tuple(note for note, holds in notes.items() if holds)

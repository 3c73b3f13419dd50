"""Task and post to prompt pieces: a prefix shared by all posts, the post, a suffix.

Why pieces rather than one string: the prefix is tokenised and computed once for all posts; the post is user
text, tokenised so that nothing in it becomes a special token; and training and scoring cannot drift apart,
since both go through here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from emollm.core.frozen import Frozen
from emollm.core.tasks import QuestionKey, Task, fold_name


@dataclass(frozen=True, slots=True)
class Question:
    """One thing asked of one post."""

    task: Task
    text: str
    emotion: str | None = None

    @property
    def key(self) -> QuestionKey:
        return QuestionKey(self.task.name, self.emotion)

    @property
    def column(self) -> str:
        """A name for its answer, `EI-reg.joy` or `V-reg`."""
        return str(self.key)


class Pieces(NamedTuple):
    """A prompt in three parts; joined they are the instruction of an AAID row, letter for letter."""

    prefix: str
    """`Task: <template> Tweet:`, equal for all posts of a task and template."""
    post: str
    """The text, led by the space that parts it from the prefix."""
    suffix: str
    """` Emotion E: joy. Intensity Score: `, equal for all posts of a task and emotion."""

    @property
    def text(self) -> str:
        return self.prefix + self.post + self.suffix


class Layout(Frozen):
    """What stands around the instruction: part of the model, kept in `affect.json`."""

    opening: str = ""
    """Text before the instruction."""
    closing: str = "\n"
    """Text between the instruction and the answer."""
    bos: bool = False
    """Whether the tokenizer's begin token comes first."""


LAYOUTS = {
    "emollm": Layout(),
    # The published models: trained with a space after the colon and without BOS, used without it and with BOS.
    "emollms-training": Layout(opening="Human: \n", closing="\n\nAssistant: \n"),
    "emollms-released": Layout(opening="Human: \n", closing="\n\nAssistant:\n", bos=True),
}


def questions_for(text: str, tasks: tuple[Task, ...]) -> list[Question]:
    """All questions of these tasks about one text: one per emotion where a task has emotions."""
    return [Question(task, text, key.emotion) for task in tasks for key in task.keys]


def column_name(question: Question) -> str:
    """The name of a question's column, one that no query language needs to quote: `ei_reg_joy` of `EI-reg.joy`."""
    return fold_name(question.column)


def fill_template(task: Task, template: str) -> str:
    """A template with the task's classes and labels in it."""
    classes = " ".join(f"{c.value}: {c.phrase.format(emotion='E')}." for c in task.classes)
    return template.replace("{classes}", classes).replace("{labels}", ", ".join(task.labels))


def render(question: Question, template: str | None = None) -> Pieces:
    """The prompt pieces of a question, worded by `template` (the task's first by default)."""
    task = question.task
    post = question.text
    if task.full_stop and not post.endswith((".", "!", "?")):
        post += "."
    emotion = f" Emotion E: {question.emotion}." if question.emotion else ""
    return Pieces(
        prefix=f"Task: {fill_template(task, template or task.templates[0])} {task.text_name}:",
        post=f" {post}",
        suffix=f"{emotion} {task.question}",
    )


def lay_out(pieces: Pieces, layout: Layout) -> Pieces:
    """The pieces with the layout's text around them; what is left to add is the answer."""
    return Pieces(layout.opening + pieces.prefix, pieces.post, pieces.suffix + layout.closing)

"""Each label a sentence, scored by a language model's own likelihood, with the prior of the sentence taken off.

Contextual calibration (Zhao et al., 2021, arXiv 2102.09690): what the model says of a text without content is its
bias for a label, and probabilities are divided by it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from emollm.core.answers import Answer
from emollm.core.ask import STATEMENT, statement_task, statements
from emollm.core.prompts import Question
from emollm.core.tasks import Kind, Task
from emollm.scoring.arrays import Floats
from emollm.scoring.asking.outcome import WITHOUT_CONTENT, answer_of
from emollm.scoring.scorer import Scorer


class EntailmentScorer:
    """Wraps a constrained engine that reads single-label answers to their end.

    A model that was trained on statements is asked of each whether it is true, and its word is taken as it is. Another
    is asked so of a set's labels only, and every likelihood is divided by its prior.
    """

    def __init__(self, constrained: Scorer) -> None:
        self._constrained = constrained
        self._is_trained = any(task.name == STATEMENT for task in constrained.card.tasks)
        self._priors: dict[tuple[Task, str | None], Floats] = {}

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, in order; a question that fails keeps the engine's error."""
        asked = [_derived(q.task, q.emotion, by_one=self._is_trained) for q in questions]
        flat = [
            Question(task, question.text, _said(task), question.context, question.target)
            for question, tasks in zip(questions, asked, strict=True)
            for task in tasks
        ]
        answers = iter(self._constrained.score(flat))
        found = []
        for question, tasks in zip(questions, asked, strict=True):
            mine = [next(answers) for _ in tasks]
            failed = next((answer for answer in mine if answer.error), None)
            found.append(failed or self._answer(question, tasks, mine))
        return found

    def _answer(self, question: Question, tasks: tuple[Task, ...], answers: Sequence[Answer]) -> Answer:
        found_TK = _table(tasks, answers)
        if not self._is_trained:
            found_TK = found_TK / self._prior(question, tasks)
            found_TK /= found_TK.sum(axis=1, keepdims=True)
        # One task per statement: what counts is the probability of yes.
        probabilities_K = found_TK[:, 0] if tasks[0].name == STATEMENT else found_TK[0]
        if self._is_trained and question.task.kind is not Kind.LABEL_SET:
            probabilities_K = probabilities_K / probabilities_K.sum()
        masses = [answer.valid_mass for answer in answers if answer.valid_mass is not None]
        return answer_of(
            question.task,
            probabilities_K,
            valid_mass=float(np.mean(masses)) if masses else None,
            truncated=any(answer.truncated for answer in answers),
            notes=answers[0].notes,
        )

    def _prior(self, question: Question, tasks: tuple[Task, ...]) -> Floats:
        key = (question.task, question.emotion)
        if key not in self._priors:
            empty = [Question(task, text, _said(task)) for text in WITHOUT_CONTENT for task in tasks]
            answers = self._constrained.score(empty)
            each = [_table(tasks, answers[i : i + len(tasks)]) for i in range(0, len(answers), len(tasks))]
            self._priors[key] = np.maximum(np.mean(each, axis=0), 1e-12)
        return self._priors[key]


def _table(tasks: Sequence[Task], answers: Sequence[Answer]) -> Floats:
    """[T, K]: of each task the probability of each answer."""
    return np.array([[a.probabilities[label] for label in t.labels] for t, a in zip(tasks, answers, strict=True)])


@functools.lru_cache(maxsize=256)
def _derived(task: Task, emotion: str | None, *, by_one: bool) -> tuple[Task, ...]:
    """What the language model is asked: which statement is true, or of a set, or `by_one`, whether each is."""
    said = statements(task, emotion)
    if by_one or task.kind is Kind.LABEL_SET:
        return tuple(statement_task([statement]) for statement in said)
    return (_which(said),)


def _said(task: Task) -> str | None:
    return task.emotions[0] if task.emotions else None


def _which(said: Sequence[str]) -> Task:
    return Task(
        name="statements",
        kind=Kind.SINGLE_LABEL,
        title="statements",
        source="asked at call time",
        metric="accuracy",
        labels=tuple(said),
        text_name="Text",
        full_stop=False,
        question="What is true? ",
        templates=("Read the text and say what is true of it.",),
    )

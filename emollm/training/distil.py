"""Distillation: the answers of one teacher or several, computed once, become soft labels for a cheaper student.

The caller gets a teacher's answers (`AskTeacher`; the train job runs the annotation job
on the unlabelled posts); here the table of answers becomes soft labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from emollm.core.answers import to_unit
from emollm.core.card import card_of, card_tasks
from emollm.core.errors import ConfigError, DataError
from emollm.core.prompts import Question, column_name, questions_for
from emollm.core.tasks import Kind, QuestionKey, Task, select_tasks
from emollm.scoring.heads.labels import Floats, LabelledText, folds
from emollm.training.options import TrainConfig

AskTeacher = Callable[[TrainConfig, str, tuple[Task, ...]], pa.Table]
"""A teacher's answers to these tasks for the unlabelled posts: a table as the annotation job writes it."""


def teacher_tasks(config: TrainConfig, trained: Sequence[Task]) -> dict[str, tuple[Task, ...]]:
    """The tasks for each teacher: those that `config` names, or all but what a teacher derives from its other answers,
    which its student derives too.

    Raises ConfigError if a task is defined differently by the data folder, whose tasks are `trained`, or by another
    teacher.
    """
    known = {task.name: (task, str(config.data)) for task in trained}
    asked = {}
    for teacher in config.teacher:
        tasks = _own_tasks(config, teacher) if config.tasks is None else select_tasks(config.tasks, card_tasks(teacher))
        for task in tasks:
            first, where = known.setdefault(task.name, (task, teacher))
            if what := _difference(first, task):
                raise ConfigError(
                    f"{task.name} differs between {where} and {teacher}: {what}; rename the "
                    "task, or leave it out with --tasks"
                )
        asked[teacher] = tasks
    return asked


def _own_tasks(config: TrainConfig, teacher: str) -> tuple[Task, ...]:
    card = card_of(teacher)
    origins = card.heads.origins() if card and card.heads and config.teacher_engine != "constrained" else {}
    return tuple(task for task in card_tasks(teacher) if origins.get(task.name) != "derived")


def _difference(mine: Task, theirs: Task) -> str:
    """The differences that matter for answers; empty if the two definitions agree."""
    for name, of in _MEANING.items():
        if of(mine) != of(theirs):
            return f"{name} {of(mine)} and {of(theirs)}"
    return ""


_MEANING: Mapping[str, Callable[[Task], object]] = {
    "kind": lambda task: str(task.kind),
    "emotions": lambda task: task.emotions,
    "labels": lambda task: task.labels,
    "classes": lambda task: tuple(one.value for one in task.classes),
    "range": lambda task: (task.low, task.high),
}


def soft_labels(annotated: pa.Table, tasks: tuple[Task, ...]) -> LabelledText:
    """An annotated corpus as labels; an answer with an error is a gap. Raises DataError if nothing was answered."""
    texts = [text or "" for text in annotated["text"].to_pylist()]
    first = {text: n for n, text in reversed(list(enumerate(texts)))}
    keep = sorted(n for text, n in first.items() if text.strip())
    golds: dict[QuestionKey, Floats] = {}
    for question in questions_for("", tasks):
        found = _column(annotated, question)[keep]
        if not np.isnan(found).all():
            golds[question.key] = found
    if not golds:
        raise DataError("the teacher answered none of the posts; see the error columns of its output")
    kept = [texts[n] for n in keep]
    return LabelledText(kept, golds, folds(kept), is_gold_N=np.zeros(len(kept), dtype=bool))


def _column(annotated: pa.Table, question: Question) -> Floats:
    """[N, K], NaN if there is no answer."""
    task, name = question.task, column_name(question)
    if task.kind is Kind.REGRESSION:
        values = annotated[name].to_pylist()
        return np.array([[np.nan if v is None else to_unit(task, v)] for v in values], dtype=float)
    rows = annotated[f"{name}_probabilities"].to_pylist()
    gap = dict.fromkeys(task.answer_names, np.nan)
    return np.array([[(row or gap)[n] for n in task.answer_names] for row in rows], dtype=float)


def mean_labels(each: Sequence[LabelledText]) -> LabelledText:
    """The labels of several teachers for the same posts: of each question the mean over those who answered it."""
    texts = each[0].texts
    golds: dict[QuestionKey, list[Floats]] = {}
    for one in each:
        place = {text: n for n, text in enumerate(one.texts)}
        order = [place[text] for text in texts]
        for key, gold in one.golds.items():
            golds.setdefault(key, []).append(gold[order])
    return replace(each[0], golds={key: _mean(np.stack(found)) for key, found in golds.items()})


def _mean(labels_TNK: Floats) -> Floats:
    """[N, K], over the first axis; NaN if all are."""
    known_TNK = ~np.isnan(labels_TNK)
    total_NK = np.where(known_TNK, labels_TNK, 0.0).sum(axis=0)
    count_NK = known_TNK.sum(axis=0)
    return np.where(count_NK > 0, total_NK / np.maximum(count_NK, 1), np.nan)


def merged(golds: LabelledText, soft: LabelledText) -> LabelledText:
    """Both label sources; a text with gold labels keeps them and gets none from the teacher."""
    if golds.beside:
        raise ConfigError("gold labels with a context or target cannot be joined with a teacher's, who saw neither")
    have = set(golds.texts)
    new = [n for n, text in enumerate(soft.texts) if text not in have]
    tables: dict[QuestionKey, Floats] = {}
    for key in dict.fromkeys([*golds.golds, *soft.golds]):
        count = (golds.golds.get(key) if key in golds.golds else soft.golds[key]).shape[1]  # type: ignore[union-attr]
        above = golds.golds.get(key, np.full((len(golds.texts), count), np.nan))
        below = soft.golds.get(key, np.full((len(soft.texts), count), np.nan))[new]
        tables[key] = np.concatenate([above, below])
    return LabelledText(
        texts=[*golds.texts, *(soft.texts[n] for n in new)],
        golds=tables,
        fold_N=np.concatenate([golds.fold_N, soft.fold_N[new]]),
        is_gold_N=np.concatenate([golds.is_gold_N, soft.is_gold_N[new]]),
        variance={key: np.append(variance_N, np.zeros(len(new))) for key, variance_N in golds.variance.items()},
    )

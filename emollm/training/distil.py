"""A teacher's answers as labels: what a larger model, asked once, teaches heads that cost a hundredth of it.

The teacher annotates the unlabelled posts into `OUT-teacher`, with the job that annotates corpora: it goes on where
it stopped, and a second run with other options of the student asks nothing again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emollm.affect_card import card_tasks
from emollm.annotation.config import AnnotateConfig
from emollm.annotation.job import open_job
from emollm.annotation.pipeline import annotate_corpus
from emollm.answers import to_unit
from emollm.config import with_values
from emollm.errors import ConfigError, DataError
from emollm.heads.labels import Floats, Labelled, QuestionKey, folds
from emollm.prompts import Question, column_name, questions_for
from emollm.tasks import Kind, Task, select_tasks
from emollm.training.config import TrainConfig


def teacher_tasks(config: TrainConfig, trained: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks that the teacher is asked.

    Raises ConfigError where a task of the data folder, `trained`, means something else to the teacher.
    """
    assert config.teacher is not None
    tasks = card_tasks(config.teacher)
    tasks = tasks if config.tasks is None else select_tasks(config.tasks, tasks)
    mine = {task.name: task for task in trained}
    for task in tasks:
        if task.name in mine and (what := _difference(mine[task.name], task)):
            raise ConfigError(
                f"{task.name} means one thing in {config.data} and another to {config.teacher}: {what}; rename the "
                "task, or leave it out with --tasks"
            )
    return tasks


def _difference(mine: Task, theirs: Task) -> str:
    """What an answer to both cannot share; empty where one means as much as the other."""
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


def teacher_labels(config: TrainConfig, tasks: tuple[Task, ...]) -> Labelled:
    """Soft labels of the unlabelled posts for these tasks."""
    assert config.teacher is not None and config.unlabelled is not None
    out = config.out.with_name(config.out.name + "-teacher")
    asked = AnnotateConfig(
        model=config.teacher,
        input=config.unlabelled,
        out=out,
        tasks=tuple(task.name for task in tasks),
        max_posts=config.max_unlabelled,
        engine=config.teacher_engine,
        cluster=config.cluster,
    )
    # What was asked of the teacher before is replaced; what it has answered of this is kept, whatever the student.
    overwrite = config.overwrite and not _is_done(asked)
    annotate_corpus(with_values(asked, overwrite=overwrite))
    return soft_labels(pq.read_table(out), tasks)


def _is_done(asked: AnnotateConfig) -> bool:
    job = open_job(asked, on_progress=lambda _: None, opener=None)
    finished = job.output.finished()
    return finished is not None and finished.get("identity") == job.identity


def soft_labels(annotated: pa.Table, tasks: tuple[Task, ...]) -> Labelled:
    """An annotated corpus as labels; what has an error is a gap. Raises DataError if nothing was answered."""
    texts = [text or "" for text in annotated["text"].to_pylist()]
    first = {text: n for n, text in reversed(list(enumerate(texts)))}
    keep = sorted(n for text, n in first.items() if text.strip())
    golds: dict[QuestionKey, Floats] = {}
    for question in questions_for("", tasks):
        found = _column(annotated, question)[keep]
        if not np.isnan(found).all():
            golds[question.task.name, question.emotion] = found
    if not golds:
        raise DataError("the teacher answered none of the posts; see the error columns of its output")
    kept = [texts[n] for n in keep]
    return Labelled(kept, golds, folds(kept), is_gold_N=np.zeros(len(kept), dtype=bool))


def _column(annotated: pa.Table, question: Question) -> Floats:
    """[N, K], NaN where there is no answer."""
    task, name = question.task, column_name(question)
    if task.kind is Kind.REGRESSION:
        values = annotated[name].to_pylist()
        return np.array([[np.nan if v is None else to_unit(task, v)] for v in values], dtype=float)
    names = [str(c.value) for c in task.classes] or list(task.labels)
    rows = annotated[f"{name}_probabilities"].to_pylist()
    gap = dict.fromkeys(names, np.nan)
    return np.array([[(row or gap)[n] for n in names] for row in rows], dtype=float)


def merged(golds: Labelled, soft: Labelled) -> Labelled:
    """Both; a text that has gold labels keeps them and takes none from the teacher."""
    have = set(golds.texts)
    new = [n for n, text in enumerate(soft.texts) if text not in have]
    tables: dict[QuestionKey, Floats] = {}
    for key in dict.fromkeys([*golds.golds, *soft.golds]):
        count = (golds.golds.get(key) if key in golds.golds else soft.golds[key]).shape[1]  # type: ignore[union-attr]
        above = golds.golds.get(key, np.full((len(golds.texts), count), np.nan))
        below = soft.golds.get(key, np.full((len(soft.texts), count), np.nan))[new]
        tables[key] = np.concatenate([above, below])
    return Labelled(
        texts=[*golds.texts, *(soft.texts[n] for n in new)],
        golds=tables,
        fold_N=np.concatenate([golds.fold_N, soft.fold_N[new]]),
        is_gold_N=np.concatenate([golds.is_gold_N, soft.is_gold_N[new]]),
    )

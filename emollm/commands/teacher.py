"""Get the answers of teacher models for distillation: the train job runs the annotation job.

The answers are kept in `OUT-teacher`, those of several teachers in `OUT-teacher-1` and so on: a stopped run continues
there, and a second run with other options of the student reuses them.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from emollm.annotation.job import open_job
from emollm.annotation.options import AnnotateConfig
from emollm.annotation.pipeline import annotate_corpus
from emollm.core.options import with_values
from emollm.core.tasks import Task
from emollm.training.options import TrainConfig


def ask_teacher(config: TrainConfig, teacher: str, tasks: tuple[Task, ...]) -> pa.Table:
    """A teacher's answers to these tasks for the unlabelled posts, as the annotation job writes them."""
    assert config.unlabelled is not None
    place = f"-{config.teacher.index(teacher) + 1}" if len(config.teacher) > 1 else ""
    out = config.out.with_name(f"{config.out.name}-teacher{place}")
    asked = AnnotateConfig(
        model=teacher,
        input=config.unlabelled,
        out=out,
        tasks=tuple(task.name for task in tasks),
        max_posts=config.max_unlabelled,
        engine=config.teacher_engine,
        cluster=config.cluster,
    )
    # Answers to another job are replaced; answers to the same job are kept, for any student.
    overwrite = config.overwrite and not _is_done(asked)
    annotate_corpus(with_values(asked, overwrite=overwrite))
    return pq.read_table(out)


def _is_done(asked: AnnotateConfig) -> bool:
    job = open_job(asked, on_progress=lambda _: None, opener=None)
    finished = job.output.finished()
    return finished is not None and finished.get("identity") == job.identity

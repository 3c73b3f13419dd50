"""Get a teacher model's answers for distillation: the train job runs the annotation job.

The answers are kept in `OUT-teacher`: a stopped run continues there, and a second run with other options of the student
reuses them.
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


def ask_teacher(config: TrainConfig, tasks: tuple[Task, ...]) -> pa.Table:
    """The teacher's answers to these tasks for the unlabelled posts, as the annotation job writes them."""
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
    # Answers to another job are replaced; answers to the same job are kept, for any student.
    overwrite = config.overwrite and not _is_done(asked)
    annotate_corpus(with_values(asked, overwrite=overwrite))
    return pq.read_table(out)


def _is_done(asked: AnnotateConfig) -> bool:
    job = open_job(asked, on_progress=lambda _: None, opener=None)
    finished = job.output.finished()
    return finished is not None and finished.get("identity") == job.identity

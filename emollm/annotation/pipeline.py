"""Annotate a corpus with Ray Data: what `emollm annotate` runs."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from emollm.annotation.job import Job, open_job
from emollm.annotation.ledger import Totals
from emollm.annotation.lock import Lock, locked
from emollm.annotation.monitor import Progress
from emollm.annotation.options import AnnotateConfig
from emollm.annotation.score import score
from emollm.annotation.stage import Corpus, stage_corpus, stage_group
from emollm.core.errors import ResourceError
from emollm.data.files.inputs import InputFile, groups_of
from emollm.scoring.scorer import Scorer

__all__ = ["AnnotateConfig", "Progress", "annotate_corpus"]

_LOG = logging.getLogger("emollm")
_GROUP_BYTES = 32 << 20
"""Small input files are staged together up to this size in bytes."""


def annotate_corpus(
    config: AnnotateConfig,
    *,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    opener: Callable[..., Scorer] | None = None,
) -> dict[str, Any]:
    """Write one row per post, in the order of the input. Returns the summary, which is in `_run.json` too.

    An interrupted job is continued: committed rows are not scored again. Rerunning a finished job does nothing
    (`already_done` in the summary), and retrying its errors leaves it as it is until they are scored. `opener` replaces
    `scoring.open.open_scorer` in the actors: tests and benchmarks pass one for a cheap scorer. Raises DataError if
    `out` has another job's output or another run is writing it, if the input cannot be read, or if ids are missing
    or occur twice; ResourceError if `out` cannot be written.
    """
    job = open_job(config, on_progress=on_progress, opener=opener)
    finished = job.output.finished()
    if finished and finished.get("identity") == job.identity and not config.overwrite and config.dry_run is None:
        nothing_failed = not finished["summary"]["failed"]
        if nothing_failed or not config.retry_errors:
            return {**finished["summary"], "already_done": True}
    if job.asks_servers:
        from emollm.annotation.servers import look_at_servers

        job.detected = look_at_servers(job)
    if config.dry_run is not None:
        from emollm.annotation.estimate import dry_run

        with _disk_trouble(config.out):
            return dry_run(job, run)
    with _disk_trouble(config.out), locked(job.output) as lock:
        return run(job, lock)


def run(job: Job, lock: Lock) -> dict[str, Any]:
    """Stage, score what is not scored yet, finish."""
    from emollm.annotation.finish import finish, reopen
    from emollm.runtime.placement import check_resources, with_gpus
    from emollm.runtime.session import ray_session

    config, output, started = job.config, job.output, time.monotonic()
    finished = output.finished() if config.retry_errors else None
    retry = finished is not None and finished.get("identity") == job.identity
    begun = retry and output.is_retried()
    if retry and not begun:
        output.discard_work()  # left by a retry that died before it had begun, or by one that has ended
    output.open_job(job.identity, overwrite=config.overwrite)
    try:
        with ray_session(config.cluster):
            device = "cpu" if job.asks_servers else config.device
            config = job.settle(with_gpus(config.cluster, device=device))
            check_resources(config.cluster, what="scoring actors", reads_data=True)
            corpus = output.corpus() or _stage(job)
            if not retry:
                output.clear_finished()
            elif not begun:
                reopen(output, corpus)
            done = np.zeros(corpus.posts, bool)
            good = sum(block.good for block in output.committed(done))
            continued = int(done.sum())
            lost_before = max(0, output.scored_before() - continued)
            score(job, corpus, done, good_before=good)
        committed = output.committed(done)
        seconds = time.monotonic() - started
        return finish(
            output,
            corpus,
            committed,
            identity=job.identity,
            tasks=job.tasks,
            extras=job.extras,
            file_posts=config.file_posts,
            check=lock.check,
            summary=_run_summary(job.totals, seconds, continued=continued, lost_before=lost_before),
            config=config.model_dump(mode="json"),
        )
    except BaseException:
        output.discard_if_empty()
        raise


def _stage(job: Job) -> Corpus:
    import pyarrow.parquet as pq

    output = job.output

    def read_ids(name: str) -> Iterator[Any]:
        with output.filesystem.open_input_file(f"{output.posts}/{name}") as opened:
            for batch in pq.ParquetFile(opened).iter_batches(columns=["id"]):
                yield batch["id"]

    corpus = stage_corpus(
        groups_of(job.files, group_bytes=_GROUP_BYTES),
        job.columns,
        lambda groups, take: _stage_on_ray(job, groups, take),
        read_ids,
        max_posts=job.config.max_posts,
        source=job.config.input,
        notes=job.notes,
    )
    for line in job.notes.lines():
        _LOG.warning(line)
    output.keep_corpus(corpus)
    return corpus


def _stage_on_ray(
    job: Job, groups: Sequence[tuple[int, Sequence[InputFile]]], take: Callable[[int, Any], None]
) -> None:
    """Run each group as a task, as many at a time as there are CPUs."""
    import ray

    from emollm.runtime.errors import worker_error

    stage, left = ray.remote(num_cpus=1)(stage_group), list(reversed(groups))
    running: dict[Any, int] = {}
    read, at_once = 0, max(1, int(ray.cluster_resources().get("CPU", 1)))
    while left or running:
        while left and len(running) < at_once:
            number, files = left.pop()
            into = (job.output.filesystem, job.output.posts, number)
            task = stage.remote(job.source, files, job.columns, *into, job.config.max_posts)
            running[task] = number
        (ready,), _ = ray.wait(list(running))
        number = running.pop(ready)
        try:
            facts = ray.get(ready)
        except ray.exceptions.RayError as error:
            raise worker_error(error, doing=f"reading {job.config.input}") from None
        take(number, facts)
        read += facts.rows
        job.on_progress(Progress(new=0, total=None, note=f"read {read:,} posts"))


def _run_summary(totals: Totals, seconds: float, *, continued: int, lost_before: int) -> dict[str, Any]:
    """The summary of this run; `posts` and `errors` are counted from the rows later."""
    return {
        "continued_from": continued,
        "scored": totals.posts,
        "scored_again": totals.lost + lost_before,
        "actors_died": totals.deaths,
        "set_aside": totals.set_aside,
        "repeated": totals.repeated,
        "tokens": totals.tokens,
        "padding": 1 - totals.tokens / totals.padded if totals.padded else None,
        "actor_seconds": totals.seconds,
        "seconds": seconds,
        "posts_per_second": totals.posts / seconds,
        **({"server": totals.server} if totals.server else {}),
    }


@contextlib.contextmanager
def _disk_trouble(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"cannot write {out}: {error.strerror or error}; scored posts are kept; run the same command to continue"
        ) from None

"""Annotate a corpus with Ray Data: what `jobs/annotate.py` runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emollm.affect_card import card_tasks
from emollm.annotation.config import AnnotateConfig
from emollm.annotation.identity import Identity, identify
from emollm.annotation.inputs import InputFile, find_files, groups_of
from emollm.annotation.ledger import Totals
from emollm.annotation.lock import Lock, locked
from emollm.annotation.monitor import Pace, Progress
from emollm.annotation.output import OutputFolder
from emollm.annotation.readers import Columns, column_names
from emollm.annotation.stage import Corpus, stage_corpus, stage_group, staged_name
from emollm.bases import anywhere
from emollm.errors import ConfigError, DataError, ResourceError
from emollm.scoring.rows import answer_fields
from emollm.scoring.scorer import Scorer, resolve_engine
from emollm.tasks import Task, select_tasks

if TYPE_CHECKING:
    from emollm.annotation.blocks import Block

__all__ = ["AnnotateConfig", "Progress", "annotate_corpus"]

_GROUP_BYTES = 32 << 20
"""Small input files are staged together up to so many bytes."""
_LIGHT_CPUS = 0.25
"""CPUs of a task that reads or writes: several fit beside the actors, on the one that `check_resources` leaves."""
_KEEP_SCORED_S = 5.0


@dataclass(slots=True)
class Job:
    """An annotation job, opened: what it asks of which files, and where its rows go."""

    config: AnnotateConfig
    tasks: tuple[Task, ...]
    engine: str
    source: Any
    """The filesystem of `files`."""
    files: list[InputFile]
    columns: Columns
    output: OutputFolder
    identity: Identity
    opener: Callable[..., Scorer] | None
    on_progress: Callable[[Progress], None]
    totals: Totals = field(default_factory=Totals)


def annotate_corpus(
    config: AnnotateConfig,
    *,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    opener: Callable[..., Scorer] | None = None,
) -> dict[str, Any]:
    """Write one row a post, in the order of the input. Returns the summary, which `_run.json` holds as well.

    A job that died is continued: rows that were committed are not scored again. Rerunning a finished job does nothing
    (`already_done` in the summary). `opener` stands in for `scoring.scorer.open_scorer` in the actors: tests and
    benchmarks put a cheap scorer there. Raises DataError if `out` holds another job's output or another run is writing
    it, if the input cannot be read, or if ids are missing or occur twice.
    """
    job = open_job(config, on_progress=on_progress, opener=opener)
    if config.dry_run is not None:
        from emollm.annotation.estimate import dry_run

        return dry_run(job)
    finished = job.output.finished()
    if finished and finished.get("identity") == job.identity and not config.overwrite:
        nothing_failed = not finished["summary"]["failed"]
        if nothing_failed or not config.retry_errors:
            return {**finished["summary"], "already_done": True}
    with locked(job.output) as lock, _disk_trouble(config.out):
        return run(job, lock)


def open_job(
    config: AnnotateConfig, *, on_progress: Callable[[Progress], None], opener: Callable[..., Scorer] | None
) -> Job:
    """Look at everything that can be wrong before anything is started or written."""
    tasks = select_tasks(config.tasks, card_tasks(config.model))
    engine = config.engine if opener else resolve_engine(config.model, config.engine)
    source, files = find_files(config.input)
    columns = choose_columns(config, tasks, source, files[0])
    name = f"{opener.__module__}.{getattr(opener, '__qualname__', type(opener).__qualname__)}" if opener else None
    identity = identify(config, files, tasks, engine=engine, scorer=name)
    output = OutputFolder(config.out)
    return Job(config, tasks, engine, source, files, columns, output, identity, opener, on_progress)


def choose_columns(config: AnnotateConfig, tasks: Sequence[Task], source: Any, first: InputFile) -> Columns:
    """The columns to read, by the first file. Raises DataError listing those it has."""
    names = column_names(source, first)
    if first.format == "txt":
        if config.carry and config.carry != ("*",):
            raise DataError(f"{first.path} is plain text and has no column {config.carry[0]!r} to carry")
        return Columns(id=None, text=config.text_column)
    id_column = config.id_column or ("id" if "id" in names else None)
    chosen = [name for name in (id_column, config.text_column) if name]
    for option, name in (("--id-column", config.id_column), ("--text-column", config.text_column)):
        if name and name not in names:
            raise DataError(f"{first.path} has no column {name!r}; give {option}, one of: {', '.join(names)}")
    carry = [n for n in names if n not in chosen] if "*" in config.carry else list(config.carry)
    if first.format in ("csv", "parquet") and (unknown := [name for name in carry if name not in names]):
        raise DataError(f"{first.path} has no column {unknown[0]!r} to carry; choose from: {', '.join(names)}")
    taken = {"id", "text", "row", "place", "problem", *(field.name for field in answer_fields(tuple(tasks)))}
    if clash := [name for name in carry if name in taken]:
        raise DataError(f"column {clash[0]!r} cannot be carried: the output has one of that name; rename it")
    return Columns(id=id_column, text=config.text_column, carry=tuple(carry))


def run(job: Job, lock: Lock) -> dict[str, Any]:
    """Stage, score what is not scored yet, finish."""
    from emollm.annotation.finish import finish, reopen
    from emollm.ray_session import check_resources, ray_session

    config, output, started = job.config, job.output, time.monotonic()
    if config.retry_errors and output.finished():
        output.discard_work()  # of an earlier retry that died before it had changed anything
    output.open_job(job.identity, overwrite=config.overwrite)
    try:
        with ray_session(config.cluster):
            check_resources(config.cluster, what="scoring actors", reads_data=True)
            corpus = output.corpus() or _stage(job)
            if output.finished():
                reopen(output)
            output.clear_finished()
            before = output.committed()
            done = _done(before, corpus.posts)
            lost_before = max(0, output.scored_before() - int(done.sum()))
            _score(job, corpus, done)
        committed = output.committed()
        seconds = time.monotonic() - started
        return finish(
            output,
            corpus,
            committed,
            identity=job.identity,
            tasks=job.tasks,
            file_posts=config.file_posts,
            check=lock.check,
            summary=_run_summary(job.totals, seconds, continued=int(done.sum()), lost_before=lost_before),
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
    )
    output.keep_corpus(corpus)
    return corpus


def _stage_on_ray(
    job: Job, groups: Sequence[tuple[int, Sequence[InputFile]]], take: Callable[[int, Any], None]
) -> None:
    """Every group as a task, as many at a time as there are CPUs."""
    import ray

    from emollm.ray_session import worker_error

    stage, left = ray.remote(num_cpus=1)(stage_group), list(reversed(groups))
    running: dict[Any, int] = {}
    read, at_once = 0, max(1, int(ray.cluster_resources().get("CPU", 1)))
    while left or running:
        while left and len(running) < at_once:
            number, files = left.pop()
            path = f"{job.output.posts}/{staged_name(number)}"
            task = stage.remote(job.source, files, job.columns, job.output.filesystem, path, job.config.max_posts)
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


def _done(committed: dict[str, NDArray[np.int64]], posts: int) -> NDArray[np.bool_]:
    """Whether each row is committed: a byte a post."""
    done = np.zeros(posts, bool)
    for rows in committed.values():
        done[rows] = True
    return done


def _score(job: Job, corpus: Corpus, done: NDArray[np.bool_]) -> None:
    from emollm.annotation.blocks import block_size, pending_blocks
    from emollm.annotation.monitor import monitored

    config, cluster = job.config, job.config.cluster
    left = int((~done).sum())
    pace = Pace(done=len(done) - left, total=len(done))
    job.on_progress(pace.first())
    if not left:
        return
    size = block_size(left, asked=config.block_posts, workers=cluster.num_workers, on_gpu=cluster.gpus_per_worker > 0)
    blocks = pending_blocks(corpus, done, size)
    before, kept_at = job.output.scored_before(), time.monotonic()

    def receive(totals: Totals) -> None:
        nonlocal kept_at
        job.totals = totals
        if time.monotonic() - kept_at >= _KEEP_SCORED_S:
            kept_at = time.monotonic()
            with contextlib.suppress(OSError):
                job.output.keep_scored(before + totals.posts + totals.lost)
        job.on_progress(pace.step(totals))

    with monitored(receive=receive, max_error_rate=config.max_error_rate, num_workers=cluster.num_workers) as ledger:
        try:
            _score_blocks(job, corpus, blocks, ledger)
        finally:
            # The last word on what was scored, whatever ends the run.
            with contextlib.suppress(Exception):
                import ray

                totals = ray.get(ledger.totals.remote(), timeout=10)
                job.output.keep_scored(before + totals.posts + totals.lost)


def _score_blocks(job: Job, corpus: Corpus, blocks: Sequence[Block], ledger: Any) -> None:
    import ray

    from emollm.annotation.actor import ScoreBlock
    from emollm.annotation.blocks import PostsSource
    from emollm.ray_session import map_on_actors, quiet_ray_data, worker_error

    config = job.config
    quiet_ray_data()
    options = {
        "ledger": ledger,
        "batch_size": config.batch_size,
        "model": anywhere(config.model),
        **job.config.scorer_options(),
        "engine": job.engine,
        "tasks": tuple(task.name for task in job.tasks),
        **({"opener": job.opener} if job.opener else {}),
    }
    with _checkpointing(job.output):
        posts = ray.data.read_datasource(
            PostsSource(job.output, corpus, blocks), num_cpus=_LIGHT_CPUS, override_num_blocks=len(blocks)
        )
        # A block a batch: what an actor is given is what is committed.
        scored = map_on_actors(
            posts, ScoreBlock, options, config.cluster, batch_size=None, max_workers=config.max_workers
        )
        try:
            scored.write_parquet(
                job.output.blocks, filesystem=job.output.filesystem, ray_remote_args={"num_cpus": _LIGHT_CPUS}
            )
        except ray.exceptions.RayError as error:
            raise worker_error(error, doing="annotation") from None


@contextlib.contextmanager
def _checkpointing(output: OutputFolder) -> Iterator[None]:
    """Data sets made inside the block commit their rows; the context is the whole process's, so it is put back."""
    from ray.data import DataContext

    from emollm.annotation.blocks import checkpoint

    context = DataContext.get_current()
    before = context.checkpoint_config
    context.checkpoint_config = checkpoint(output)
    try:
        yield
    finally:
        context.checkpoint_config = before


def _run_summary(totals: Totals, seconds: float, *, continued: int, lost_before: int) -> dict[str, Any]:
    """Of the last run; `posts` and `errors` come from the rows themselves."""
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
    }


@contextlib.contextmanager
def _disk_trouble(out: str) -> Iterator[None]:
    try:
        yield
    except (ConfigError, DataError, ResourceError):
        raise
    except OSError as error:
        raise ResourceError(
            f"cannot write {out}: {error.strerror or error}; what was scored is kept, run the same command to continue"
        ) from None

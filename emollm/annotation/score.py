"""Scores the rows that are not committed yet on a pool of actors: Ray Data reads, maps and commits them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emollm.annotation.job import Job
from emollm.annotation.ledger import Totals
from emollm.annotation.monitor import Pace
from emollm.annotation.options import AnnotateConfig
from emollm.annotation.output import OutputFolder
from emollm.annotation.stage import Corpus
from emollm.core.bases import anywhere
from emollm.core.errors import EmollmError
from emollm.core.tasks import references

if TYPE_CHECKING:
    from emollm.annotation.blocks import Block

_LIGHT_CPUS = 0.25
"""CPUs of a task that reads or writes: several fit on the one CPU that `check_resources` leaves free."""
_KEEP_SCORED_S = 5.0


def ledger_options(config: AnnotateConfig, *, good_before: int) -> dict[str, Any]:
    """The options of the run's `Ledger`."""
    most = config.max_workers or config.cluster.num_workers
    return {
        "max_error_rate": config.max_error_rate,
        "num_workers": most,
        "good_before": good_before,
        "max_cost": config.requests.max_cost,
    }


def score(job: Job, corpus: Corpus, done: NDArray[np.bool_], *, good_before: int) -> None:
    """Score and commit the rows that are not `done`; `good_before` of the others have no error.

    Raises the error that stopped it, if any; in any case `job.totals` counts the scored posts.
    """
    from emollm.annotation.blocks import block_size, pending_blocks
    from emollm.annotation.monitor import monitored

    config, cluster = job.config, job.config.cluster
    left = int((~done).sum())
    pace = Pace(done=len(done) - left, total=len(done))
    job.on_progress(pace.first())
    if not left:
        return
    if job.asks_servers:
        from emollm.annotation.servers import check_cost

        check_cost(job, corpus, left)
    size = block_size(
        left, asked=config.block_posts, workers=cluster.num_workers, on_gpu=cluster.gpus > 0, engine=job.engine
    )
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

    with monitored(receive=receive, **ledger_options(config, good_before=good_before)) as ledger:
        try:
            types = corpus.types()
            _score_blocks(job, blocks, ledger, {name: types[name] for name in config.beside if name})
        finally:
            # The final count of scored posts, however the run ends.
            with contextlib.suppress(Exception):
                import ray

                totals = ray.get(ledger.totals.remote(), timeout=10)
                job.output.keep_scored(before + totals.posts + totals.lost)


def _score_blocks(job: Job, blocks: Sequence[Block], ledger: Any, beside: dict[str, Any]) -> None:
    import ray

    from emollm.annotation.actor import ScoreBlock
    from emollm.annotation.blocks import PostsSource
    from emollm.runtime.errors import worker_error
    from emollm.runtime.pools import map_on_actors, quiet_ray_data, release_actors

    config = job.config
    quiet_ray_data()
    if job.asks_servers:
        from emollm.annotation.servers import scorer_options

        asked, waits_s = scorer_options(job), config.requests.longest_s
    else:
        asked, waits_s = {**config.scorer_options(), "precision": job.identity["precision"]}, 0.0
    options = {
        "ledger": ledger,
        "batch_size": config.batch_size,
        "patience_s": config.hang_minutes * 60 + waits_s,
        "model": anywhere(config.model),
        **asked,
        "engine": job.engine,
        "tasks": references(job.tasks),
        **config.row_options(),
        "extras": job.extras,
        **({"opener": job.opener} if job.opener else {}),
    }
    with _checkpointing(job.output):
        posts = ray.data.read_datasource(
            PostsSource(job.output, blocks, beside), num_cpus=_LIGHT_CPUS, override_num_blocks=len(blocks)
        )
        # One batch per block: an actor's input is what is committed.
        scored = map_on_actors(
            posts, ScoreBlock, options, config.cluster, batch_size=None, max_workers=config.max_workers
        )
        failure: EmollmError | None = None
        try:
            scored.write_parquet(
                job.output.blocks, filesystem=job.output.filesystem, ray_remote_args={"num_cpus": _LIGHT_CPUS}
            )
        except ray.exceptions.RayError as error:
            failure = worker_error(error, doing="annotation")
        del scored, posts
        release_actors()
        if failure:
            raise failure


@contextlib.contextmanager
def _checkpointing(output: OutputFolder) -> Iterator[None]:
    """Data sets created inside the block commit their rows; the context is global to the process, so it is restored."""
    from ray.data import DataContext

    from emollm.annotation.blocks import checkpoint

    context = DataContext.get_current()
    before = context.checkpoint_config
    context.checkpoint_config = checkpoint(output)
    try:
        yield
    finally:
        context.checkpoint_config = before

"""A dry run: score a few posts with the same job and estimate time, GPU-hours and output size of the whole job."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from emollm.annotation.output import OutputFolder
from emollm.core.options import with_values
from emollm.data.files.readers import count_rows

if TYPE_CHECKING:
    from emollm.annotation.job import Job
    from emollm.annotation.lock import Lock

_BLOCK_SECONDS = 120.0
"""Recommended duration of a block, which is the work that is lost when an actor dies."""


def dry_run(job: Job, run: Callable[[Job, Lock], dict[str, Any]]) -> dict[str, Any]:
    """Score the first `dry_run` posts into a temporary folder next to `out`, and scale up by the number of posts.

    `run` runs a job. The estimate leaves out starting Ray and loading models, which do not grow with the corpus.
    """
    from emollm.annotation.job import open_job
    from emollm.annotation.lock import locked

    config = job.config
    posts = config.dry_run if config.max_posts is None else min(config.dry_run or 1, config.max_posts)
    trial_out = beside(config.out)
    small = with_values(config, dry_run=None, max_posts=posts, out=trial_out, overwrite=False, retry_errors=False)
    trial = open_job(small, on_progress=job.on_progress, opener=job.opener)
    trial.detected = job.detected
    try:
        with locked(trial.output) as lock:
            summary = run(trial, lock)
    finally:
        _remove(trial.output)
    total = _count(job)
    config = trial.config
    workers = config.cluster.num_workers
    seconds = summary["actor_seconds"] / summary["posts"] * total / workers
    asked = summary.get("server") or {"requests": 0, "cached": 0, "cost": 0.0}
    # What the cache spared would have cost as much as what was asked.
    cost = asked["cost"] / max(1, asked["requests"]) * (asked["requests"] + asked["cached"])
    return {
        **summary,
        "total": total,
        "estimated_cost": cost / summary["posts"] * total,
        "estimated_seconds": seconds,
        "estimated_gpu_hours": seconds / 3600 * workers * config.cluster.gpus,
        "estimated_cpu_hours": seconds / 3600 * workers * config.cluster.cpus_per_worker,
        "estimated_bytes": summary["bytes"] / summary["posts"] * total,
        "block_posts": max(1, round(_BLOCK_SECONDS * summary["posts"] / summary["actor_seconds"])),
    }


def beside(out: str) -> str:
    """A hidden folder that does not exist yet: next to `out`, or in it if `out` is a whole bucket."""
    root, mark, query = out.partition("?") if "://" in out else (out, "", "")
    folder, slash, name = root.rstrip("/").rpartition("/")
    hidden = f"dry-run-{uuid.uuid4().hex[:8]}"
    if folder.endswith(":/"):
        return f"{root.rstrip('/')}/.{hidden}{mark}{query}"
    return f"{folder}{slash}.{name}.{hidden}{mark}{query}"


def _remove(output: OutputFolder) -> None:
    import pyarrow.fs as pafs

    if output.filesystem.get_file_info(output.root).type == pafs.FileType.Directory:
        output.filesystem.delete_dir(output.root)


def _count(job: Job) -> int:
    """All posts of the input, or `max_posts`. Files other than Parquet are read, which is cheap next to scoring."""
    most, count = job.config.max_posts, 0
    for file in job.files:
        count += count_rows(job.source, file, job.columns)
        if most is not None and count >= most:
            return most
    return count

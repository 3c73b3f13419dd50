"""Annotated posts and the summary of a run, for the terminal."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
from rich.table import Table
from rich.text import Text

from emollm.annotation.monitor import left_in_words
from emollm.annotation.options import AnnotateConfig
from emollm.scoring.server.usage import told

_STRONG = 0.4
"""An emotion is named with its intensity from this intensity on."""


def posts_table(posts: pa.Table, *, title: str) -> Table:
    """One line per post: its valence (0..1), its strongest emotion with the intensity, and its set of emotions.

    A dash marks an error.
    """
    table = Table(title=title, title_justify="left", expand=True)
    table.add_column("post", overflow="fold", ratio=3)
    table.add_column("valence", justify="right", no_wrap=True)
    table.add_column("strongest", no_wrap=True)
    table.add_column("emotions", ratio=1)
    prefix = "intensity_" if "intensity_joy" in posts.column_names else "ei_reg_"
    intensities = [name for name in posts.column_names if re.fullmatch(rf"{prefix}[a-z]+", name)]
    for row in posts.to_pylist():
        emotions = "–" if row["e_c"] is None else ", ".join(row["e_c"]) or "none"
        known = {name.removeprefix(prefix): row[name] for name in intensities if row[name] is not None}
        emotion = max(known, key=lambda name: known[name], default="")
        strongest = f"{emotion} {known[emotion]:.2f}" if emotion and known[emotion] >= _STRONG else "–"
        # Text: a post is data, and "[bold]" in it is not markup.
        table.add_row(Text(row["text"] or ""), _number(row["v_reg"]), strongest, emotions)
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def summary_lines(summary: dict[str, Any], config: AnnotateConfig) -> list[str]:
    """The summary of a finished job, in a few lines."""
    errors = ", ".join(f"{count:,} {code}" for code, count in summary["error_codes"].items())
    whole = (
        f"{config.out}: {summary['posts']:,} posts in {_some(summary['files'], 'file')} ({_bytes(summary['bytes'])}), "
        f"{summary['failed']:,} with an error{f' ({errors})' if errors else ''}, {summary['truncated']:,} cut"
    )
    if summary["not_english"]:
        whole += f", {summary['not_english']:,} seem not to be English"
    if summary.get("already_done"):
        return [f"{whole}; already done, nothing to do"]
    lines = [whole]
    run = f"{summary['scored']:,} posts scored in {left_in_words(summary['seconds'])}"
    if summary["continued_from"]:
        run += f", {summary['continued_from']:,} were done before"
    run += f"; {summary['scored_again']:,} scored again after a failure"
    if summary["actors_died"]:
        run += f" ({_some(summary['actors_died'], 'actor')})"
    lines.append(run)
    more = [
        f"{summary['repeated']:,} answered by an equal text ({summary['repeated'] / max(1, summary['scored']):.1%})"
    ]
    if summary["tokens"]:
        more.append(f"{summary['tokens']:,} tokens, {summary['padding']:.0%} padding")
    if summary["set_aside"]:
        more.append(f"{summary['set_aside']:,} set aside because they crash the actor")
    lines.append("; ".join(more))
    if server := summary.get("server"):
        lines.append(f"servers: {told(server)}")
    lines.append(f"report: {config.out}/_report.html; check all rows: python -m emollm.annotation verify {config.out}")
    return lines


def estimate_lines(summary: dict[str, Any], config: AnnotateConfig) -> list[str]:
    """The estimate of a dry run for the whole job."""
    workers = config.cluster.num_workers
    posts_per_second = summary["posts"] / summary["actor_seconds"]
    spent = f"{summary['estimated_cpu_hours']:,.2f} CPU-hours"
    if summary["estimated_gpu_hours"]:
        spent = f"{summary['estimated_gpu_hours']:,.2f} GPU-hours, {spent}"
    return [
        f"{summary['posts']:,} posts scored, {posts_per_second:,.2f} posts/s per actor, {summary['failed']:,} with an "
        f"error, {summary['repeated']:,} answered by an equal text",
        f"all {summary['total']:,} posts with {_some(workers, 'actor')}: about "
        f"{left_in_words(summary['estimated_seconds'])}, {spent}, "
        f"{_bytes(summary['estimated_bytes'])} of output; start-up is not included",
        *([f"servers: {told(summary['server'])}"] if summary.get("server") else []),
        *([f"all of it costs about {summary['estimated_cost']:,.2f}"] if summary.get("estimated_cost") else []),
        f"for two minutes of an actor's work per block: --block-posts {summary['block_posts']}",
    ]


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"

"""Annotated posts as a table for the terminal."""

from __future__ import annotations

import pyarrow as pa
from rich.table import Table
from rich.text import Text


def posts_table(posts: pa.Table, *, title: str) -> Table:
    """One line a post: its valence (0..1), its emotions and how sure they are; a dash where there is an error."""
    table = Table(title=title, title_justify="left", expand=True)
    table.add_column("post", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("valence", justify="right", no_wrap=True)
    table.add_column("emotions", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("sure", justify="right", no_wrap=True)
    for row in posts.to_pylist():
        emotions = "–" if row["e_c"] is None else ", ".join(row["e_c"]) or "none"
        # Text: a post is data, and "[bold]" in it no markup.
        table.add_row(Text(row["text"] or ""), _number(row["v_reg"]), emotions, _number(row["e_c_confidence"]))
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"

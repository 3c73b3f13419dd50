"""Annotated posts as a table for the terminal."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from rich.table import Table
from rich.text import Text

_INTENSITIES = ("anger", "fear", "joy", "sadness")


def posts_table(posts: pa.Table, *, title: str) -> Table:
    """One line a post of the full profile: valence, the four intensities (0..1), emotions; a dash for an error."""
    table = Table(title=title, title_justify="left", expand=True)
    table.add_column("post", no_wrap=True, overflow="ellipsis", ratio=3)
    for name in ("valence", *_INTENSITIES):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("emotions", ratio=2)
    for row in posts.to_pylist():
        numbers = [_number(row["v_reg"]), *(_number(row[f"ei_reg_{name}"]) for name in _INTENSITIES)]
        emotions = "–" if row["e_c"] is None else ", ".join(row["e_c"]) or "none"
        # Text: a post is data, and "[bold]" in it no markup.
        table.add_row(Text(row["text"] or ""), *numbers, emotions)
    return table


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.2f}"

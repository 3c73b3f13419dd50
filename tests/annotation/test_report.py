"""The table of annotated posts."""

from __future__ import annotations

import io

import pyarrow as pa
from rich.console import Console

from emollm.annotation.report import posts_table


def test_a_post_is_shown_as_it_is_and_an_error_as_a_dash() -> None:
    posts = pa.table(
        {
            "text": ["[bold]not markup[/bold] :)", None],
            "v_reg": [0.754, None],
            "ei_reg_joy": [0.81, None],
            "ei_reg_fear": [0.12, None],
            "ei_reg_joy_std": [0.1, None],
            "e_c": pa.array([["joy", "love"], None], pa.list_(pa.string())),
        }
    )
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(posts_table(posts, title="t"))
    lines = [" ".join(line.replace("│", " ").split()) for line in console.export_text().splitlines()]
    assert "[bold]not markup[/bold] :) 0.75 joy 0.81 joy, love" in lines
    assert "– – –" in lines

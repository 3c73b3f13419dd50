"""The table of annotated posts."""

from __future__ import annotations

import io

import pyarrow as pa
from rich.console import Console

from emollm.annotation.column_stats import in_parts
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


def test_words_are_underlined_where_they_stand() -> None:
    words = [{"start": 4, "end": 7, "effect": -0.5}, {"start": 0, "end": 3, "effect": 0.25}, {"start": 90, "end": 99,
              "effect": 1.0}]  # fmt: skip
    assert in_parts("so, bad!", words) == (("so,", 0.25), (" ", 0.0), ("bad", -0.5), ("!", 0.0))
    assert in_parts("plain", ()) == (("plain", 0.0),) and in_parts("", ()) == ()

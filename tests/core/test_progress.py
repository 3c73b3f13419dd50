"""Progress where somebody looks, and where nobody does."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from emollm.core import progress


def test_a_bar_on_a_terminal_learns_its_total_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True, width=120))
    with progress.progress_bar("fine-tune", None, "steps") as advance:
        advance(1)
        advance(2, note="loss 0.5", total=50)
    assert all(part in screen.getvalue() for part in ("fine-tune", "3/50", "steps", "loss 0.5"))


def test_a_log_file_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar("annotate", 7, "posts") as advance:
        advance(7, note="done")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "annotate ..."
    assert lines[1].startswith("annotate: 7 posts in 0.0 s")
    assert lines[1].endswith("done")

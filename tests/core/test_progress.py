"""Progress where somebody looks, and where nobody does."""

from __future__ import annotations

import io
import os
import subprocess
import sys

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


def test_in_a_notebook_it_is_a_bar_of_text_where_there_are_no_widgets() -> None:
    kernel = (
        "import sys, types\n"
        "class ZMQInteractiveShell: pass\n"
        "sys.modules['IPython'] = types.SimpleNamespace(get_ipython=ZMQInteractiveShell)\n"
        "from emollm.core.progress import progress_bar\n"
        "with progress_bar('annotating', None, 'posts') as advance:\n"
        "    advance(2, total=3, note='half way')\n"
        "    advance(1)\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    ran = subprocess.run([sys.executable, "-c", kernel], env=env, capture_output=True, text=True, check=True)
    last = ran.stderr.rstrip().splitlines()[-1].split("\r")[-1]
    assert last.startswith("annotating: 100%") and "3/3" in last and "half way" in last

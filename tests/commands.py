"""The jobs as commands: each in a process of its own, or, to be refused, in this one."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from emollm.core.options import run_job
from tests.conftest import ROOT
from tests.ray_cluster import ENV


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Python in the checkout's folder, waited for."""
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=ENV | env, capture_output=True, text=True, timeout=900
    )


def help_and_modules(job: str, *command: str) -> tuple[str, set[str]]:
    """What `jobs/JOB.py COMMAND --help` prints, and which of the modules that take seconds it loaded."""
    code = (
        f"import sys, runpy; sys.argv[1:] = {[*command, '--help']!r}\n"
        f"try: runpy.run_module('jobs.{job}', run_name='__main__')\n"
        "finally: print('LOADED', *{'torch', 'ray', 'transformers', 'sklearn'} & set(sys.modules))"
    )
    told, _, loaded = run("-c", code).stdout.rpartition("LOADED")
    return told, set(loaded.split())


def refused(main: Callable[[Sequence[str]], None], *argv: str) -> str:
    """The one line that a command says to a mistake before it exits with status 2."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", ["job", *argv])
        patch.setattr(signal, "signal", lambda *_: None)  # of a process of its own
        with pytest.raises(SystemExit) as end:
            run_job(main)
    assert end.value.code == 2
    *_, last = said.getvalue().splitlines()
    assert last.startswith("error: ")
    return last

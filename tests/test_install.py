"""install.sh: what can go wrong is one line, and nothing that is not a virtual environment is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.waiting import wait_for

OFFLINE = {
    "PYTHON": sys.executable, "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "PIP_RETRIES": "1",
}  # fmt: skip


def install(venv: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(ROOT / "install.sh")],
        env={**os.environ, "VENV": str(venv), **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def an_executable(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_no_python_that_fits(tmp_path: Path) -> None:
    for name in ("python3.11", "python3.12", "python3"):
        an_executable(tmp_path, name, "exit 127")  # as pyenv's shims of versions that are not there
    ran = install(tmp_path / "venv", PYTHON="", PATH=f"{tmp_path}:/bin:/usr/bin")
    assert ran.returncode == 2
    assert (
        ran.stderr == "error: no Python 3.11 or 3.12 here; install one, or name it: make PYTHON=/path/to/python3.12\n"
    )
    named = install(tmp_path / "venv", PYTHON=str(tmp_path / "python3"))
    assert named.returncode == 2 and "is not a Python 3.11 or 3.12" in named.stderr
    assert not (tmp_path / "venv").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    ran = install(tmp_path, PYTHON=sys.executable)
    assert ran.returncode == 2 and "is not a virtual environment" in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_old_pip_is_replaced_first(tmp_path: Path) -> None:
    log = tmp_path / "asked"
    told = 'case "$*" in *--version*) echo "pip 20.3.4 from here" ;; *) echo "$*" >>' + str(log) + " ;; esac"
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    an_executable(tmp_path / "venv" / "bin", "python", told)
    an_executable(tmp_path / "venv" / "bin", "torchrun", "")  # installed before: no disk is asked for
    ran = install(tmp_path / "venv", PYTHON=sys.executable)
    assert ran.returncode == 0 and "has an old one" in ran.stdout
    first, then, *_ = log.read_text().splitlines()
    assert first.endswith("--upgrade pip") and " torch " in then


@pytest.mark.slow
def test_without_a_network_it_is_one_line_and_the_next_try_goes_on(tmp_path: Path) -> None:
    venv = tmp_path / "a folder für alles"
    ran = install(venv, **OFFLINE)
    assert ran.returncode == 2
    [line] = ran.stderr.splitlines()
    assert line.startswith("error: installing failed: the package index cannot be reached")
    assert "the same command goes on" in line
    made = (venv / "pyvenv.cfg").stat().st_mtime_ns
    assert install(venv, **OFFLINE).returncode == 2
    assert (venv / "pyvenv.cfg").stat().st_mtime_ns == made  # not begun anew


@pytest.mark.slow
def test_an_incomplete_environment_is_rebuilt(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    ran = install(
        tmp_path / "venv", PYTHON=sys.executable, PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS=""
    )
    assert ran.returncode == 2 and "installing failed" in ran.stderr
    assert (tmp_path / "venv" / "bin" / "python").exists()


@pytest.mark.slow
def test_ctrl_c_is_one_line(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    env = {**os.environ, **OFFLINE, "PIP_RETRIES": "9", "VENV": str(venv)}
    started = subprocess.Popen(
        ["/bin/sh", str(ROOT / "install.sh")], env=env, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    wait_for(lambda: "Retrying" in _text(venv / "install.log"))
    os.killpg(started.pid, signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert (started.returncode, said) == (130, "interrupted; the same command goes on\n")


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""

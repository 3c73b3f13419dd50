"""The commands of README.md and docs/index.md run as they stand, in order, in one empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from emollm.commands.cli import COMMANDS
from tests.conftest import ROOT

_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def steps(*names: str) -> Iterator[tuple[str, str]]:
    """Shell lines and Python blocks, each once."""
    found: dict[tuple[str, str], None] = {}
    for name in names:
        for language, block in _BLOCK.findall((ROOT / name).read_text(encoding="utf-8")):
            lines = block.splitlines() if language == "sh" else [block]
            found |= {
                (language, line.partition("  #")[0].strip() if language == "sh" else line): None for line in lines
            }
    yield from found


def test_readme_begins_with_six_commands_that_exist() -> None:
    shown = [line for language, line in steps("README.md") if language == "sh"]
    assert [line.split()[1] for line in shown] == ["text", "annotate", "samples", "build-data", "train", "evaluate"]
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 90
    assert {line.split()[1] for line in shown} <= set(COMMANDS)


@pytest.mark.parametrize("path", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md"))])
def test_links_lead_somewhere(path: str) -> None:
    wrong = [
        link
        for link in _LINK.findall((ROOT / path).read_text(encoding="utf-8"))
        if not ((ROOT / path).parent / link).exists()
    ]
    assert wrong == []


@pytest.mark.ray
def test_the_commands_and_the_python_of_the_docs_run(tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text(
        'text,day\n"what a day :)",2026-03-01\nlate AGAIN,2026-03-02\n', encoding="utf-8"
    )
    # A script named emollm, as pip installs it.
    script = tmp_path / "bin" / "emollm"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m emollm "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    servers: list[subprocess.Popen[str]] = []
    try:
        for language, step in steps("README.md", "docs/index.md"):
            if step.endswith("&"):
                command = f"exec {step.removesuffix('&')}"
                servers.append(subprocess.Popen(command, shell=True, cwd=tmp_path, env=env, text=True))
                _wait_until_it_answers("http://127.0.0.1:8123/readyz", servers[-1])
                continue
            argv = ["sh", "-c", step] if language == "sh" else [sys.executable, "-c", step]
            ran = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
            assert ran.returncode == 0, f"{step}\n{ran.stdout}\n{ran.stderr}"
            assert "Traceback" not in ran.stderr
            if "curl" in step:
                assert '"results"' in ran.stdout, ran.stdout
    finally:
        for server in servers:
            server.terminate()
            server.wait(timeout=60)
    made = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert {"posts.affect.parquet", "models/mine/affect.json", "runs/mine/report.html", "affect.parquet"} <= made


def _wait_until_it_answers(url: str, server: subprocess.Popen[str]) -> None:
    while server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the endpoint ended with {server.returncode}")

"""The start without a launcher: what it asks of `ray start`, and what it refuses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def home(tmp_path: Path) -> Path:
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)
    token.chmod(0o600)
    return tmp_path


def start(home: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """The script, with a `ray` that prints what it is told and in which mode."""
    ray = home / "ray"
    ray.write_text('#!/bin/sh\necho "$RAY_AUTH_MODE $*"\n')
    ray.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "RAY": str(ray)}
    return subprocess.run([ROOT / "cluster" / "start.sh", *argv], env=env, capture_output=True, text=True, timeout=60)


def test_head_and_worker_ask_for_the_token_and_use_fixed_ports(home: Path) -> None:
    head = start(home, "head", "10.0.0.1", "--num-cpus=0")
    assert head.returncode == 0, head.stderr
    words = head.stdout.split()
    assert words[:4] == ["token", "start", "--head", "--port=6379"]
    assert {"--dashboard-host=127.0.0.1", "--node-ip-address=10.0.0.1", "--block", "--num-cpus=0"} <= set(words)
    worker = start(home, "worker", "10.0.0.2", "10.0.0.1", "--num-gpus=8").stdout.split()
    assert {"--address=10.0.0.1:6379", "--node-ip-address=10.0.0.2", "--num-gpus=8"} <= set(worker)
    # A port that is left out is drawn by lot, and no firewall can be written for it.
    ports = {word.split("=")[0] for word in worker if "port" in word}
    assert ports == {"--node-manager-port", "--object-manager-port", "--min-worker-port", "--max-worker-port",
                     "--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--runtime-env-agent-port",
                     "--metrics-export-port"}  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "usage: cluster/start.sh head ADDRESS"),
        (["head"], "usage"),
        (["haed", "10.0.0.1"], "choose from: head, worker"),
        (["head", "0.0.0.0"], "every network"),
        (["worker", "10.0.0.2"], "needs the head's address"),
    ],
)
def test_a_mistake_is_one_line(home: Path, argv: list[str], said: str) -> None:
    ran = start(home, *argv)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr


def test_a_token_that_is_missing_or_public_is_refused(home: Path) -> None:
    token = home / ".ray" / "auth_token"
    token.chmod(0o640)
    assert f"chmod 600 {token}" in start(home, "head", "10.0.0.1").stderr
    token.unlink()
    ran = start(home, "head", "10.0.0.1")
    assert ran.returncode == 2
    assert "ray get-auth-token --generate" in ran.stderr

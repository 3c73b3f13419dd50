"""The benchmark of the host's work runs: its stages are parts of the engines, which change."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_host_benchmark_measures_its_three_roads() -> None:
    command = [sys.executable, "benchmarks/host.py", "--num-posts", "256", "--exact-posts", "2", "--repeats", "1"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    roads = re.findall(r"^(heads|constrained|training).*: ([\d,]+) us per post$", told, flags=re.MULTILINE)
    assert [name for name, _ in roads] == ["heads", "constrained", "training"]
    assert all(int(time.replace(",", "")) > 0 for _, time in roads)

"""The four jobs as commands, each in its three ways: script, module, and submitted to a cluster with a token."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from emollm.build import SAMPLES
from tests.conftest import ROOT

JOBS = ("build_data", "train", "evaluate", "annotate")
BIN = Path(sys.executable).parent
OURS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
ENV = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | OURS


@dataclass(frozen=True)
class Cluster:
    dashboard: str
    env: dict[str, str]


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """`ray start --head` with token authentication, in a process group of its own, ended by its pid."""
    port, dashboard, client, agent, agent_grpc, metrics = free_ports(6)
    env = ENV | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    command = [
        str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=3", f"--port={port}",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
        f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}",
        f"--metrics-export-port={metrics}", "--disable-usage-stats",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("cluster") / "head.log"
    with log.open("w") as file:
        head = subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        address = f"http://127.0.0.1:{dashboard}"
        try:
            for _ in range(90):
                listing = [str(BIN / "ray"), "job", "list", "--address", address]
                if subprocess.run(listing, env=env, capture_output=True, timeout=60).returncode == 0:
                    break
                assert head.poll() is None, log.read_text()
                time.sleep(1)
            else:
                pytest.fail(f"the cluster did not come up:\n{log.read_text()}")
            yield Cluster(address, env)
        finally:
            head.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                head.wait(30)
            # What the head started and did not take along; the group is ours alone.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)
            head.wait()


def run(way: str, job: str, argv: list[str], cluster: Cluster | None = None) -> subprocess.CompletedProcess[str]:
    if way == "submit":
        assert cluster is not None
        entry = ["python", f"jobs/{job}.py", *argv]
        command = [
            str(BIN / "ray"),
            "job",
            "submit",
            "--address",
            cluster.dashboard,
            "--working-dir",
            ".",
            "--",
            *entry,
        ]
        return subprocess.run(command, cwd=ROOT, env=cluster.env, capture_output=True, text=True, timeout=300)
    entry = [f"jobs/{job}.py"] if way == "script" else ["-m", f"jobs.{job}"]
    return subprocess.run(
        [sys.executable, *entry, *argv], cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300
    )


@pytest.mark.ray
@pytest.mark.parametrize("way", ["script", "module", "submit"])
def test_the_four_jobs(way: str, tmp_path: Path, tiny_base: Path, request: pytest.FixtureRequest) -> None:
    cluster = request.getfixturevalue("cluster") if way == "submit" else None
    data, model, evaluation, annotated = (str(tmp_path / n) for n in ("data", "model", "evaluation", "annotated"))
    small = ["--global-batch-size", "16", "--micro-batch-size", "4", "--max-rows", "32"]
    runs = {
        "build_data": ["aaid", "--out", data, "--templates-per-example", "1"],
        "train": ["--data", data, "--out", model, "--base", str(tiny_base), *small],
        "evaluate": ["--model", model, "--data", data, "--tasks", "V-oc", "--max-rows", "4", "--out", evaluation],
        "annotate": ["--model", model, "--input", str(SAMPLES / "posts.jsonl"), "--out", annotated, "--max-posts", "4"],
    }
    for job, argv in runs.items():
        ran = run(way, job, argv, cluster)
        assert ran.returncode == 0, f"{job}: {ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in ran.stdout + ran.stderr
    assert pq.read_table(annotated).num_rows == 4
    assert {p.name for p in tmp_path.iterdir()} == {"data", "model", "evaluation", "annotated"}


@pytest.mark.ray
def test_a_submitted_job_that_fails_says_why_and_its_exit_status_comes_back(tmp_path: Path, cluster: Cluster) -> None:
    ran = run("submit", "train", ["--data", str(tmp_path / "none"), "--out", str(tmp_path / "model")], cluster)
    assert ran.returncode != 0
    assert "error: no " in ran.stdout + ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_a_cluster_that_asks_for_a_token_refuses_a_job_without(cluster: Cluster) -> None:
    open_env = Cluster(cluster.dashboard, {k: v for k, v in cluster.env.items() if not k.startswith("RAY_AUTH")})
    ran = run("submit", "build_data", ["--help"], open_env)
    assert ran.returncode != 0
    assert "auth" in (ran.stdout + ran.stderr).lower()


@pytest.mark.ray
def test_training_needs_no_compiler_and_minds_no_other_ray(
    tmp_path: Path, tiny_base: Path, sample_data: Path, cluster: Cluster
) -> None:
    argv = ["--data", str(sample_data), "--out", str(tmp_path / "model"), "--base", str(tiny_base)]
    argv += ["--global-batch-size", "8", "--micro-batch-size", "4", "--max-rows", "8"]
    env = ENV | {"CXX": "no-such-compiler", "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    command = [sys.executable, "jobs/train.py", *argv]
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "model" / "affect.json").is_file()
    assert not (tmp_path / "extensions").exists()


@pytest.mark.parametrize("job", JOBS)
def test_help_knows_the_options_and_loads_no_torch(job: str) -> None:
    argv = ["aaid", "--help"] if job == "build_data" else ["--help"]
    code = (
        "import sys, runpy; sys.argv[1:] = " + repr(argv) + "\n"
        "try: runpy.run_path('jobs/" + job + ".py', run_name='__main__')\n"
        "finally: print('LOADED', sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=60)
    assert "--overwrite" in ran.stdout
    assert "LOADED []" in ran.stdout


@pytest.mark.parametrize(
    ("job", "argv", "message"),
    [
        ("build_data", ["aaid", "--semeval", "nowhere", "--out", "OUT"], "no SemEval-2018 folder at nowhere"),
        ("build_data", ["aiad", "--out", "OUT"], "choose from: aaid, aeb, own"),
        ("train", ["--data", "nowhere", "--out", "OUT"], "build_data.py"),
        ("train", ["--data", "DATA", "--out", "OUT", "--base", "gpt-5"], "unknown base model 'gpt-5'"),
        ("evaluate", ["--model", "nowhere", "--data", "DATA"], "no model directory at nowhere"),
        ("evaluate", ["--model", "BASE", "--data", "DATA"], "has no affect.json"),
        ("evaluate", ["--model", "MODEL", "--data", "DATA", "--tasks", "V-occ"], "choose from: EI-reg, EI-oc, V-reg"),
        ("annotate", ["--model", "MODEL", "--input", "nowhere.csv", "--out", "OUT"], "no input at nowhere.csv"),
        ("annotate", ["--model", "MODEL", "--input", "README.md", "--out", "OUT"], ".parquet .jsonl .json .csv .txt"),
        ("annotate", ["--modle", "MODEL"], "did you mean --model?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    job: str, argv: list[str], message: str, tmp_path: Path, tiny_base: Path, model_directory: Path, sample_data: Path
) -> None:
    places = {"OUT": tmp_path / "out", "DATA": sample_data, "BASE": tiny_base, "MODEL": model_directory}
    ran = run("script", job, [str(places.get(word, word)) for word in argv])
    assert ran.returncode == 2, ran.stderr
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_quickstart_goes_the_whole_road_and_shows_it(tmp_path: Path, tiny_base: Path) -> None:
    argv = ["--out", str(tmp_path / "q"), "--base", str(tiny_base), "--train-rows", "32", "--eval-rows", "3"]
    ran = run("script", "quickstart", [*argv, "--max-posts", "4"])
    assert ran.returncode == 0, ran.stderr
    for shown in ("before and after", "fine-tuned", "Annotated posts", "make serve", "make annotate", "make train"):
        assert shown in ran.stdout
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.splitlines()) < 40  # progress, not a wall of log
    assert "cdnjs" not in (tmp_path / "q" / "summary.svg").read_text()  # the picture asks no server for anything
    assert {"data", "model", "annotated", "evaluate-base", "evaluate-tuned", "summary.svg"} == {
        p.name for p in (tmp_path / "q").iterdir()
    }

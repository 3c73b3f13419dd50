"""The four jobs as commands, each in its three ways: script, module, and submitted to a cluster with a token."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from emollm.data.aaid import SAMPLES
from tests.conftest import ROOT
from tests.ray_cluster import BIN, ENV, RayCluster, ray_cluster

JOBS = ("build_data", "train", "evaluate", "annotate")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A head that asks for a token."""
    with ray_cluster(tmp_path_factory.mktemp("cluster"), num_cpus=3) as running:
        yield running


def run(way: str, job: str, argv: list[str], cluster: RayCluster | None = None) -> subprocess.CompletedProcess[str]:
    if way == "submit":
        assert cluster is not None
        return cluster.submit("python", f"jobs/{job}.py", *argv)
    entry = [f"jobs/{job}.py"] if way == "script" else ["-m", f"jobs.{job}"]
    return subprocess.run(
        [sys.executable, *entry, *argv], cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=900
    )


@pytest.mark.ray
@pytest.mark.parametrize("way", ["script", "module", "submit"])
def test_the_four_jobs(way: str, tmp_path: Path, tiny_base: Path, request: pytest.FixtureRequest) -> None:
    cluster = request.getfixturevalue("cluster") if way == "submit" else None
    workers = [] if way == "script" else ["--cluster.num-workers", "1"]  # once with the workers that nobody asked for
    data, model, evaluation, annotated = (str(tmp_path / n) for n in ("data", "model", "evaluation", "annotated"))
    small = ["--global-batch-size", "16", "--micro-batch-size", "4", "--max-rows", "32"]
    runs = {
        "build_data": ["aaid", "--out", data, "--templates-per-example", "1"],
        "train": ["--data", data, "--out", model, "--base", str(tiny_base), *small, *workers],
        "evaluate": [
            "--model", model, "--data", data, "--tasks", "V-oc", "--max-rows", "4", "--out", evaluation, *workers,
        ],
        "annotate": [
            "--model", model, "--input", str(SAMPLES / "posts.jsonl"), "--out", annotated, "--max-posts", "4", *workers,
        ],
    }  # fmt: skip
    for job, argv in runs.items():
        ran = run(way, job, argv, cluster)
        assert ran.returncode == 0, f"{job}: {ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in ran.stdout + ran.stderr
    assert pq.read_table(annotated).num_rows == 4
    assert {p.name for p in tmp_path.iterdir()} == {"data", "model", "evaluation", "annotated"}


@pytest.mark.ray
def test_a_submitted_job_that_fails_says_why_and_its_exit_status_comes_back(
    tmp_path: Path, cluster: RayCluster
) -> None:
    ran = run("submit", "train", ["--data", str(tmp_path / "none"), "--out", str(tmp_path / "model")], cluster)
    assert ran.returncode != 0
    assert "error: no " in ran.stdout + ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_a_cluster_that_asks_for_a_token_refuses_a_job_without(cluster: RayCluster) -> None:
    stranger = {k: v for k, v in cluster.env.items() if not k.startswith("RAY_AUTH")}
    command = [BIN / "ray", "job", "submit", "--address", cluster.dashboard, "--", "python", "--version"]
    ran = subprocess.run(command, env=stranger, capture_output=True, text=True, timeout=900)
    assert ran.returncode != 0
    assert "auth" in (ran.stdout + ran.stderr).lower()


@pytest.mark.ray
def test_training_needs_no_compiler_and_minds_no_other_ray(
    tmp_path: Path, tiny_base: Path, sample_data: Path, cluster: RayCluster
) -> None:
    argv = ["--data", str(sample_data), "--out", str(tmp_path / "model"), "--base", str(tiny_base)]
    argv += ["--global-batch-size", "8", "--micro-batch-size", "4", "--max-rows", "8"]
    env = ENV | {"CXX": "no-such-compiler", "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    command = [sys.executable, "jobs/train.py", *argv]
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "model" / "affect.json").is_file()
    assert not (tmp_path / "extensions").exists()


@pytest.mark.slow
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


@pytest.mark.slow
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
    ran = run("script", "quickstart", [*argv, "--max-posts", "4", "--cluster.num-workers", "1"])
    assert ran.returncode == 0, ran.stderr
    for shown in ("before and after", "fine-tuned", "Annotated posts", "make serve", "make annotate", "make train"):
        assert shown in ran.stdout
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.splitlines()) < 40  # progress, not a wall of log
    assert "cdnjs" not in (tmp_path / "q" / "summary.svg").read_text()  # the picture asks no server for anything
    assert {"data", "model", "annotated", "evaluate-base", "evaluate-tuned", "summary.svg"} == {
        p.name for p in (tmp_path / "q").iterdir()
    }

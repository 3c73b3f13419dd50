"""The jobs as commands: as scripts on a Ray of their own, as modules, and submitted to a cluster with a token."""

from __future__ import annotations

import subprocess
from importlib import import_module
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from emollm.data.aaid import SAMPLES
from tests.commands import help_and_modules, refused, run
from tests.ray_cluster import BIN, RayCluster

JOBS = ("build_data", "train", "evaluate", "annotate")


@pytest.mark.ray
def test_the_four_jobs_need_no_compiler_and_ignore_another_ray(
    tmp_path: Path, tiny_base: Path, ray_head: RayCluster
) -> None:
    data, model, evaluation, annotated = (str(tmp_path / n) for n in ("data", "model", "evaluation", "annotated"))
    small = ["--global-batch-size", "16", "--micro-batch-size", "4", "--max-rows", "32"]
    runs = {
        "build_data": ["aaid", "--out", data, "--templates-per-example", "1"],
        "train": ["--data", data, "--out", model, "--base", str(tiny_base), *small],  # the workers nobody asked for
        "evaluate": [
            "--model", model, "--data", data, "--tasks", "V-oc", "--max-rows", "4", "--out", evaluation,
            "--cluster.num-workers", "1",
        ],
        "annotate": [
            "--model", model, "--input", str(SAMPLES / "posts.jsonl"), "--out", annotated, "--max-posts", "4",
            "--cluster.num-workers", "1",
        ],
    }  # fmt: skip
    extensions = str(tmp_path / "extensions")
    for job, argv in runs.items():
        ran = run(f"jobs/{job}.py", *argv, CXX="no-such-compiler", TORCH_EXTENSIONS_DIR=extensions)
        assert ran.returncode == 0, f"{job}: {ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in ran.stdout + ran.stderr
    assert pq.read_table(annotated).num_rows == 4
    assert {p.name for p in tmp_path.iterdir()} == {"data", "model", "evaluation", "annotated"}


@pytest.mark.ray
def test_a_submitted_job_that_fails_says_why_and_its_exit_status_comes_back(
    tmp_path: Path, ray_head: RayCluster
) -> None:
    ran = ray_head.submit("python", "jobs/train.py", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "model"))
    assert ran.returncode != 0
    assert "error: no " in ran.stdout + ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_a_cluster_with_a_token_refuses_a_job_without_one(ray_head: RayCluster) -> None:
    stranger = {k: v for k, v in ray_head.env.items() if not k.startswith("RAY_AUTH")}
    command = [BIN / "ray", "job", "submit", "--address", ray_head.dashboard, "--", "python", "--version"]
    ran = subprocess.run(command, env=stranger, capture_output=True, text=True, timeout=900)
    assert ran.returncode != 0
    assert "auth" in (ran.stdout + ran.stderr).lower()


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_help_knows_the_options_and_loads_no_torch(job: str) -> None:
    told, loaded = help_and_modules(job, *(["aaid"] if job == "build_data" else []))
    assert "--overwrite" in told
    assert loaded == set()


@pytest.mark.slow
def test_as_a_module_a_job_reports_a_mistake_as_the_script_does() -> None:
    argv = ["--data", "nowhere", "--out", "out"]
    script, module = run("jobs/train.py", *argv), run("-m", "jobs.train", *argv)
    assert script.returncode == module.returncode == 2
    assert script.stderr == module.stderr
    assert script.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in script.stderr


@pytest.mark.parametrize(
    ("job", "argv", "message"),
    [
        ("build_data", ["aaid", "--semeval", "nowhere", "--out", "OUT"], "no SemEval-2018 folder at nowhere"),
        ("build_data", ["aiad", "--out", "OUT"], "choose from: aaid, affect, aeb, own"),
        ("train", ["--data", "nowhere", "--out", "OUT"], "emollm build-data"),
        ("train", ["--data", "DATA", "--out", "OUT", "--base", "gpt-5"], "unknown base model 'gpt-5'"),
        ("evaluate", ["--model", "nowhere", "--data", "DATA"], "no model directory at nowhere"),
        ("evaluate", ["--model", "BASE", "--data", "DATA"], "has no affect.json"),
        ("evaluate", ["--model", "MODEL", "--data", "DATA", "--tasks", "V-occ"], "choose from: EI-reg, EI-oc, V-reg"),
        ("annotate", ["--model", "MODEL", "--input", "nowhere.csv", "--out", "OUT"], "no input at nowhere.csv"),
        (
            "annotate",
            ["--model", "MODEL", "--input", "README.md", "--out", "OUT"],
            "unsupported file type; expected .parquet",
        ),
        ("annotate", ["--modle", "MODEL"], "did you mean --model?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    job: str, argv: list[str], message: str, tmp_path: Path, tiny_base: Path, model_directory: Path, sample_data: Path
) -> None:
    places = {"OUT": tmp_path / "out", "DATA": sample_data, "BASE": tiny_base, "MODEL": model_directory}
    said = refused(import_module(f"jobs.{job}").main, *(str(places.get(word, word)) for word in argv))
    assert message in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_quickstart_goes_the_whole_road_and_shows_it(tmp_path: Path, tiny_base: Path) -> None:
    argv = ["--out", str(tmp_path / "q"), "--base", str(tiny_base), "--max-rows", "240", "--base-rows", "2"]
    ran = run("jobs/quickstart.py", *argv, "--max-posts", "20", "--cluster.num-workers", "1")
    assert ran.returncode == 0, ran.stderr
    for shown in (
        "before and after",
        "fine-tuned",
        "bundled default",
        "annotated by the",
        "your own labels",
        "report.html",
    ):
        assert shown in ran.stdout
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.splitlines()) < 40  # progress, not a wall of log
    assert "cdnjs" not in (tmp_path / "q" / "summary.svg").read_text()  # the picture asks no server for anything
    made = {"data", "model", "annotated", "evaluate-base", "evaluate-tuned", "evaluate-default", "summary.svg"}
    assert {path.name for path in (tmp_path / "q").iterdir()} == made

"""The jobs of evaluation as commands."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from tests.commands import help_and_modules, refused, run


def predictions(path: Path, shift: int) -> str:
    rows = [{"gold": i % 5, "prediction": (i + (shift if i % 2 else 0)) % 5, "id": str(i)} for i in range(60)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


@pytest.mark.slow
def test_two_files_are_evaluated_and_compared_from_the_command_line(tmp_path: Path) -> None:
    for name, shift in (("a", 1), ("b", 0)):
        ran = run(
            "jobs/evaluate.py", "--predictions", predictions(tmp_path / f"{name}.jsonl", shift), "--task", "SST5",
            "--resamples", "100", "--out", str(tmp_path / name),
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert "report.html" in ran.stdout
    compared = run("jobs/compare.py", str(tmp_path / "a"), str(tmp_path / "b"))
    assert compared.returncode == 0, compared.stderr
    assert "B is better: on SST5" in compared.stdout


@pytest.mark.parametrize("job", ["compare", "calibrate", "audit"])
def test_help_knows_the_options_and_loads_no_torch(job: str) -> None:
    told, loaded = help_and_modules(job)
    assert "--config" in told
    assert loaded == set()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["compare", "nowhere", "elsewhere"], "nowhere is not an output folder of `emollm evaluate`"),
        (["compare", "nowhere"], "--run-b is required"),
        (["audit", "--eec", "nowhere", "--model", "smollm2-135m-instruct"], "no folder nowhere"),
        (["evaluate"], "give rows to measure on: --data, --aeb, --predictions or --compare-with"),
        (["evaluate", "--predictions", "nowhere.jsonl", "--task", "V-reg"], "predictions nowhere.jsonl cannot be read"),
        (["evaluate", "--aeb", "docs"], "docs holds no benchmark"),
        (["evaluate", "--predictions", "x", "--task", "V-reg", "--invalid", "impute"], "--invalid 'impute'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(argv: list[str], message: str) -> None:
    job, *options = argv
    assert message in refused(import_module(f"jobs.{job}").main, *options)

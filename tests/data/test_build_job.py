"""`python jobs/build_data.py` as a user types it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/build_data.py", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_help_lists_the_commands_without_heavy_imports() -> None:
    code = "import sys, jobs.build_data as job\ntry: job.main(['--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert all(command in found.stdout for command in ("aaid", "aeb", "own"))
    assert not {"torch", "transformers", "ray", "matplotlib", "pandas"} & set(found.stdout.split())


def test_a_build_prints_its_rows_and_card(tmp_path: Path) -> None:
    found = run("aaid", "--out", tmp_path / "data", "--templates-per-example", "1")
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path}/data/train.parquet: ")
    assert lines[-1] == f"card: {tmp_path}/data/card.html"
    assert (tmp_path / "data" / "card.html").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["aiad"], "unknown command 'aiad'; choose from: aaid, affect, aeb, own"),
        (["aaid"], "--out is required"),
        (["own", "--out", "x", "--data", "nowhere.toml"], "cannot read nowhere.toml"),
        (["aeb", "--out", "x"], "no rows for EI-reg, EI-oc"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path: Path, words: list[str], message: str) -> None:
    found = run(*(tmp_path / "x" if word == "x" else word for word in words))
    assert found.returncode == 2
    assert found.stderr.startswith(f"error: {message}")
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "x").exists()


def test_aeb_says_what_is_not_as_published(tmp_path: Path) -> None:
    files = ROOT / "tests" / "data" / "corpora" / "files"
    found = run(
        "aeb", "--sst", files / "sst_trees", "--tdt", files / "tdt", "--allow-missing", "--out", tmp_path / "aeb"
    )
    assert found.returncode == 0, found.stderr
    assert "note: left out, no source given: EI-reg, EI-oc, V-reg, V-oc, E-c, SST, EmoBank" in found.stdout
    assert "note: SST5 is not the published one: SST5 3 of 2,210" in found.stdout

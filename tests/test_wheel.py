"""The wheel works alone: built from what git holds, run where no checkout is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import emollm
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path that holds the wheel's files and nothing else of this checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "emollm"):
        whole = ROOT / name
        (shutil.copytree if whole.is_dir() else shutil.copy)(whole, source / name)
    wheels = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(wheels)]
    subprocess.run([*command, str(source)], check=True, timeout=300)
    shutil.rmtree(source)
    [wheel] = wheels.iterdir()
    assert wheel.name.startswith(f"emollm-{emollm.__version__}-")
    place = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(place)
    return place


def run(installed: Path, cwd: Path, *argv: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(installed)}
    ran = subprocess.run([sys.executable, *argv], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_default_model_answers_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    place = run(installed, tmp_path, "-c", "import emollm; print(emollm.__file__)")
    assert place.startswith(str(installed))
    row = json.loads(run(installed, tmp_path, "-m", "emollm", "text", "I am so happy today :)", "--json"))
    assert row["v_reg"] > 0.7 and "joy" in row["e_c"] and row["intensity_joy"] > row["intensity_anger"]


def test_the_endpoint_its_page_the_samples_and_the_profiles_are_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = (
        "from emollm.serve.app import PAGE; from emollm.data.aaid import SAMPLES, AaidConfig, build_aaid\n"
        "from emollm.core.options import read_profile; from pathlib import Path\n"
        "assert (PAGE / 'index.html').is_file() and read_profile('a100x2')\n"
        "build_aaid(AaidConfig(out=Path('data'), templates_per_example=1)); print(len(list(PAGE.iterdir())))"
    )
    assert int(run(installed, tmp_path, "-c", code)) == len(list((ROOT / "emollm" / "serve" / "page").iterdir()))
    assert (tmp_path / "data" / "train.parquet").is_file()


def test_no_file_of_the_package_is_left_out(installed: Path) -> None:
    ours = {p.relative_to(ROOT) for p in (ROOT / "emollm").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    missing = sorted(str(path) for path in ours if not (installed / path).is_file())
    assert missing == []


def test_the_docs_name_every_extra() -> None:
    told = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name for name in extras if f"`{name}`" in told} == set(extras)

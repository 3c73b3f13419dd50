"""The one-way rule: jobs -> emollm <- serve, and which rooms of emollm may know torch and Ray."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Rooms that carry Ray. `scoring/rows.py` and `training/loop.py` do not: they run alone on any machine.
MAY_IMPORT_RAY = {
    "emollm/ray_session.py",
    "emollm/training/fit.py",
    "emollm/training/frozen.py",
    "emollm/evaluation/predict.py",
    "emollm/annotation",
}
LIGHT = ("tasks", "prompts", "answers", "corpora.semeval", "evaluation.metrics", "affect_card", "bases", "config")


def imports(path: Path) -> set[str]:
    """The top-level packages a file imports anywhere, functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize(
    ("folders", "forbidden"),
    [
        (("emollm",), {"jobs", "serve", "cluster", "tests"}),
        (("jobs",), {"serve", "cluster"}),
        (("serve",), {"jobs", "cluster"}),
        (("cluster",), {"jobs", "serve", "tests"}),
    ],
)
def test_packages_depend_one_way(folders: tuple[str, ...], forbidden: set[str]) -> None:
    assert {str(p): i & forbidden for p in files(*folders) if (i := imports(p)) & forbidden} == {}


def test_ray_stays_in_its_rooms() -> None:
    with_ray = {p.relative_to(ROOT).as_posix() for p in files("emollm") if "ray" in imports(p)}
    allowed = {p for p in with_ray if any(p == a or p.startswith(a + "/") for a in MAY_IMPORT_RAY)}
    assert with_ray == allowed
    assert "emollm/training/fit.py" in with_ray  # the test sees imports inside functions


def test_light_modules_import_neither_torch_nor_ray() -> None:
    modules = ", ".join(f"emollm.{name}" for name in LIGHT)
    code = f"import sys, {modules}; print({{'torch', 'ray'}} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"

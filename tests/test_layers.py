"""The one-way rule: which room may import which, and which may know torch and Ray."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Each room of emollm with the rooms below it that it may import; `api` and `commands` put the others together.
_BELOW_SCORING = {"core", "reports", "runtime", "data", "models"}
_TOP = {*_BELOW_SCORING, "scoring", "metrics"}
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "reports": {"core"},
    "runtime": {"core"},
    "data": {"core", "reports"},
    "models": {"core"},
    "scoring": _BELOW_SCORING - {"reports", "runtime"},
    "metrics": {"core", "data"},
    "review": {"core", "data", "metrics"},
    "evaluation": _TOP,
    "annotation": _TOP,
    "training": _TOP,
    "study": {"core", "reports", "data", "metrics"},
    "api": {"core", "data", "scoring"},
    "client": set(),
    "notebook": {"core"},
    "serve": {"core", "models", "runtime", "scoring"},
    "doctor": {"core", "runtime"},
    "__main__": {"commands"},
    "commands": {*_TOP, "review", "evaluation", "annotation", "training", "study", "api", "serve", "doctor"},
}
# Rooms that carry Ray. `scoring/rows.py` and `training/loop.py` do not: they run alone on any machine.
MAY_IMPORT_RAY = {
    "emollm/runtime",
    "emollm/serve",
    "emollm/doctor.py",
    "emollm/annotation",
    "emollm/evaluation/predict.py",
    "emollm/training/ray_train.py",
    "emollm/training/frozen.py",
    "emollm/training/rendezvous.py",
}
# Rooms without torch: a command that names a wrong option answers before it is imported.
LIGHT = ("core", "data", "reports", "runtime", "metrics", "study")


def modules() -> dict[str, Path]:
    """Dotted name to file, for every module of emollm."""
    found = {}
    for path in sorted((ROOT / "emollm").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def packages(*folders: str) -> dict[Path, set[str]]:
    """The top-level packages that each file of these folders imports."""
    paths = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return {path: {name.split(".")[0] for name in imports(path)} for path in paths}


@pytest.mark.parametrize(
    ("folders", "forbidden"),
    [
        (("emollm",), {"jobs", "tests"}),
        (("jobs",), {"tests"}),
    ],
)
def test_packages_depend_one_way(folders: tuple[str, ...], forbidden: set[str]) -> None:
    assert {str(path): found & forbidden for path, found in packages(*folders).items() if found & forbidden} == {}


def test_no_arrow_between_rooms_goes_upwards() -> None:
    wrong = [
        f"{importer} -> {imported}"
        for importer, path in MODULES.items()
        for imported in imports(path)
        if importer != "emollm"
        and imported.startswith("emollm.")
        and room(imported) != room(importer)
        and room(imported) not in ALLOWED[room(importer)]
    ]
    assert wrong == []


def test_every_room_is_in_the_table() -> None:
    assert {room(module) for module in MODULES} - {"emollm"} == set(ALLOWED)


def test_no_cycle_between_files() -> None:
    graph = {
        module: {name for name in imports(path) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_ray_stays_in_its_rooms() -> None:
    with_ray = {p.relative_to(ROOT).as_posix() for p, found in packages("emollm").items() if "ray" in found}
    allowed = {p for p in with_ray if any(p == a or p.startswith(a + "/") for a in MAY_IMPORT_RAY)}
    assert with_ray == allowed
    assert "emollm/training/ray_train.py" in with_ray  # the test sees imports inside functions


def test_light_rooms_import_neither_torch_nor_ray() -> None:
    light = ", ".join(module for module in MODULES if room(module) in LIGHT)
    code = f"import sys, {light}; print({{'torch', 'ray'}} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"

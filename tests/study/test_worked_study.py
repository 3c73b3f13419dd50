"""The worked study of docs/study.md: its commands as they stand, and whether what they find is what was put in."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest

from emollm.commands.cli import main
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_worked_study_finds_what_was_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    assert [line.split()[1] for line in lines] == ["samples", "annotate", "report", "report", "report"]
    for line in lines:
        main(shlex.split(line)[1:] + (["--processes", "1"] if " annotate " in line else []))
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        exec(compile(block, "docs/study.md", "exec"), {})
    anger = [r for r in rows(tmp_path / "findings" / "estimates.csv") if r["label"] == "anger"]
    whole = next(r for r in anger if r["view"] == "all")
    assert float(whole["corrected_low"]) < 0.213 < float(whole["corrected_high"])
    towns = {r["group"]: float(r["corrected"]) for r in anger if r["view"] == "group"}
    assert towns["Brook"] > towns["Ashby"]
    [town] = [r for r in rows(tmp_path / "findings" / "differences.csv") if r["label"] == "anger"]
    assert town["holds"] == "True" and town["corrected"] == "True"

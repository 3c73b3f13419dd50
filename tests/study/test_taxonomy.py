"""Label sets made of other label sets' probabilities."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import emollm
from emollm.commands.map_labels import main
from emollm.core.errors import ConfigError, DataError
from emollm.core.tasks import TASKS
from emollm.study.mapping import MapConfig, add_maps
from emollm.study.options import ReportConfig
from emollm.study.report import report
from emollm.study.taxonomy import LabelMap, bundled_maps, choose_maps
from tests.commands import refused
from tests.study.annotated import corpus

TOML = """
[[map]]
name = "Two"
source = "Mood"
threshold = { bad = 0.6, good = 0.5 }
[map.labels]
bad = ["anger", "sadness"]
good = ["joy"]

[[map]]
name = "One of three"
source = "Two"
kind = "single-label"
rule = "exclusive"
[map.labels]
good = ["good"]
bad = ["bad"]
neither = []
"""


@pytest.fixture
def taxonomy(tmp_path: Path) -> Path:
    (tmp_path / "own.toml").write_text(TOML, encoding="utf-8")
    return tmp_path / "own.toml"


def test_mapped_labels_come_from_probabilities_and_not_from_answered_labels(tmp_path: Path, taxonomy: Path) -> None:
    likely = np.array([[0.4, 0.1, 0.4], [0.0, 0.7, 0.0]])
    path = corpus(tmp_path / "a.parquet", np.zeros((2, 3)), probabilities=likely)
    add_maps(MapConfig(output=str(path), out=tmp_path / "b.parquet", taxonomy=(str(taxonomy),)))
    first, second = pq.read_table(tmp_path / "b.parquet").to_pylist()
    assert first["two_probabilities"] == pytest.approx({"bad": 1 - 0.6 * 0.6, "good": 0.1})
    assert first["two"] == ["bad"] and first["mood"] == []  # neither anger nor sadness is given, and one of them likely
    assert second["two"] == ["good"]
    # A map of a map: a tree.
    rest = 1 - (0.64 + 0.1)
    assert first["one_of_three"] == "bad"
    assert first["one_of_three_probabilities"] == pytest.approx({"good": 0.1, "bad": 0.64, "neither": rest})


@pytest.mark.parametrize(("rule", "wanted"), [("independent", 0.76), ("exclusive", 1.0), ("strongest", 0.6)])
def test_rules(rule: str, wanted: float) -> None:
    one = LabelMap.model_validate({"name": "m", "source": "s", "labels": {"a": ["x", "y"]}, "rule": rule})
    assert one.probabilities(np.array([[0.4, 0.6]]), ["x", "y"])[0, 0] == pytest.approx(wanted)


def test_the_maps_that_come_along_fit_their_tasks() -> None:
    for one in bundled_maps().values():
        source = TASKS[one.source].labels
        found = one.probabilities(np.full((1, len(source)), 0.02), source)
        assert found.shape == (1, len(one.labels)) and ((found > 0) & (found < 1)).all()
    for name in ("ekman", "sentiment"):
        used = [label for group in bundled_maps()[name].labels.values() for label in group]
        assert sorted(used) == sorted(TASKS["GoEmotions-28"].labels)


def test_a_report_and_a_frame_take_maps(tmp_path: Path, taxonomy: Path) -> None:
    path = corpus(tmp_path / "a.parquet", np.eye(3))
    found = report(ReportConfig(output=str(path), taxonomy=(str(taxonomy),), resamples=100))
    assert [m.name for m in found.measures][3:5] == ["two=bad", "two=good"]
    frame = pd.DataFrame({"mood_probabilities": [{"anger": 0.9, "joy": 0.1, "sadness": 0.0}]}, index=[7])
    mapped = emollm.map_labels(frame, str(taxonomy))
    assert mapped["two"][7] == ("bad",) and mapped["two_probabilities"][7]["good"] == pytest.approx(0.1)
    with pytest.raises(DataError, match="there is a column 'two' already"):
        emollm.map_labels(mapped.assign(mood_probabilities=frame["mood_probabilities"]), str(taxonomy))


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("", r"holds no \[\[map\]\]"),
        ('[[map]]\nname = "a"\nsource = "b"\n', "map 1: labels: is required"),
        ('[[map]]\nname="a"\nsource="Mood"\n[map.labels]\nx=["glee"]', "Mood has no label 'glee'; choose from: anger"),
        (
            '[[map]]\nname="a"\nsource="E-c"\n[map.labels]\nx=["joy"]',
            "needs the probabilities of E-c, column 'e_c_prob",
        ),
        ('[[map]]\nname="Mood"\nsource="Mood"\n[map.labels]\nx=["joy"]', "there is a column 'mood' already"),
        ('[[map]]\nname="a"\nsource="Mood"\n[map.labels]\nx=[]\ny=[]', "one label at most may be empty"),
        ('[[map]]\nname="a"\nsource="b"\nthreshold=0.0\n[map.labels]\nx=["joy"]', "thresholds are probabilities"),
        ("[[map", "is not a readable TOML file"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, toml: str, message: str) -> None:
    path = corpus(tmp_path / "a.parquet", np.eye(3))
    (tmp_path / "own.toml").write_text(toml, encoding="utf-8")
    told = refused(main, str(path), str(tmp_path / "b.parquet"), "--taxonomy", str(tmp_path / "own.toml"))
    assert re.search(message, told), told
    assert not (tmp_path / "b.parquet").exists()


def test_an_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match="unknown taxonomy 'ekmann'; choose from: ekman, sentiment, plutchik"):
        choose_maps(["ekmann"])

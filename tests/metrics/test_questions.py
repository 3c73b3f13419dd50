"""Questions out of data folders and benchmark folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from emollm.core.errors import DataError
from emollm.core.tasks import TASKS, select_tasks
from emollm.data.aeb import AebConfig, build_aeb
from emollm.metrics.questions import load_benchmark, load_questions
from tests.conftest import ROOT

FILES = ROOT / "tests" / "data" / "corpora" / "files"


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aeb") / "aeb"
    options = {"tdt": FILES / "tdt", "sst": FILES / "sst_trees", "goemotions": FILES / "goemotions"}
    build_aeb(AebConfig.model_validate({**options, "out": folder, "allow_missing": True, "skip_bad": True}))
    return folder


def test_each_question_is_asked_once_however_many_wordings(sample_data: Path) -> None:
    questions = load_questions(sample_data, select_tasks(["profile"]))
    assert len(questions) == 1173  # the sample's dev rows, not ten times as many
    assert len({q.id for q in questions}) == 1173
    few = load_questions(sample_data, select_tasks(["EI-reg"]), max_rows=3)
    assert sorted(q.emotion or "" for q in few) == ["anger"] * 3 + ["fear"] * 3 + ["joy"] * 3 + ["sadness"] * 3
    assert all(isinstance(q.gold, float) for q in few)


def test_a_folder_without_the_tasks_is_refused(sample_data: Path) -> None:
    with pytest.raises(DataError, match="has no row of SST5"):
        load_questions(sample_data, [TASKS["SST5"]])


def test_a_benchmark_gives_the_rows_of_all_its_parts(benchmark: Path) -> None:
    questions = load_benchmark(benchmark)
    assert {q.task.name for q in questions} == {"TDT", "SST5", "GoEmotions"}
    assert {q.task.name for q in load_benchmark(benchmark, [TASKS["TDT"]])} == {"TDT"}
    assert len(load_benchmark(benchmark, [TASKS["TDT"]], max_rows=1)) == 1


def test_the_wrong_kind_of_folder_is_told_apart(benchmark: Path, sample_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give it as --data"):
        load_benchmark(sample_data)
    with pytest.raises(DataError, match="holds no benchmark"):
        load_benchmark(tmp_path)
    with pytest.raises(DataError, match="has no row of V-reg; it holds"):
        load_benchmark(benchmark, [TASKS["V-reg"]])

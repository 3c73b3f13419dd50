"""Which rows of a data folder a run trains on."""

from __future__ import annotations

from pathlib import Path

import pytest

from emollm.core.errors import ConfigError
from emollm.training import worker
from emollm.training.options import TrainConfig
from emollm.training.rows import data_tasks, training_rows


def config(data: Path, **options: object) -> TrainConfig:
    return TrainConfig.model_validate({"data": data, "out": Path("o"), **options})


def test_rows_are_chosen_by_task_wording_and_number(sample_data: Path) -> None:
    assert training_rows(config(sample_data)).num_rows == 47_920
    first = training_rows(config(sample_data, num_wordings=1, tasks=("E-c", "V-reg")))
    assert first.num_rows == 2 * 862
    assert set(first["task"].to_pylist()) == {"E-c", "V-reg"}
    assert set(first["template"].to_pylist()) == {0}
    few = training_rows(config(sample_data, num_wordings=1, tasks=("E-c", "V-reg"), max_rows=5))
    assert few.to_pylist() == first.slice(0, 5).to_pylist()


def test_a_task_that_the_data_lacks_is_refused(sample_data: Path) -> None:
    assert [task.name for task in data_tasks(sample_data)] == ["EI-reg", "EI-oc", "V-reg", "V-oc", "E-c"]
    with pytest.raises(ConfigError, match=r"unknown task 'SST'; choose from: EI-reg, EI-oc, V-reg, V-oc, E-c"):
        training_rows(config(sample_data, tasks=("SST",)))


def test_the_questions_of_task_metrics_are_bounded(sample_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, tasks = config(sample_data, metric_rows=5), data_tasks(sample_data)
    assert len(worker.metric_questions(options, tasks)) == 5 * 11
    monkeypatch.setattr(worker, "MOST_METRIC_QUESTIONS", 40)
    assert len(worker.metric_questions(options, tasks)) == 3 * 11
    monkeypatch.setattr(worker, "MOST_METRIC_QUESTIONS", 1)
    assert len(worker.metric_questions(options, tasks)) == 2 * 11  # a correlation needs two

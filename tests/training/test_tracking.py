"""A run on an MLflow store: its options, its curves, its files; and what happens without one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from emollm.core.errors import ConfigError
from emollm.training.loop import StepReport
from emollm.training.options import TrainConfig
from emollm.training.run_folder import RunFolder
from emollm.training.tracking import tracked
from emollm.training.validation import EvaluationReport


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a store that needs no server
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


def config(tmp_path: Path, **changes: Any) -> TrainConfig:
    values = {"data": "data", "out": tmp_path / "model", "mlflow": f"file:{tmp_path / 'mlflow'}", "epochs": 2.0}
    return TrainConfig.model_validate({**values, **changes})


def step(number: int) -> StepReport:
    return StepReport(
        step=number, num_steps=4, loss=1 / number, learning_rate=0.1, rows=8, tokens=80, seconds=2.0, memory_gib=1.5
    )


def test_a_stopped_run_and_its_continuation_are_one_run(run: RunFolder, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    def stopped() -> None:
        with tracked(config(tmp_path), run, print) as tracker:
            tracker.report(step(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    client = MlflowClient(config(tmp_path).mlflow)
    (experiment,) = [e for e in client.search_experiments() if e.name == "emollm"]
    assert [r.info.status for r in client.search_runs([experiment.experiment_id])] == ["FAILED"]

    with tracked(config(tmp_path), run, print) as tracker:
        tracker.report(step(2))
        tracker.report("a note")
        tracker.report(
            EvaluationReport(step=2, loss=0.4, is_best=True, scores={"V-reg": {"pearson": 0.5, "mae": None}})
        )
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "run.json").write_text("{}")
    (told,) = client.search_runs([experiment.experiment_id])
    assert (told.info.run_name, told.info.status) == ("model", "FINISHED")
    assert told.data.params["epochs"] == "2.0"
    assert told.data.params["cluster.num_workers"] == "2"
    assert [(m.step, m.value) for m in client.get_metric_history(told.info.run_id, "loss")] == [(1, 1.0), (2, 0.5)]
    assert told.data.metrics["rows_per_s"] == 4.0
    assert (told.data.metrics["validation_loss"], told.data.metrics["V-reg/pearson"]) == (0.4, 0.5)
    assert "V-reg/mae" not in told.data.metrics
    assert [file.path for file in client.list_artifacts(told.info.run_id)] == ["run.json"]


def test_a_store_that_fails_later_is_told_once_and_stops_nothing(run: RunFolder, tmp_path: Path) -> None:
    notes: list[str] = []
    with tracked(config(tmp_path), run, notes.append) as tracker:
        (tmp_path / "mlflow").rename(tmp_path / "gone")
        (tmp_path / "mlflow").write_text("")
        tracker.report(step(1))
        tracker.report(step(2))
    assert len(notes) == 1 and "nothing more is logged to MLflow" in notes[0]


def test_user_errors_are_clear(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("")
    with (
        pytest.raises(ConfigError, match=r"--mlflow file:.*taken"),
        tracked(config(tmp_path, mlflow=f"file:{tmp_path / 'taken'}"), run, print),
    ):
        pass
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"emollm\[mlflow\]"), tracked(config(tmp_path), run, print):
        pass
    with tracked(config(tmp_path, mlflow=None), run, print) as tracker:
        tracker.report(step(1))

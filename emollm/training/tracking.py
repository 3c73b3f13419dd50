"""Logs a run to MLflow, in addition to its files. An error of MLflow never stops a training."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emollm.core.errors import ConfigError
from emollm.training.loop import StepReport
from emollm.training.options import TrainConfig
from emollm.training.run_folder import RunFolder
from emollm.training.validation import EvaluationReport

_EXPERIMENT = "emollm"
_FILES = ("affect.json", "run.json", "metrics.jsonl", "evaluations.jsonl", "curves.png")


class Tracker:
    """Passes reports to a run on an MLflow server; without a client it does nothing."""

    def __init__(self, client: Any, run_id: str, on_note: Callable[[str], None]) -> None:
        self._client, self._run_id, self._on_note = client, run_id, on_note

    def report(self, report: Any) -> None:
        """Log a `StepReport` or `EvaluationReport` as metrics; other reports are ignored."""
        if isinstance(report, StepReport):
            self._log(
                report.step,
                loss=report.loss,
                learning_rate=report.learning_rate,
                rows_per_s=report.rows / report.seconds,
                tokens_per_s=report.tokens / report.seconds,
                memory_gib=report.memory_gib,
            )
        elif isinstance(report, EvaluationReport):
            scores = {
                f"{task}/{name}": value
                for task, named in report.scores.items()
                for name, value in named.items()
                if value is not None
            }
            self._log(report.step, validation_loss=report.loss, **scores)

    def finish(self, folder: Path | None) -> None:
        """End the run and log files of the model directory; None: the run failed."""

        def end() -> None:
            for path in (folder / name for name in _FILES) if folder else ():
                if path.is_file():
                    self._client.log_artifact(self._run_id, str(path))
            self._client.set_terminated(self._run_id, "FINISHED" if folder else "FAILED")

        self._try(end)

    def _log(self, step: int, **values: float) -> None:
        def log() -> None:
            from mlflow.entities import Metric

            now_ms = int(time.time() * 1000)
            self._client.log_batch(self._run_id, [Metric(name, value, now_ms, step) for name, value in values.items()])

        self._try(log)

    def _try(self, action: Callable[[], None]) -> None:
        if self._client is None:
            return
        try:
            action()
        except Exception as error:  # a server can fail in many ways, and none of them must stop the training
            self._client = None
            self._on_note(f"warning: nothing more is logged to MLflow: {type(error).__name__}: {error}")


@contextmanager
def tracked(config: TrainConfig, run: RunFolder, on_note: Callable[[str], None]) -> Iterator[Tracker]:
    """A run on the server that `config.mlflow` names; the previous run if this training is continued.

    Raises ConfigError if MLflow is not installed or the server cannot be reached.
    """
    tracker = Tracker(*_open(config, run), on_note) if config.mlflow else Tracker(None, "", on_note)
    try:
        yield tracker
    except BaseException:
        tracker.finish(None)
        raise
    tracker.finish(config.out)


def _open(config: TrainConfig, run: RunFolder) -> tuple[Any, str]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # disable MLflow's telemetry
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise ConfigError("--mlflow needs a package: pip install 'emollm[mlflow]'") from None
    record = run.path / "mlflow.json"
    try:
        client = MlflowClient(tracking_uri=config.mlflow)
        if record.is_file():
            run_id = json.loads(record.read_text(encoding="utf-8"))
            client.set_terminated(run_id, "RUNNING")
            return client, run_id
        found = client.get_experiment_by_name(_EXPERIMENT)
        experiment = found.experiment_id if found else client.create_experiment(_EXPERIMENT)
        run_id = client.create_run(experiment, run_name=config.out.name).info.run_id
        for name, value in _flat(config.model_dump(mode="json")):
            client.log_param(run_id, name, value)
    except Exception as error:  # requests', urllib3's and MLflow's own
        raise ConfigError(f"--mlflow {config.mlflow}: {type(error).__name__}: {str(error).splitlines()[0]}") from None
    record.write_text(json.dumps(run_id), encoding="utf-8")
    return client, run_id


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

"""What dies is taken up again: a worker, the job, with other workers. Real Ray Train, real SIGKILL."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch.multiprocessing as mp

from emollm.core.errors import DataError
from emollm.core.options import with_values
from emollm.training.loop import StepReport
from emollm.training.options import TrainConfig
from emollm.training.ray_train import fit
from emollm.training.run_folder import read_lines
from tests.conftest import ROOT
from tests.ray_cluster import ENV
from tests.training.drive import HELD_AT, hold_workers
from tests.training.ranks import options, run_cases
from tests.waiting import wait_for

pytestmark = pytest.mark.ray

STEPS = 12


def a_run(base: Path, data: Path, out: Path, **changes: Any) -> TrainConfig:
    settings = {"max_rows": 16 * STEPS, "checkpoint_steps": 2, "lora_dropout": 0.2, "method": "lora"}
    return options(base, data, out=out, **{**settings, "cluster": {"num_workers": 2}, **changes})


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_lines(out / "metrics.jsonl")]


@pytest.fixture(scope="module")
def undisturbed(tiny_base: Path, sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of the run on two processes without Ray, which nobody kills."""
    out = tmp_path_factory.mktemp("undisturbed")
    settings = json.loads(a_run(tiny_base, sample_data, out / "model").model_dump_json(exclude={"cluster"}))
    mp.spawn(run_cases, (str(out / "store"), [("run", settings)], str(out)), nprocs=2)
    return list(json.loads((out / "run.json").read_text())["losses"])


def test_a_killed_worker_is_started_again_and_the_curve_is_the_same(
    local_ray: None,
    tiny_base: Path,
    sample_data: Path,
    tmp_path: Path,
    undisturbed: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(*hold_workers())
    killed, notes = [], []

    def on_step(report: StepReport) -> None:
        if report.step == HELD_AT and not killed:
            worker = next(p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in _title(p))
            worker.send_signal(signal.SIGKILL)
            killed.append(worker.pid)

    out = tmp_path / "model"
    fit(a_run(tiny_base, sample_data, out), on_step=on_step, on_note=notes.append)
    assert killed
    assert any(note.startswith("continuing after step") for note in notes)
    # Each step once. A step that is lost, or other dropout, moves a loss by more than 1e-3.
    assert losses(out) == pytest.approx(undisturbed, rel=1e-6)
    assert list(tmp_path.iterdir()) == [out]


def test_a_killed_job_goes_on_with_another_number_of_workers(
    local_ray: None, tiny_base: Path, sample_data: Path, tmp_path: Path, undisturbed: list[float]
) -> None:
    out = tmp_path / "model"
    config = a_run(tiny_base, sample_data, out)
    file, hold = tmp_path / "options.json", tmp_path / "hold"
    file.write_text(config.model_dump_json())
    hold.touch()
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.drive", str(file), str(hold)]
    run = tmp_path / ".model.training"
    # In a session of its own: its private Ray must die with it, not with the tests.
    with subprocess.Popen(command, cwd=ROOT, env={**ENV, "PYTHONPATH": str(ROOT)}) as job:
        wait_for(lambda: list((run / "checkpoints").glob("step-*")) or job.poll() is not None)
        job.kill()
    assert list((run / "checkpoints").glob("step-*"))
    assert not out.exists()

    with pytest.raises(DataError, match=r"has a stopped run with learning_rate 0.003, not 0.01.*--overwrite"):
        fit(with_values(config, learning_rate=0.01))
    notes: list[str] = []
    fit(with_values(config, cluster={"num_workers": 1}, zero_stage=0), on_note=notes.append)
    assert any(note.startswith("continuing after step") for note in notes)
    # Other workers add up in another order, and draw other dropout: the steps done before are the same.
    done = int(notes[0].rsplit(" ", 1)[1])
    assert losses(out)[:done] == pytest.approx(undisturbed[:done], rel=1e-6)
    assert len(losses(out)) == STEPS
    assert json.loads((out / "run.json").read_text())["summary"]["steps"] == STEPS
    assert not run.exists()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""

"""The whole road on a real local Ray: data, training, evaluation, annotation."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from emollm.annotation.pipeline import AnnotateConfig, annotate_corpus
from emollm.core.card import read_card
from emollm.core.errors import DataError, ModelError, TrainingError
from emollm.core.folders import read_run
from emollm.core.options import ClusterConfig
from emollm.data.aaid import SAMPLES
from emollm.evaluation.options import EvaluateConfig
from emollm.evaluation.run import evaluate
from emollm.training.loop import StepReport
from emollm.training.options import TrainConfig
from emollm.training.ray_train import fit
from tests.ports import beyond_loopback

pytestmark = pytest.mark.ray

ONE = ClusterConfig(num_workers=1)


def test_road(local_ray: None, tmp_path: Path, sample_data: Path, tiny_base: Path) -> None:
    model = tmp_path / "model"
    steps: list[StepReport] = []
    open_ports: list[str] = []

    def on_step(report: StepReport) -> None:
        steps.append(report)
        if report.step == 2:
            open_ports.extend(beyond_loopback())

    summary = fit(
        TrainConfig(
            data=sample_data, out=model, base=str(tiny_base), method="lora", max_rows=64, global_batch_size=16,
            micro_batch_size=4, learning_rate=1e-2, epochs=8.0, num_evaluations=1, validation_rows=8, cluster=ONE,
        ),
        on_step=on_step,
    )  # fmt: skip
    assert open_ports == []
    assert [report.step for report in steps] == list(range(1, 33))
    # An epoch is four steps: the last against the first, on the same rows.
    assert sum(report.loss for report in steps[-4:]) < 0.9 * sum(report.loss for report in steps[:4])
    assert summary["reload_difference"] < 1e-2
    card = read_card(model)
    assert (card.adapter, card.base.name) == ("lora", str(tiny_base))
    assert {task.name for task in card.tasks} == {"EI-reg", "EI-oc", "V-reg", "V-oc", "E-c"}
    run = read_run(model)
    assert run is not None
    assert run["config"]["learning_rate"] == 1e-2
    assert run["config"]["cluster"]["gpus_per_worker"] == 1.0  # Ray's; the device is what PyTorch sees
    logged = [json.loads(line)["loss"] for line in (model / "metrics.jsonl").read_text().splitlines()]
    assert logged == [report.loss for report in steps]
    assert {p.name for p in tmp_path.iterdir()} == {"model"}

    results = evaluate(
        EvaluateConfig(
            model=str(model), data=sample_data, tasks=("V-oc", "E-c"), max_rows=4, out=tmp_path / "eval", cluster=ONE
        )
    ).main
    assert {result.task: result.rows for result in results} == {"V-oc": 4, "E-c": 4}
    predictions = pq.read_table(tmp_path / "eval" / "predictions.parquet")
    assert predictions.num_rows == 8
    assert all(
        (row["error"] is None) == (row["number"] is not None or row["labels"] is not None)
        for row in predictions.to_pylist()
    )

    annotated = tmp_path / "annotated"
    annotate_corpus(
        AnnotateConfig(
            model=str(model), input=SAMPLES / "posts.jsonl", out=annotated, tasks=("V-oc",), max_posts=6, batch_size=2,
            cluster=ONE,
        )
    )  # fmt: skip
    ids = [f"post-{n:03d}" for n in range(1, 7)]
    assert sorted(pq.read_table(annotated)["id"].to_pylist()) == ids


def test_a_failed_training_tells_the_workers_own_error_and_leaves_nothing(
    local_ray: None, tmp_path: Path, sample_data: Path, tiny_base: Path
) -> None:
    config = TrainConfig(
        data=sample_data, out=tmp_path / "model", base=str(tiny_base), method="full", max_rows=64,
        global_batch_size=16, learning_rate=1e30, max_gradient_norm=1e30, cluster=ONE,
    )  # fmt: skip
    with pytest.raises(TrainingError, match=r"at step \d.*lower --learning-rate"):
        fit(config)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_work_is_refused_before_any_worker_starts(tmp_path: Path, sample_data: Path) -> None:
    with pytest.raises(DataError, match="emollm build-data"):
        fit(TrainConfig(data=tmp_path / "none", out=tmp_path / "model"))
    with pytest.raises(ModelError, match="unknown base model 'smol'"):
        fit(TrainConfig(data=sample_data, out=tmp_path / "model", base="smol"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x").touch()
    with pytest.raises(DataError, match="choose another --out"):
        fit(TrainConfig(data=sample_data, out=tmp_path / "model"))

"""Ray Train around the loop, for `emollm train`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from emollm.core.bases import anywhere
from emollm.core.errors import ConfigError, DataError, EmollmError, TrainingError
from emollm.core.folders import check_new, new_folder, write_run
from emollm.core.options import with_values
from emollm.runtime.placement import check_resources, with_gpus
from emollm.runtime.pools import on_a_worker, reports_to
from emollm.runtime.session import ray_session
from emollm.training.distil import AskTeacher
from emollm.training.options import TrainConfig
from emollm.training.rows import training_rows
from emollm.training.run_folder import EVALUATIONS_FILE, RunFolder, read_lines, run_folder
from emollm.training.start import with_start


def fit(
    config: TrainConfig,
    *,
    on_step: Callable[[Any], None] = lambda _: None,
    on_evaluation: Callable[[Any], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
    ask_teacher: AskTeacher | None = None,
) -> dict[str, Any]:
    """Fine-tune and write the model directory; returns a summary.

    `on_step` gets each `loop.StepReport`, `on_evaluation` each `validation.EvaluationReport`, `on_note` other messages
    for the user: that a stopped run continues, that a checkpoint was damaged. After a restart steps may be reported
    again. User errors are checked before Ray starts, as far as possible. The model directory
    appears complete or not at all; a run that stops keeps its checkpoints, and the same call continues from them.
    """
    config = prepared(config)
    from emollm.training.tracking import tracked

    with run_folder(config) as run, tracked(config, run, on_note) as tracker, ray_session(config.cluster):
        config = with_values(config, cluster=with_gpus(config.cluster))
        check_resources(config.cluster, what="training workers")
        from emollm.training.worker import dispatch, raise_written_error

        def receive(report: Any) -> None:
            tracker.report(report)
            dispatch(report, on_step=on_step, on_evaluation=on_evaluation, on_note=on_note)

        with reports_to(receive) as queue, tempfile.TemporaryDirectory(prefix="ray-", dir=run.path) as storage:
            start = _starting_heads(config, run, ask_teacher)
            try:
                _run_trainer(config, run, storage, queue, start)
            finally:
                raise_written_error(run)
        return finished(config, run)


def prepared(config: TrainConfig) -> TrainConfig:
    """The options with absolute paths and resolved defaults; raises user errors."""
    from emollm.models.load import locate_base

    config = with_start(config)
    data = config.data
    assert data is not None  # only a frozen base can be trained without data, and that is not done here
    check_new(config.out.absolute(), overwrite=config.overwrite)
    if training_rows(config).num_rows == 0:
        raise DataError(f"{config.data}/train.parquet has no rows to train on")
    if config.num_evaluations != 0:
        held_out = _validation_rows(config)
        if not held_out and (config.num_evaluations or config.patience):
            raise DataError(
                f"{config.data}/validation.parquet has no rows for --num-evaluations and --patience; build the data "
                "with a validation split, or pass --num-evaluations 0 and no --patience"
            )
        config = with_values(config, num_evaluations=config.num_evaluations or (4 if held_out else 0))
    elif config.patience or config.metrics_every:
        raise ConfigError("--patience and --metrics-every need evaluations, and --num-evaluations is 0")
    # Workers may run in another folder; and the embedded base is unpacked here, once, where its errors are visible.
    locate_base(config.base)
    return with_values(config, data=data.absolute(), out=config.out.absolute(), base=anywhere(config.base))


def _validation_rows(config: TrainConfig) -> int:
    assert config.data is not None
    if not (config.data / "validation.parquet").is_file():
        return 0
    return int(training_rows(config, "validation").num_rows)


def finished(config: TrainConfig, run: RunFolder) -> dict[str, Any]:
    """Move the model from the run's folder to `out`; returns the summary."""
    from emollm.training.curves import draw_curves

    steps, evaluations = read_lines(run.metrics), read_lines(run.evaluations)
    outcome = json.loads(run.outcome.read_text(encoding="utf-8"))
    summary = {
        "steps": steps[-1]["step"],
        "planned_steps": steps[-1]["num_steps"],
        "first_loss": steps[0]["loss"],
        "last_loss": sum(s["loss"] for s in steps[-5:]) / len(steps[-5:]),
        "seconds": sum(s["seconds"] for s in steps),
        "rows": sum(s["rows"] for s in steps),
        "tokens": sum(s["tokens"] for s in steps),
        "memory_gib": max(s["memory_gib"] for s in steps),
        "best_step": outcome["best_step"],
        "best_validation_loss": min((e["loss"] for e in evaluations if e["is_best"]), default=None),
        "scores": next((e["scores"] for e in reversed(evaluations) if e["scores"]), {}),
        "trainable_parameters": outcome["trainable_parameters"],
        "reload_difference": outcome["reload_difference"],
    }
    with new_folder(config.out, overwrite=config.overwrite) as folder:
        for path in (*run.model.iterdir(), run.metrics, run.evaluations):
            path.rename(folder / path.name)
        if not evaluations:
            (folder / EVALUATIONS_FILE).unlink()
        draw_curves(folder / "curves.png", steps, evaluations)
        manifest = data_manifest(config.data) if config.data else {}
        write_run(folder, job="train", config=config.model_dump(mode="json"), data=manifest, summary=summary)
    return summary


def data_manifest(folder: Path) -> dict[str, Any]:
    """The rows and hashes of the training files."""
    from emollm.data.manifest import file_hashes

    paths = [path for path in (folder / f"{split}.parquet" for split in ("train", "validation")) if path.is_file()]
    rows = {path.stem: pq.read_metadata(path).num_rows for path in paths}
    return {"folder": str(folder), "rows": rows, "sha256": file_hashes(paths, roots={"data": folder})}


def _starting_heads(config: TrainConfig, run: RunFolder, ask_teacher: AskTeacher | None) -> Any:
    """The start of training with heads; None for a run without heads."""
    if config.objective == "generate":
        return None
    from emollm.training.starting_heads import starting_heads

    return starting_heads(config, ask_teacher=ask_teacher, keep=run.start)


def _run_trainer(config: TrainConfig, run: RunFolder, storage: str, queue: Any, start: Any) -> None:
    """Run Ray Train to its end; the model directory is then in the run's folder."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

    cluster = config.cluster
    from emollm.models.device import resolve_device
    from emollm.training.rendezvous import torch_config

    use_gpu = cluster.gpus > 0
    # If Ray was told of a GPU that does not exist, training runs on the CPU.
    device = on_a_worker(cluster, resolve_device) if use_gpu else "cpu"
    resources = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus}
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "run": str(run.path),
            "queue": queue,
            "start": start,
        },
        scaling_config=ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=use_gpu,
            resources_per_worker={name: amount for name, amount in resources.items() if amount},
        ),
        run_config=RunConfig(
            name="run", storage_path=storage, failure_config=FailureConfig(max_failures=config.max_failures)
        ),
        torch_config=torch_config("gloo" if device == "cpu" else "nccl", storage),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        # The first worker's own exception; the others only report that they lost it.
        causes = [getattr(e, "_base_exc", e) for e in error.worker_failures.values()]
        for cause in causes:
            if isinstance(cause, EmollmError):
                raise cause from None
        kept = f"; run the same command to continue from {run.checkpoints}" if run.has_checkpoint() else ""
        raise TrainingError(f"a training worker failed: {type(causes[0]).__name__}: {causes[0]}{kept}") from error
    except TrainingFailedError as error:
        raise TrainingError(f"training failed: {error}") from error


def train_worker(worker_config: dict[str, Any]) -> None:
    """The function of each Ray Train worker."""
    import ray.train
    import torch

    from emollm.training.worker import run_worker

    config = TrainConfig.model_validate(worker_config["config"])
    context = ray.train.get_context()
    # Ray may have been told of a GPU that does not exist; PyTorch knows.
    has_gpu = config.cluster.gpus > 0 and torch.cuda.is_available()
    device = str(ray.train.torch.get_device()) if has_gpu else "cpu"
    if device == "cpu":
        torch.set_num_threads(max(1, int(config.cluster.cpus_per_worker)))
    run_worker(
        config,
        RunFolder(Path(worker_config["run"])),
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=device,
        send=worker_config["queue"].put,
        start=worker_config["start"],
    )

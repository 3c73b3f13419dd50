"""Ray Train around the loop: what `jobs/train.py` runs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from emollm.affect_card import AffectCard
from emollm.bases import anywhere
from emollm.config import with_values
from emollm.errors import DataError, EmollmError, ModelError, TrainingError
from emollm.folders import check_new, new_folder, read_run, write_json, write_run
from emollm.instructions import read_rows
from emollm.ray_session import check_resources, ray_session, reports_to
from emollm.tasks import Task, select_tasks
from emollm.training.config import TrainConfig

METRICS_FILE = "metrics.jsonl"


def fit(config: TrainConfig, *, on_step: Callable[[Any], None] = lambda _: None) -> dict[str, Any]:
    """Fine-tune and write the model directory; `on_step` gets each `loop.StepReport`. Returns a summary.

    Everything a user can have got wrong is checked before Ray starts. The model directory appears whole or not
    at all.
    """
    from emollm.models import locate_base

    check_new(config.out.absolute(), overwrite=config.overwrite)
    if training_rows(config).num_rows == 0:
        raise DataError(f"{config.data}/train.parquet has no rows to train on")
    # Workers may stand in another folder; and the embedded base is made here, once, with its errors in view.
    locate_base(config.base)
    assert config.data is not None  # as the options say
    config = with_values(config, data=config.data.absolute(), out=config.out.absolute(), base=anywhere(config.base))

    with ray_session(config.cluster):
        check_resources(config.cluster, what="training workers")
        with new_folder(config.out, overwrite=config.overwrite) as folder:
            reports: list[dict[str, Any]] = []

            def receive(report: Any) -> None:
                reports.append(asdict(report))
                on_step(report)

            with tempfile.TemporaryDirectory(prefix=f".{config.out.name}.train-", dir=config.out.parent) as storage:
                start = _starting_heads(config)
                with reports_to(receive) as queue:
                    checkpoint = _run_trainer(config, storage, queue, start)
                checkpoint.to_directory(folder)
            with (folder / METRICS_FILE).open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(report) + "\n" for report in reports)
            verified = json.loads((folder / "verified.json").read_text(encoding="utf-8"))
            (folder / "verified.json").unlink()
            summary = {
                "steps": reports[-1]["num_steps"],
                "first_loss": reports[0]["loss"],
                "last_loss": sum(r["loss"] for r in reports[-5:]) / len(reports[-5:]),
                "seconds": sum(r["seconds"] for r in reports),
                "rows": sum(r["rows"] for r in reports),
                "tokens": sum(r["tokens"] for r in reports),
                **verified,
            }
            write_run(folder, job="train", config=config.model_dump(mode="json"), summary=summary)
    return summary


def training_rows(config: TrainConfig) -> pa.Table:
    """The rows of the data folder that this run trains on, in their order there."""
    assert config.data is not None
    table = read_rows(config.data, "train")
    if config.tasks is not None:
        names = [task.name for task in select_tasks(config.tasks, data_tasks(config.data))]
        table = table.filter(pc.is_in(table["task"].cast(pa.string()), pa.array(names)))
    if config.num_wordings is not None:
        table = table.filter(pc.less(table["template"], config.num_wordings))
    return table.slice(0, config.max_rows)


def data_tasks(folder: Path) -> tuple[Task, ...]:
    """The tasks of a data folder, as `build_data` wrote them down."""
    return tuple(Task.model_validate(task) for task in (read_run(folder) or {}).get("tasks", []))


def training_tasks(config: TrainConfig) -> tuple[Task, ...]:
    """The tasks that this run trains."""
    assert config.data is not None
    tasks = data_tasks(config.data)
    return tasks if config.tasks is None else select_tasks(config.tasks, tasks)


def training_facts(config: TrainConfig) -> dict[str, Any]:
    """What the card tells of where a model came from."""
    manifest = (read_run(config.data) or {}) if config.data else {}
    return {
        "data": {split: part.get("rows") for split, part in manifest.get("manifest", {}).items()},
        "config": config.model_dump(mode="json", exclude={"cluster", "overwrite"}),
    }


def _starting_heads(config: TrainConfig) -> Any:
    """Where training with heads begins; None for a run without."""
    if config.objective == "answers":
        return None
    from emollm.training.frozen import starting_heads

    return starting_heads(config)


def _run_trainer(config: TrainConfig, storage: str, queue: Any, start: Any) -> Any:
    """Run Ray Train to its end; return the checkpoint that holds the model directory."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

    cluster = config.cluster
    use_gpu = cluster.gpus_per_worker > 0
    resources = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker}
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"config": config.model_dump(mode="json"), "queue": queue, "start": start},
        scaling_config=ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=use_gpu,
            resources_per_worker={name: amount for name, amount in resources.items() if amount},
        ),
        run_config=RunConfig(name="run", storage_path=storage),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
    )
    try:
        return trainer.fit().checkpoint
    except WorkerGroupError as error:
        # The first worker's own exception; the others only report that they lost it.
        causes = [getattr(e, "_base_exc", e) for e in error.worker_failures.values()]
        for cause in causes:
            if isinstance(cause, EmollmError):
                raise cause from None
        raise TrainingError(f"a training worker failed: {type(causes[0]).__name__}: {causes[0]}") from error
    except TrainingFailedError as error:
        raise TrainingError(f"training failed: {error}") from error


def train_worker(worker_config: dict[str, Any]) -> None:
    """What each Ray Train worker does: load, train, and on rank 0 save and verify."""
    import ray.train
    import torch

    from emollm.models import LoadedModel, attach_lora, load_base, prompt_encoder, save_model, verify_saved
    from emollm.training.batches import encode_rows
    from emollm.training.joint import Joint, verify_heads
    from emollm.training.loop import StepReport, train
    from emollm.training.objective import Answers

    config = TrainConfig.model_validate(worker_config["config"])
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = "cpu" if config.cluster.gpus_per_worker == 0 else str(ray.train.torch.get_device())
    if device == "cpu":
        torch.set_num_threads(max(1, int(config.cluster.cpus_per_worker)))
    torch.manual_seed(config.seed)

    base = load_base(config.base, device=device)
    _check_objective(config, base.card)
    model = base.model
    if config.method == "lora":
        model = attach_lora(model, rank=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout)
    card = AffectCard(
        name=config.out.name,
        base=base.card.base,
        adapter="lora" if config.method == "lora" else None,
        layout=base.card.layout,
        tasks=training_tasks(config),
        max_post_tokens=config.max_post_tokens,
        training=training_facts(config),
    )
    loaded = LoadedModel(model, base.tokenizer, card)
    table, joint = training_rows(config), None
    rows = encode_rows(table, prompt_encoder(loaded)) if config.objective != "heads" else []
    if config.objective != "answers":
        joint = Joint(
            loaded, worker_config["start"], with_answers=Answers(loaded, device).collate if rows else None,
            loss_weight=config.heads.loss_weight, device=device,
        )  # fmt: skip
        rows = joint.rows(table, rows)

    def on_step(report: StepReport) -> None:
        if rank == 0:
            worker_config["queue"].put(report)

    train(loaded, rows, config, rank=rank, world_size=world_size, device=device, on_step=on_step, objective=joint)

    if rank != 0:
        ray.train.report({})
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        difference = 0.0
        if joint is not None:
            bank, heads = joint.finished()
            loaded = replace(loaded, card=joint.card(heads, writes_answers=config.objective == "both"))
            bank.save(folder)
        save_model(folder, loaded)
        if joint is not None:
            difference = verify_heads(folder, loaded, joint, bank)
        if config.objective != "heads":
            difference = max(difference, verify_saved(folder, loaded))
        write_json(folder / "verified.json", {"trainable_parameters": trainable, "reload_difference": difference})
        ray.train.report({}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _check_objective(config: TrainConfig, card: AffectCard) -> None:
    if card.base.architecture == "encoder" and config.objective != "heads":
        raise ModelError(f"{config.base} is an encoder and writes no answers; train it with --objective heads")

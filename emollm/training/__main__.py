"""Train without Ray, alone or under torchrun: torchrun --nproc-per-node 2 -m emollm.training --data DIR --out DIR

The options are those of `emollm train`; the workers are the processes there are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from emollm.core.errors import ConfigError, EmollmError
from emollm.core.options import read_config, run_job
from emollm.training.options import TrainConfig


def main(argv: Sequence[str]) -> None:
    world_size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    config = read_config(TrainConfig, [*argv, "--cluster.num-workers", str(world_size)], prog="emollm.training")
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1")):
        os.environ.setdefault(name, value)
    if config.freeze:
        raise ConfigError("a frozen base is read with Ray: emollm train --objective heads --freeze ...")
    if config.plan:
        raise ConfigError("--plan needs no processes: emollm train --plan ...")

    import torch
    import torch.distributed as dist
    from rich.console import Console

    from emollm.training.ray_train import finished, prepared
    from emollm.training.report import summary_report, training_bar
    from emollm.training.run_folder import RunFolder, run_folder
    from emollm.training.tracking import tracked
    from emollm.training.worker import dispatch, run_worker

    config = prepared(config)
    on_gpu = config.cluster.gpus_per_worker > 0
    device = f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else "cpu"
    if on_gpu:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, int(config.cluster.cpus_per_worker)))
    backend = "nccl" if on_gpu else "gloo"
    if "MASTER_PORT" in os.environ:
        # The others wait while the first reads all texts for the heads; who waits for a dead one is ended by torchrun.
        dist.init_process_group(backend, timeout=timedelta(days=1) if config.objective != "answers" else None)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        if rank != 0:
            dist.barrier()  # until the run's folder is there
            folder = RunFolder(config.out.with_name(f".{config.out.name}.training"))
            start = _shared_start(config, rank, device)
            run_worker(
                config, folder, rank=rank, world_size=world_size, device=device, send=lambda _: None, start=start
            )
            return
        with run_folder(config) as run, training_bar() as bar, tracked(config, run, bar.note) as tracker:

            def send(report: Any) -> None:
                tracker.report(report)
                dispatch(report, on_step=bar.step, on_evaluation=bar.evaluation, on_note=bar.note)

            dist.barrier()
            start = _shared_start(config, rank, device)
            run_worker(config, run, rank=0, world_size=world_size, device=device, send=send, start=start)
            summary = finished(config, run)
        Console(highlight=False).print(summary_report(config, summary))
    finally:
        dist.destroy_process_group()


def _shared_start(config: TrainConfig, rank: int, device: str) -> Any:
    """Where training with heads begins, as the first process found it; None for a run without. Collective.

    An error of ours there is raised in all of them.
    """
    if config.objective == "answers":
        return None
    import torch.distributed as dist

    from emollm.training.frozen import starting_heads

    shared: list[Any] = [None]
    if rank == 0:
        try:
            shared = [starting_heads(config, device=device)]
        except EmollmError as error:
            shared = [error]
    dist.broadcast_object_list(shared, src=0)
    if isinstance(shared[0], EmollmError):
        raise shared[0]
    return shared[0]


if __name__ == "__main__":
    run_job(main)

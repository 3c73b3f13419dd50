"""Train without Ray, alone or under torchrun: torchrun --nproc-per-node 2 -m emollm.training --data DIR --out DIR

The options are those of jobs/train.py; the workers are the processes there are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from emollm.config import read_config, run_job
from emollm.errors import ConfigError
from emollm.training.config import TrainConfig


def main(argv: Sequence[str]) -> None:
    world_size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    config = read_config(TrainConfig, [*argv, "--cluster.num-workers", str(world_size)], prog="emollm.training")
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1")):
        os.environ.setdefault(name, value)
    if config.objective != "answers":
        raise ConfigError("heads are fitted with Ray: python jobs/train.py --objective heads ...")
    if config.plan:
        raise ConfigError("--plan needs no processes: python jobs/train.py --plan ...")

    import torch
    import torch.distributed as dist
    from rich.console import Console

    from emollm.training.fit import finished, prepared
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
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        if rank != 0:
            dist.barrier()  # until the run's folder is there
            folder = RunFolder(config.out.with_name(f".{config.out.name}.training"))
            run_worker(config, folder, rank=rank, world_size=world_size, device=device, send=lambda _: None)
            return
        with run_folder(config) as run, training_bar() as bar, tracked(config, run, bar.note) as tracker:

            def send(report: Any) -> None:
                tracker.report(report)
                dispatch(report, on_step=bar.step, on_evaluation=bar.evaluation, on_note=bar.note)

            dist.barrier()
            run_worker(config, run, rank=0, world_size=world_size, device=device, send=send)
            summary = finished(config, run)
        Console(highlight=False).print(summary_report(config, summary))
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    run_job(main)

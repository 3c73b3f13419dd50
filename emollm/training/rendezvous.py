"""Rendezvous of training workers on a private Ray through a file, so that no port is open beyond loopback.

PyTorch's TCPStore, which Ray Train starts on the first worker, binds to every address and needs no token. On a
private Ray all workers share a machine, so a file is sufficient; on a cluster Ray Train's own rendezvous is used.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend

from emollm.runtime.session import LOOPBACK


def torch_config(backend: str, folder: str) -> TorchConfig:
    """Ray Train's settings of the process group. `folder` is shared by all workers and removed with the run."""
    if ray.util.get_node_ip_address() == LOOPBACK:
        return _MeetInFile(backend=backend, folder=folder)
    return TorchConfig(backend=backend)


@dataclass
class _MeetInFile(TorchConfig):  # type: ignore[misc]
    folder: str = ""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _FileBackend


class _FileBackend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: _MeetInFile) -> None:
        worker_group.execute(_set_torch_distributed_env_vars)
        # A new file for each start: entries of a dead worker would be taken for those of a live one.
        where = f"file://{backend_config.folder}/rendezvous-{uuid.uuid4().hex}"
        size = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _setup_torch_process_group, backend=backend_config.backend, world_rank=rank, world_size=size,
                    init_method=where, timeout_s=backend_config.timeout_s,
                )
                for rank in range(size)
            ]
        )  # fmt: skip

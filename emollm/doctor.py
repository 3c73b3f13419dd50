"""Check a Ray cluster before a long run and suggest remedies: emollm doctor --cluster.profile a100x2"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import secrets
import shutil
import socket
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from emollm.core.bases import BASE_PREFIX, BASES, bundled
from emollm.core.errors import ResourceError
from emollm.core.options import ClusterConfig, Config, ModelRef, read_config, run_job
from emollm.runtime.placement import LIGHT_TASK_CPUS, alive_nodes, lacks, with_gpus
from emollm.runtime.session import ray_session

Status = Literal["ok", "warning", "failed", "skipped"]
_PACKAGES = ("ray", "emollm", "torch")
_LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""The oldest branch of NVIDIA's driver for each major version of CUDA (CUDA compatibility guide, minor versions)."""
_MEGABYTES = 64
"""MB of float32 values that the workers sum: enough for NCCL to use its fastest transport between machines."""


class DoctorConfig(Config):
    """Check a Ray cluster before a long run: exit status 0 if no check failed, 1 if one did."""

    job: Literal["train", "annotate", "evaluate", "serve"] = "annotate"
    """The job to check for. Training needs the workers to reach each other; the others a CPU for reading."""
    model: ModelRef | None = None
    """Model directory, registry name or hub id that the job will use. None: not checked."""
    timeout_s: float = Field(300.0, gt=0)
    """Seconds to wait for the nodes, and again for the workers."""
    format: Literal["text", "json"] = "text"
    """How to print the findings."""
    cluster: ClusterConfig = ClusterConfig()
    """The job's own cluster section: workers, their CPUs and GPUs, storage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check; `remedy` is what to do about it."""

    check: str
    status: Status
    message: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts about one node, collected on it."""

    node: str
    versions: dict[str, str | None]
    asks_for_token: bool
    token_is_private: bool
    storage_error: str | None = None
    sees_driver: bool = True
    """Whether the node's storage has the file that the driver wrote."""
    model: str | None = None
    """Digest of the model's card or config; "" if its folder is missing; None if no folder is to be checked."""


def look(node: str, storage: str | None, model: str | None) -> dict[str, Any]:
    """`Facts` of the node that it runs on. It needs only the standard library and Ray, since a node may lack emollm."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    versions: dict[str, str | None] = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    error, sees_driver, digest = None, True, None
    if storage is not None:
        try:
            sees_driver = (Path(storage) / "driver").is_file()
            if sees_driver:
                (Path(storage) / f"node-{node}").write_bytes(os.urandom(1 << 20))
        except OSError as problem:
            error = f"{problem.strerror}: {problem.filename}"
    if model is not None:
        cards = [card for name in ("affect.json", "config.json") if (card := Path(model) / name).is_file()]
        digest = hashlib.sha256(cards[0].read_bytes()).hexdigest() if cards else ""
    return {
        "node": node,
        "versions": versions,
        "asks_for_token": is_token_auth_enabled(),
        "token_is_private": not (token.is_file() and stat.S_IMODE(token.stat().st_mode) & 0o077),
        "storage_error": error,
        "sees_driver": sees_driver,
        "model": digest,
    }


def driver_for(cuda: str | None, loaded: str) -> str:
    """What the loaded NVIDIA driver, as /proc/driver/nvidia/version tells it, is to a torch built for `cuda`."""
    found = re.search(r"\b(\d{3,})\.\d+", loaded)
    if found is None:
        return "no NVIDIA driver is loaded"
    if cuda is None:
        return f"this torch is built for CPUs alone, beside a driver {found.group()}"
    least = _LEAST_DRIVER.get(int(cuda.partition(".")[0]))
    if least and int(found.group(1)) < least:
        return f"the driver {found.group()} is too old for it: CUDA {cuda} needs {least} or later"
    return f"the driver is {found.group()}"


class Member:
    """A worker with the CPUs and GPUs that the job would use: it computes, and communicates with the others."""

    def address(self) -> str:
        """The address at which the other workers reach this one."""
        import ray

        host = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((host, 0))
            return f"tcp://{host}:{probe.getsockname()[1]}"

    def compute(self, gpus: float) -> str:
        """Compute a matrix product on the device that a job would use; returns the device. Raises RuntimeError."""
        import torch

        if gpus and not torch.cuda.is_available():
            loaded = Path("/proc/driver/nvidia/version")
            driver = driver_for(torch.version.cuda, loaded.read_text() if loaded.is_file() else "")
            raise RuntimeError(f"torch {torch.__version__}, built for CUDA {torch.version.cuda}, sees no GPU; {driver}")
        device = torch.device("cuda" if gpus else "cpu")
        left, right = torch.randn(2, 512, 512, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = (left.to(device, torch.float32) @ right.to(device, torch.float32)).cpu().double()
        if not torch.allclose(found, left @ right, atol=0.2, rtol=1e-2):  # TF32 keeps ten bits of each factor
            raise RuntimeError(f"a matrix product on {device} is off by {(found - left @ right).abs().max():.3g}")
        return torch.cuda.get_device_name() if gpus else "CPU"

    def all_reduce(self, address: str, rank: int, world: int, gpus: float, timeout_s: float) -> float:
        """GB/s of an all-reduce over all workers, as in training. Raises RuntimeError."""
        import torch
        import torch.distributed as dist

        # NCCL does not accept a GPU twice, which workers with a fraction of a GPU would need.
        backend, device = ("nccl", "cuda") if gpus >= 1 else ("gloo", "cpu")
        timeout = timedelta(seconds=timeout_s)
        dist.init_process_group(backend, init_method=address, rank=rank, world_size=world, timeout=timeout)
        try:
            seconds = 0.0
            for _ in range(2):  # the first one connects
                values = torch.full((_MEGABYTES * 250_000,), float(rank + 1), device=device)
                started = time.monotonic()
                dist.all_reduce(values)
                total = values[[0, -1]].tolist()  # waits for the GPU
                seconds = time.monotonic() - started
            if total != [world * (world + 1) / 2] * 2:
                raise RuntimeError(f"the workers' sum is {total[0]:g}, not {world * (world + 1) / 2:g}")
            return _MEGABYTES / 1000 / seconds
        finally:
            dist.destroy_process_group()


def examine(config: DoctorConfig) -> list[Finding]:
    """All findings on the cluster that `config.cluster` names. Raises ResourceError if Ray cannot be reached."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # nodes may lack this folder
    with ray_session(config.cluster):
        cluster = with_gpus(config.cluster)
        folder = _mark(cluster.storage)
        try:
            model = config.model if config.model and _is_folder(config.model) else None
            facts = _ask_nodes(None if isinstance(folder, Finding) else folder, model, config.timeout_s)
            storage = folder if isinstance(folder, Finding) else check_storage(facts, folder)
        finally:
            if isinstance(folder, Path):
                shutil.rmtree(folder, ignore_errors=True)
        light_cpus = 0 if config.job == "train" else LIGHT_TASK_CPUS
        lacking = lacks(alive_nodes(), cluster, "workers", light_cpus=light_cpus)
        workers = [_no_room(lacking, cluster)] if lacking else check_workers(config, cluster)
    message = f"{len(facts)} {'node answers' if len(facts) == 1 else 'nodes answer'}"
    return [
        Finding(check="Ray", status="ok", message=message),
        check_versions(facts),
        check_token(facts),
        storage,
        check_model(facts, config.model),
        *workers,
    ]


def _ask_nodes(storage: Path | None, model: str | None, timeout_s: float) -> list[Facts]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    task = ray.remote(num_cpus=0)(look)
    folder = None if storage is None else str(storage)
    asked = [
        task.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote(
            node["NodeManagerAddress"], folder, model
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    try:
        return [Facts(**found) for found in ray.get(asked, timeout=timeout_s)]
    except ray.exceptions.GetTimeoutError:
        raise ResourceError(
            f"a node did not answer within {timeout_s:g} s; see `ray list nodes` and its logs"
        ) from None


def _mark(storage: Path | None) -> Path | Finding | None:
    """A folder on the storage, with a file that every node must find."""
    if storage is None:
        return None
    folder = storage / f".doctor-{secrets.token_hex(8)}"
    try:
        folder.mkdir()
        (folder / "driver").touch()
    except OSError as error:
        message = f"{storage} cannot be written from here: {error.strerror}"
        return Finding(check="storage", status="failed", message=message, remedy="mount it here too, for this user")
    return folder


def check_versions(facts: Sequence[Facts]) -> Finding:
    """Python, Ray and emollm must be equal on all nodes, or they cannot communicate or give different answers."""
    for name in facts[0].versions:
        by_value: dict[str | None, list[str]] = {}
        for node in facts:
            by_value.setdefault(node.versions[name], []).append(node.node)
        if len(by_value) > 1:
            parts = "; ".join(f"{value or 'none'} on {_some(nodes)}" for value, nodes in by_value.items())
            remedy = "start all nodes from one image (cluster/Dockerfile), or pip install -c constraints.txt on each"
            return Finding(check="versions", status="failed", message=f"{name} differs: {parts}", remedy=remedy)
    same = ", ".join(f"{name} {version}" for name, version in facts[0].versions.items())
    return Finding(check="versions", status="ok", message=f"{same} on every node")


def check_token(facts: Sequence[Facts]) -> Finding:
    """Token authentication must be on, and the token's file private."""
    if without := [node.node for node in facts if not node.asks_for_token]:
        message = f"{_some(without)} require no token: anyone who can reach a port of Ray can run code"
        remedy = "restart Ray with RAY_AUTH_MODE=token and the same token on every node: docs/cluster.md#the-token"
        return Finding(check="token", status="failed", message=message, remedy=remedy)
    if readable := [node.node for node in facts if not node.token_is_private]:
        message = f"other users of {_some(readable)} can read the token"
        return Finding(check="token", status="failed", message=message, remedy="chmod 600 ~/.ray/auth_token there")
    return Finding(check="token", status="ok", message="every node requires it")


def check_storage(facts: Sequence[Facts], folder: Path | None) -> Finding:
    """All nodes must see and write one folder; `folder` is the doctor's own folder in it. None: no storage is named."""
    if folder is None:
        alone = len(facts) == 1
        message = "no --cluster.storage" + ("" if alone else ": give jobs absolute paths that all nodes share")
        return Finding(check="storage", status="skipped" if alone else "warning", message=message)
    if errors := [f"{node.node} ({node.storage_error})" for node in facts if node.storage_error]:
        message, remedy = f"not writable from {_some(errors)}", "mount it there, for the user that Ray runs as"
    elif apart := [n.node for n in facts if not (n.sees_driver and (folder / f"node-{n.node}").is_file())]:
        message = f"another folder on {_some(apart)}"
        remedy = "mount the same file system on every node: NFS, EFS, FSx for Lustre, Filestore"
    else:
        return Finding(check="storage", status="ok", message=f"{folder.parent}: the same and writable on every node")
    return Finding(check="storage", status="failed", message=f"{folder.parent}: {message}", remedy=remedy)


def check_model(facts: Sequence[Facts], model: str | None) -> Finding:
    """The model's folder must be the same on every node, unless the model comes from a package or the hub."""
    name = (model or "").removeprefix(BASE_PREFIX)
    if model is None:
        return Finding(check="model", status="skipped", message="no --model")
    if missing := [node.node for node in facts if node.model == ""]:
        message = f"{_some(missing)}: no model directory at {name}"
    elif len({node.model for node in facts}) > 1:
        message = f"{name} is not the same model on every node"
    elif facts[0].model is None and not bundled(name) and not (name in BASES and BASES[name].package):
        message = f"{name} is downloaded by every worker without a cached copy; a gated model needs HF_TOKEN there"
        return Finding(
            check="model", status="warning", message=message, remedy="copy it to the storage, and name that folder"
        )
    else:
        return Finding(check="model", status="ok", message=f"{name} on every node")
    return Finding(check="model", status="failed", message=message, remedy="copy it to the storage shared by all nodes")


def check_workers(config: DoctorConfig, cluster: ClusterConfig) -> list[Finding]:
    """Start the workers that the job would use: are they placed, do they compute, do they reach each other?"""
    import ray

    world, gpus = cluster.num_workers, cluster.gpus
    actor = ray.remote(num_cpus=cluster.cpus_per_worker, num_gpus=gpus)(Member)
    members = [actor.remote() for _ in range(world)]
    try:
        address = ray.get(members[0].address.remote(), timeout=config.timeout_s)
        devices = sorted(set(ray.get([m.compute.remote(gpus) for m in members], timeout=config.timeout_s)))
        findings = [Finding(check="workers", status="ok", message=f"{world} placed, each computes on {devices[0]}")]
        if len(devices) > 1:
            message = f"{world} placed, on different devices: {', '.join(devices)}"
            findings = [Finding(check="workers", status="warning", message=message, remedy="the slowest sets the pace")]
    except ray.exceptions.GetTimeoutError:
        message = f"{world} workers did not start within {config.timeout_s:g} s: other jobs may use the CPUs and GPUs"
        return [Finding(check="workers", status="failed", message=message, remedy="see `ray status`")]
    except ray.exceptions.RayError as error:
        remedy = "install a driver that fits torch's CUDA (see nvidia-smi), or a torch that fits the driver"
        return [Finding(check="workers", status="failed", message=_last_line(error), remedy=remedy)]
    if world == 1:
        return findings
    backend = "NCCL" if gpus >= 1 else "gloo"
    arguments = (world, gpus, config.timeout_s)
    try:
        sums = [m.all_reduce.remote(address, rank, *arguments) for rank, m in enumerate(members)]
        speed = min(ray.get(sums, timeout=2 * config.timeout_s))
    except ray.exceptions.RayError as error:
        message = f"{backend}: {_last_line(error)}"
        status: Status = "failed" if config.job == "train" else "warning"
        remedy = "let the nodes reach each other on all ports; to debug, set NCCL_DEBUG=INFO and NCCL_SOCKET_IFNAME"
        return [*findings, Finding(check="all-reduce", status=status, message=message, remedy=remedy)]
    message = f"{backend}, {world} workers, {_MEGABYTES} MB at {speed:.2g} GB/s"
    return [*findings, Finding(check="all-reduce", status="ok", message=message)]


def _no_room(lacking: str, cluster: ClusterConfig) -> Finding:
    message, _, remedy = lacking.partition("; lower ")
    if cluster.wait_for_nodes_s:
        waits = "the job will request nodes from the autoscaler and wait"
        return Finding(check="workers", status="warning", message=message, remedy=waits)
    return Finding(check="workers", status="failed", message=message, remedy=f"lower {remedy}")


def _is_folder(model: str) -> bool:
    return model not in BASES and (model.startswith(("/", ".", "~")) or Path(model).is_dir())


def _last_line(error: BaseException) -> str:
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()


def _some(names: Sequence[str], most: int = 4) -> str:
    """A few names, and the number of the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def as_text(findings: Sequence[Finding]) -> str:
    """One line per finding, with its remedy."""
    width = max(len(finding.check) for finding in findings)
    return "\n".join(
        f"{f.status:7}  {f.check:{width}}  {f.message}" + (f"; {f.remedy}" if f.remedy else "") for f in findings
    )


def main(argv: Sequence[str]) -> None:
    config = read_config(DoctorConfig, argv, prog="doctor")
    try:
        findings = examine(config)
    except ResourceError as error:
        remedy = "set RAY_AUTH_MODE=token and the same token on every node"
        findings = [Finding(check="Ray", status="failed", message=str(error), remedy=remedy)]
    passed = all(finding.status != "failed" for finding in findings)
    listed = {"ok": passed, "findings": [asdict(finding) for finding in findings]}
    print(json.dumps(listed, indent=2) if config.format == "json" else as_text(findings))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    run_job(main)

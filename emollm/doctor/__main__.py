"""Check a cluster before a long run, and say what to do: emollm doctor --cluster.profile a100x2"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from emollm.core.bases import BASE_PREFIX, BASES, DEFAULT_MODEL
from emollm.core.errors import ResourceError
from emollm.core.options import ClusterConfig, Config, read_config, run_job
from emollm.doctor import checks
from emollm.doctor.finding import Finding, all_passed, as_json, as_text
from emollm.doctor.probe import Ask, NodeFacts, Probe
from emollm.runtime.placement import LIGHT_TASK_CPUS
from emollm.runtime.session import ray_session


class DoctorConfig(Config):
    """Check a Ray cluster before a long run: exit status 0 if no check failed, 1 if one did."""

    job: Literal["train", "annotate", "evaluate", "serve"] = "annotate"
    """What the cluster shall do; all but training also need a CPU for what feeds the workers."""
    model: str | None = None
    """Model directory, registry name or hub id that the job will use. None: not checked."""
    working_dir: str = "."
    """Folder that `ray job submit --working-dir` will send."""
    min_free_gib: float = Field(20.0, ge=0)
    """Free disk that every node must have where Ray keeps its files, in GiB."""
    min_storage_mb_s: float = Field(50.0, ge=0)
    """Write speed of the storage below which to warn, in MB a second a node."""
    storage_test_mb: int = Field(64, ge=1)
    """What each node writes to the storage and reads again, in MB."""
    max_clock_skew_s: float = Field(2.0, gt=0)
    """How far a node's clock may be off this machine's, in seconds."""
    max_working_dir_mib: float = Field(100.0, gt=0)
    """How much `--working-dir` may send, in MiB."""
    format: Literal["text", "json"] = "text"
    """How to print the findings."""
    cluster: ClusterConfig = ClusterConfig()
    """The job's own cluster section: workers, their CPUs and GPUs, storage."""


def examine(config: DoctorConfig) -> list[Finding]:
    """All findings on the cluster that `config.cluster` names. Raises ResourceError where Ray cannot be reached."""
    with ray_session(config.cluster):
        with _storage_mark(config.cluster.storage) as (nonce, storage_error):
            nodes, offsets = _ask_nodes(config, nonce)
        dashboard_port = _dashboard_port()
    cluster = config.cluster
    return [
        Finding(check="Ray", status="ok", says=f"{len(nodes)} {'node answers' if len(nodes) == 1 else 'nodes answer'}"),
        *checks.check_versions(nodes),
        checks.check_token(nodes),
        checks.check_ports(
            nodes, dashboard_port=dashboard_port, kubernetes="KUBERNETES_SERVICE_HOST" in os.environ
        ),
        checks.check_gpus(nodes, wanted=cluster.gpus),
        checks.check_placement(
            nodes,
            cpus=cluster.cpus_per_worker,
            gpus=cluster.gpus,
            workers=cluster.num_workers,
            spare_cpus=0 if config.job == "train" else LIGHT_TASK_CPUS,
            waits=cluster.wait_for_nodes_s > 0,
        ),
        checks.check_disk(nodes, min_free_gib=config.min_free_gib),
        checks.check_clocks(offsets, max_skew_s=config.max_clock_skew_s),
        storage_error
        or checks.check_storage(nodes, storage=_text(cluster.storage), min_mb_s=config.min_storage_mb_s),
        _model(config, nodes),
        checks.check_working_dir(working_dir_bytes(Path(config.working_dir)), limit_mib=config.max_working_dir_mib),
    ]  # fmt: skip


def _ask_nodes(config: DoctorConfig, nonce: str) -> tuple[list[NodeFacts], dict[str, float]]:
    """What each node says of itself, and its clock minus ours, in seconds."""
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    import emollm.doctor.probe

    # By value: nodes need not have this folder.
    cloudpickle.register_pickle_by_value(emollm.doctor.probe)
    ask = Ask(
        session_dir=ray._private.worker.global_worker.node.get_session_dir_path(),
        storage=_text(config.cluster.storage),
        nonce=nonce,
        megabytes=config.storage_test_mb,
        model=config.model if config.model and _is_path(config.model) else None,
    )
    alive = [node for node in ray.nodes() if node["Alive"]]
    actors = [
        ray.remote(Probe)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote()
        for node in alive
    ]
    try:
        facts = ray.get(
            [
                actor.facts.remote(node["NodeManagerAddress"], node["Resources"], ask)
                for node, actor in zip(alive, actors, strict=True)
            ],
            timeout=300,
        )
    except ray.exceptions.GetTimeoutError:
        raise ResourceError("a node did not answer within 300 s; see `ray list nodes` and its logs") from None
    offsets = {}
    for node, actor in zip(alive, actors, strict=True):
        before = time.time()
        there = ray.get(actor.clock.remote())
        offsets[node["NodeManagerAddress"]] = there - (before + time.time()) / 2
    return facts, offsets


@contextlib.contextmanager
def _storage_mark(storage: Path | None) -> Iterator[tuple[str, Finding | None]]:
    """A word in a hidden folder of the storage that every node must find; removed at the end."""
    nonce = secrets.token_hex(8)
    if storage is None:
        yield nonce, None
        return
    folder = storage / f".doctor-{nonce}"
    try:
        folder.mkdir()
        (folder / "driver").write_text(nonce)
    except OSError as error:
        yield (
            nonce,
            Finding(
                check="storage",
                status="failed",
                says=f"{storage} cannot be written from here: {error.strerror}",
                remedy="mount it here too, for this user",
            ),
        )
        return
    try:
        yield nonce, None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _model(config: DoctorConfig, nodes: Sequence[NodeFacts]) -> Finding:
    if config.model is None:
        return Finding(check="model", status="skipped", says="no --model")
    name = config.model.removeprefix(BASE_PREFIX)
    if name == DEFAULT_MODEL:
        return Finding(check="model", status="ok", says=f"{name} is in the box")
    if _is_path(name):
        return checks.check_model(nodes, model=name)
    base = BASES.get(name)
    if base is not None and base.package:
        return Finding(check="model", status="ok", says=f"{name} comes with a Python package")
    return _on_hub(base.hub_id if base else name)


def _on_hub(hub_id: str) -> Finding:
    """Whether the hub, or this machine's cache of it, has the model."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(hub_id, "config.json"), str):
        return Finding(check="model", status="ok", says=f"{hub_id} is in this machine's cache of the hub")
    try:
        HfApi().model_info(hub_id, timeout=20)
    except Exception as error:  # offline, gated, unknown: each has its own exception
        return Finding(
            check="model",
            status="failed",
            says=f"{hub_id} is not to be had from the hub: {type(error).__name__}",
            remedy="put a copy on the shared storage and name its folder; a gated model needs HF_TOKEN on every node",
        )
    return Finding(check="model", status="ok", says=f"{hub_id} is on the hub")


def _is_path(model: str) -> bool:
    return model not in BASES and (model.startswith(("/", ".", "~")) or Path(model).is_dir())


def working_dir_bytes(folder: Path) -> int:
    """Bytes of the files that Ray would pack, by its own reading of .rayignore and .gitignore."""
    from ray._private.runtime_env.packaging import _dir_travel

    sizes: list[int] = []

    def count(path: Path) -> None:
        if path.is_file():
            sizes.append(path.stat().st_size)

    _dir_travel(folder.absolute(), [], count, include_gitignore=True, logger=logging.getLogger("cluster.quiet"))
    return sum(sizes)


def _dashboard_port() -> int | None:
    import ray

    url: Any = ray._private.worker.get_dashboard_url()
    return urlsplit(f"//{url}").port if url else None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def main(argv: Sequence[str]) -> None:
    config = read_config(DoctorConfig, argv, prog="doctor")
    try:
        findings = examine(config)
    except ResourceError as error:
        remedy = "ray status says more; on every node: RAY_AUTH_MODE=token and the same token"
        findings = [Finding(check="Ray", status="failed", says=str(error), remedy=remedy)]
    print(as_json(findings) if config.format == "json" else as_text(findings))
    sys.exit(0 if all_passed(findings) else 1)


if __name__ == "__main__":
    run_job(main)

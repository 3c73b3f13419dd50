"""Connect a job to Ray: the cluster it was submitted to, one that is named, or a private one of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emollm.core.errors import ResourceError
from emollm.core.options import ClusterConfig
from emollm.runtime.placement import LIGHT_TASK_CPUS

_STARTS = 3
"""Of a private Ray, before it is given up."""
LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def ray_session(cluster: ClusterConfig) -> Iterator[None]:
    """Ray is up inside the block. A private Ray is stopped at its end; a cluster is only left.

    Without an address and outside a submitted job a new local Ray is started even if another is running on this
    machine: that one may be somebody else's. Raises ResourceError if the address does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():  # the caller holds the session, as quickstart does around its steps
        yield
        return
    address = cluster.ray_address or os.environ.get("RAY_ADDRESS") or "local"
    settings: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        settings |= {"include_dashboard": False, "num_cpus": usable_cpus() + LIGHT_TASK_CPUS}
    # One clear report of our own instead of each worker's log lines; those stay in Ray's session folder.
    try:
        with _without_rays_messages():
            start_ray(settings)
            with _native_stderr_aside():
                yield
    finally:
        ray.shutdown()


def start_ray(settings: dict[str, Any]) -> None:
    """`ray.init` with these; a private Ray that is not up after Ray's 30 s, which no option changes, is started again.

    A private Ray listens on loopback alone. Raises ResourceError if it does not come up, or the address does not
    answer.
    """
    import ray

    private = settings["address"] == "local"
    for _ in range(_STARTS):
        try:
            with _on_loopback() if private else contextlib.nullcontext():
                ray.init(**settings, **({"_node_ip_address": LOOPBACK} if private else {}))
            return
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
        if "timed out during startup" not in reason:
            raise ResourceError(
                f"cannot connect to Ray at {settings['address']}: {reason}; is it up (`ray status`), "
                "and is RAY_AUTH_MODE=token set here if it asks for a token?"
            )
    raise ResourceError(
        f"Ray did not start in 30 s, {_STARTS} times: this machine is too busy; run the same command again"
    )


def usable_cpus() -> int:
    """CPUs that this process may use: fewer than the machine has under taskset, or in a container with a limit."""
    from ray._private.utils import get_num_cpus

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, int(get_num_cpus())))


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that is started inside the block has 127.0.0.1 as its node's address, so all of its servers bind to it.

    Trap: Ray replaces that address by the machine's own in a network, unless it believes that clusters are not
    supported, as on macOS and Windows. gloo and NCCL look for an interface themselves, so they are told.
    """
    from ray._private import ray_constants

    interface = "lo0" if sys.platform == "darwin" else "lo"
    interfaces = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    before = {name: os.environ.get(name) for name in interfaces}
    os.environ |= interfaces
    try:
        with _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def serve_on_loopback() -> None:
    """To be called in a Serve replica while it loads: where its Ray is on loopback, so is the port of its gRPC server.

    Serve binds it to every address, whatever the node's, and it asks for no token.
    """
    import ray
    from ray.serve._private import replica

    if ray.util.get_node_ip_address() != LOOPBACK:
        return
    bind = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: bind(server, address.replace("[::]", LOOPBACK))


@contextlib.contextmanager
def _without_rays_messages() -> Iterator[None]:
    """Ray prints no messages of its own, such as "(raylet) A worker died ...", into the job's output.

    The jobs tell of deaths themselves; Ray's words, with colour codes and several lines for each, stay in its logs.
    """
    from ray._private import worker

    with _replaced(worker, "print_to_stdstream", lambda *_args, **_options: None):
        yield


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextlib.contextmanager
def _native_stderr_aside() -> Iterator[None]:
    """What Ray's C++ core writes to stderr goes to a log file; Python's own stderr stays where it is.

    The core warns about each actor pool in words that sound like a failure and are none. The file is removed at
    the end, unless the block fails. Trap: a rich bar that is open at the start must still be open at the end, for it
    puts the stderr of its own start back.
    """
    try:
        redirectable = sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):  # a notebook, or pytest's capture
        redirectable = False
    if not redirectable:
        yield
        return
    log = tempfile.NamedTemporaryFile(prefix="emollm-ray-", suffix=".log", delete=False)  # noqa: SIM115
    terminal, before = os.dup(2), sys.stderr
    sys.stderr = ours = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(log.fileno(), 2)
    try:
        yield
        Path(log.name).unlink(missing_ok=True)
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        if sys.stderr is ours:
            sys.stderr = before
        ours.close()
        log.close()

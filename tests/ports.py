"""Where the processes of the Ray that is up listen."""

from __future__ import annotations

import contextlib
import os
from ipaddress import ip_address

import psutil


def listening() -> dict[str, list[str]]:
    """`address:port` to the processes of this Ray, this one included, that accept connections there."""
    import ray

    session = ray._private.worker.global_worker.node.get_session_dir_path()
    started = {os.getpid(): psutil.Process()}
    # Not this process's other children: a test may have begun a cluster of several nodes beside.
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(session in word for word in process.cmdline()):
                started |= {one.pid: one for one in (process, *process.children(recursive=True))}
    found: dict[str, list[str]] = {}
    for process in started.values():
        with contextlib.suppress(psutil.Error):
            for socket in process.net_connections(kind="tcp"):
                if socket.status == psutil.CONN_LISTEN:
                    found.setdefault(f"{socket.laddr.ip} {socket.laddr.port}", []).append(process.name())
    return found


def beyond_loopback() -> dict[str, list[str]]:
    """Those of them that another machine could reach."""
    return {where: names for where, names in listening().items() if not _is_loopback(where.split()[0])}


def _is_loopback(address: str) -> bool:
    parsed = ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback

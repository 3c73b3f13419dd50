"""What a node says of itself. Sent to nodes by value, on the standard library alone: they need not have emollm."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("ray", "torch", "transformers", "deepspeed", "peft", "pyarrow")


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """One node, as it sees itself."""

    node: str
    """Its address."""
    resources: dict[str, float]
    """What Ray may place there: CPU, GPU, object_store_memory in bytes."""
    python: str
    versions: dict[str, str | None]
    """Of `PACKAGES`; None where one is not installed."""
    token_auth: bool
    token_file_mode: int | None
    """Permission bits of the token's file; None where the token is in the environment."""
    wildcard_ports: tuple[int, ...]
    """TCP ports on which processes of this Ray listen at every address of the machine."""
    gpus: tuple[str, ...]
    """`name, driver, memory` a GPU, as nvidia-smi tells."""
    free_bytes: int
    """Left on the disk where Ray keeps logs and what does not fit into memory."""
    shared_memory_bytes: int
    """Size of /dev/shm, where the object store lives."""
    storage: StorageFacts | None = None
    model: str | None = None
    """Hash of the model's affect.json; "" where the folder is not there; None where no folder was asked for."""


@dataclass(frozen=True, kw_only=True)
class StorageFacts:
    """What a node could do with the shared folder."""

    error: str | None
    sees_driver: bool = False
    write_mb_s: float = 0.0
    read_mb_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a probe is asked to look at."""

    session_dir: str
    """Folder of this Ray's session, the same name on every node."""
    storage: str | None = None
    nonce: str = ""
    """In the file `.doctor-NONCE/driver` of the storage stands the same word."""
    megabytes: int = 64
    model: str | None = None


class Probe:
    """A Ray actor of no CPU, one on each node."""

    def clock(self) -> float:
        """Seconds since 1970, by this node's clock."""
        return time.time()

    def facts(self, node: str, resources: dict[str, float], ask: Ask) -> NodeFacts:
        from ray._private.authentication.authentication_utils import is_token_auth_enabled

        return NodeFacts(
            node=node,
            resources=resources,
            python=platform.python_version(),
            versions={name: _version(name) for name in PACKAGES},
            token_auth=is_token_auth_enabled(),
            token_file_mode=_token_file_mode(),
            wildcard_ports=_wildcard_ports(Path(ask.session_dir).name),
            gpus=_gpus(),
            free_bytes=shutil.disk_usage(_existing(Path(ask.session_dir))).free,
            shared_memory_bytes=shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0,
            storage=try_storage(Path(ask.storage), node, ask) if ask.storage else None,
            model=_card_hash(Path(ask.model)) if ask.model else None,
        )


def try_storage(folder: Path, node: str, ask: Ask) -> StorageFacts:
    """Read what the driver wrote, write and read `ask.megabytes` of our own."""
    here = folder / f".doctor-{ask.nonce}"
    mine = here / f"node-{node}"
    block = os.urandom(1 << 20)
    try:
        sees_driver = (here / "driver").is_file() and (here / "driver").read_text() == ask.nonce
        here.mkdir(exist_ok=True)
        started = time.monotonic()
        with mine.open("wb") as file:
            for _ in range(ask.megabytes):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        written = time.monotonic()
        with mine.open("rb") as file:
            # Or the kernel would answer from memory.
            with contextlib.suppress(OSError, AttributeError):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.read(1 << 20):
                pass
        read = time.monotonic()
    except OSError as error:
        return StorageFacts(error=f"{error.strerror}: {error.filename}")
    finally:
        if not (here / "driver").is_file():  # a folder of this node alone: nobody else will clear it up
            shutil.rmtree(here, ignore_errors=True)
    return StorageFacts(
        error=None,
        sees_driver=sees_driver,
        write_mb_s=ask.megabytes / max(written - started, 1e-6),
        read_mb_s=ask.megabytes / max(read - written, 1e-6),
    )


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _token_file_mode() -> int | None:
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return stat.S_IMODE(path.stat().st_mode) if path.is_file() else None


def _gpus() -> tuple[str, ...]:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return tuple(subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines())
    return ()


def _wildcard_ports(session: str) -> tuple[int, ...]:
    """Of the processes whose command line names the session: raylet, GCS, dashboard, agents."""
    sockets = _sockets(session)
    ports = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                address, _, port = fields[1].rpartition(":")
                # State 0A listens; an address of zeros is every address.
                if fields[3] == "0A" and not address.strip("0") and fields[9] in sockets:
                    ports.add(int(port, 16))
    return tuple(sorted(ports))


def _sockets(session: str) -> set[str]:
    """Inodes of the sockets that the session's processes hold."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if session.encode() in (process / "cmdline").read_bytes():
                links = (str(link.readlink()) for link in (process / "fd").iterdir())
                found |= {link[8:-1] for link in links if link.startswith("socket:[")}
    return found


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(p for p in (path, *path.parents) if p.exists())


def _card_hash(folder: Path) -> str:
    card = folder / "affect.json"
    return hashlib.sha256(card.read_bytes()).hexdigest() if card.is_file() else ""

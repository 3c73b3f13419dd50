"""A real Ray cluster on one machine: `ray start` for each node, addresses, ports and folders of their own, a token."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

BIN = Path(sys.executable).parent
ENV = dict(os.environ)
"""As conftest.py has set it: no hub, one thread, a Ray that notices soon what has died."""
HEAD = "127.0.0.2"


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((host, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@dataclass
class Node:
    """One `ray start --block` in a process group of its own, ended by its pid."""

    process: subprocess.Popen[bytes]
    host: str
    log: Path
    folder: Path
    """Where its processes stand."""

    def kill(self) -> None:
        """End it as a power cut would: every process at once, no goodbye."""
        # What the node started and did not take along is in its group, which is ours alone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class RayCluster:
    """A head on 127.0.0.2; further nodes on 127.0.0.3 and so on. Ray takes 127.0.0.1 for the machine's own address."""

    folder: Path
    num_cpus: int
    nodes: list[Node] = field(default_factory=list)
    _started: int = 0

    def __post_init__(self) -> None:
        # Unix sockets have names of at most 107 bytes, and pytest's folders are too long for Ray's.
        self._temp = Path(tempfile.mkdtemp(prefix="ray-"))
        self._token = secrets.token_hex(32)
        token = self.folder / "auth_token"
        token.write_text(self._token)
        token.chmod(0o600)
        self.env = ENV | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    def start(self) -> None:
        """Start the head; it is up when this returns."""
        self._start_until_up(self._start_head)

    def _start_head(self) -> Node:
        gcs, dashboard, client = free_ports(3, HEAD)
        self.address, self.dashboard = f"{HEAD}:{gcs}", f"http://{HEAD}:{dashboard}"
        options = (
            "--head", f"--port={gcs}", f"--num-cpus={self.num_cpus}", f"--dashboard-host={HEAD}",
            f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
        )  # fmt: skip
        return self._start(HEAD, self.env, *options)

    def _start_until_up(self, start: Callable[[], Node], *, tries: int = 5) -> Node:
        """On busy cores a node may need longer than the 15 s that Ray gives its agents, and end: then again."""
        for _ in range(tries):
            node = start()
            while node.process.poll() is None:
                if node.host in self.alive():
                    return node
                time.sleep(0.5)
            node.kill()
            self.nodes.remove(node)
        raise AssertionError(f"a node did not come up in {tries} tries:\n{node.log.read_text()[-2000:]}")

    def add_node(self, *, num_cpus: int) -> Node:
        """One more node, alive when this returns."""
        return self._start_until_up(lambda: self.start_node(num_cpus=num_cpus))

    def start_node(self, *, num_cpus: int, **env: str) -> Node:
        """Start one more node; it is not waited for."""
        self._started += 1
        host = f"127.0.0.{self._started + 2}"
        options = (f"--address={self.address}", f"--num-cpus={num_cpus}", "--include-log-monitor=false")
        return self._start(host, self.env | env, *options)

    def wait_for_nodes(self, count: int, *, timeout_s: float = 240) -> None:
        """Until so many nodes are alive, as Ray sees it."""
        give_up = time.monotonic() + timeout_s
        while len(alive := self.alive()) != count:
            assert time.monotonic() < give_up, f"{alive} are alive, not {count}\n" + "\n".join(self.logs())
            time.sleep(0.5)

    def alive(self) -> set[str]:
        """Addresses of the nodes that Ray holds for alive; a killed one is among them for some 3 s."""
        try:
            nodes = self.get("/api/v0/nodes")["data"]["result"]["result"]
        except OSError:  # the dashboard is not up yet
            return set()
        return {node["node_ip"] for node in nodes if node["state"] == "ALIVE"}

    def get(self, path: str) -> Any:
        """What the dashboard answers to somebody with the token; a `ray` command would cost seconds of CPU."""
        request = urllib.request.Request(self.dashboard + path, headers={"Authorization": f"Bearer {self._token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def submit(self, *entry: str) -> subprocess.CompletedProcess[str]:
        """`ray job submit` of the checkout, waited for."""
        command = [BIN / "ray", "job", "submit", "--address", self.dashboard, "--working-dir", ".", "--", *entry]
        return subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=900)

    def logs(self) -> list[str]:
        return [f"{node.host}:\n{node.log.read_text()[-2000:]}" for node in self.nodes]

    def stop(self) -> None:
        """All nodes, asked first: some take half a minute to go, which nobody has to wait for."""
        running = [node for node in self.nodes if node.process.poll() is None]
        for node in running:
            node.process.send_signal(signal.SIGTERM)
        give_up = time.monotonic() + 5
        while any(node.process.poll() is None for node in running) and time.monotonic() < give_up:
            time.sleep(0.1)
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self._temp, ignore_errors=True)

    def _start(self, host: str, env: Mapping[str, str], *options: str) -> Node:
        agent, agent_grpc, metrics, runtime_env = free_ports(4, host)
        log = self.folder / f"{host}.log"
        # Each node stands in a folder of its own, as on a machine of its own.
        here = self.folder / host
        here.mkdir(exist_ok=True)
        command = [
            BIN / "ray", "start", "--block", f"--node-ip-address={host}", "--disable-usage-stats",
            "--object-store-memory=100000000", f"--temp-dir={self._temp / host}",
            f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}",
            f"--metrics-export-port={metrics}", f"--runtime-env-agent-port={runtime_env}", *options,
        ]  # fmt: skip
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env=env, cwd=here, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.nodes.append(Node(process, host, log, here))
        return self.nodes[-1]


@contextlib.contextmanager
def ray_cluster(folder: Path, *, num_cpus: int) -> Iterator[RayCluster]:
    """A head alone, stopped at the end with all nodes that were added."""
    cluster = RayCluster(folder, num_cpus)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()

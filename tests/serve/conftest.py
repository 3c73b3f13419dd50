"""An endpoint on a real Ray Serve, shared by all tests that ask it with the same options."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.waiting import wait_for

Deploy = Callable[..., httpx.Client]
"""Options of the endpoint to a client of it; other options than those it is deployed with replace it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def serve_url(local_ray: None) -> Iterator[str]:
    from ray import serve

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="session")
def deploy(serve_url: str, model_directory: Path) -> Iterator[Deploy]:
    from ray import serve

    from emollm.serve.app import build

    clients: list[httpx.Client] = []
    deployed: dict[str, Any] = {}

    def deploy_with(**options: Any) -> httpx.Client:
        # Five minutes, unless a test is about the deadline: no answer is late because this machine is slow.
        settings = {"model": str(model_directory), "precision": "float32", "deadline_s": 300.0, **options}
        if settings != deployed or "emollm" not in serve.status().applications:
            serve.run(build(settings), name="emollm", route_prefix="/")
            deployed.clear()
            deployed.update(settings)
        client = httpx.Client(base_url=serve_url, timeout=settings["deadline_s"] + 60)
        clients.append(client)
        wait_for(lambda: client.get("/readyz").status_code == 200)
        return client

    yield deploy_with
    for client in clients:
        client.close()
    serve.delete("emollm")

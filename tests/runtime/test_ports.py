"""A private Ray listens on loopback alone: its ports run code for whoever reaches them."""

from __future__ import annotations

import contextlib

import pytest

from tests.ports import beyond_loopback, listening

pytestmark = pytest.mark.ray


def test_nothing_of_a_private_ray_is_reached_from_elsewhere(local_ray: None) -> None:
    import ray

    @ray.remote
    def work() -> int:
        return 1

    assert ray.get([work.remote() for _ in range(3)]) == [1, 1, 1]
    found = listening()
    assert len(found) >= 6, found  # GCS, raylet, object manager, agents, workers, this process
    assert beyond_loopback() == {}
    assert ray.nodes()[0]["NodeManagerAddress"] == "127.0.0.1"


def test_an_open_port_would_be_found(local_ray: None) -> None:
    import socket

    with contextlib.closing(socket.create_server(("", 0))) as server:
        assert f"0.0.0.0 {server.getsockname()[1]}" in beyond_loopback()

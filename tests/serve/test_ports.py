"""An endpoint on a private Ray listens on loopback alone, its replicas included."""

from __future__ import annotations

import pytest

from tests.ports import beyond_loopback, listening
from tests.serve.conftest import Deploy

pytestmark = pytest.mark.ray


def test_nothing_of_the_endpoint_is_reached_from_elsewhere(deploy: Deploy) -> None:
    client = deploy()
    assert client.post("/v1/annotate", json={"texts": ["what a day"], "tasks": ["V-oc"]}).status_code == 200
    assert len(listening()) >= 10  # the HTTP proxy, the controller and the replicas beside Ray's own
    assert beyond_loopback() == {}

"""More than it can do: full queues, deadlines, clients that leave, keys, and small requests beside large ones."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.auth import add_key
from tests.serve.conftest import Deploy

MAX_REQUESTS = 4
DEADLINE_S = 6.0


@pytest.fixture(scope="module")
def client(deploy: Deploy, tmp_path_factory: pytest.TempPathFactory) -> httpx.Client:
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    add_key(file, "other")
    key = add_key(file, "tests")
    client = deploy(
        keys=str(file),
        max_requests=MAX_REQUESTS,
        deadline_s=DEADLINE_S,
        batch_tokens=64,  # less than the pieces that can be under way, so that a bound by tokens would be felt
        host="0.0.0.0",  # what it is told; this test listens on loopback
    )
    client.headers["authorization"] = f"Bearer {key}"
    return client


def body(num_texts: int, *, words: int = 3, tag: str = "") -> dict[str, Any]:
    return {"texts": [f"{tag} {n} " + "so " * words for n in range(num_texts)], "tasks": ["profile"]}


def at_rest(client: httpx.Client) -> None:
    """Wait until nothing is at work: a full queue would say 429."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with ThreadPoolExecutor(MAX_REQUESTS) as threads:
            found = list(threads.map(lambda _: client.post("/v1/annotate", json=body(1)), range(MAX_REQUESTS)))
        if {response.status_code for response in found} == {200}:
            return
        time.sleep(0.5)
    raise AssertionError("places are not given back")


@pytest.mark.ray
def test_without_a_known_key_there_are_no_answers(client: httpx.Client) -> None:
    url = f"{str(client.base_url).rstrip('/')}/"
    for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": ""}, {"authorization": "Basic eDp5"}):
        for method, path in (("GET", "v1/model"), ("GET", "v1/tasks"), ("POST", "v1/annotate"), ("GET", "v1/x")):
            response = httpx.request(
                method, f"{url}{path}", headers=headers, json=body(1) if method == "POST" else None
            )
            assert response.status_code == 401, (headers, path)
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["code"] == "unauthorized"
    for path in ("", "healthz", "readyz", "docs", "openapi.json", "page/app.js"):
        assert httpx.get(url + path).status_code == 200, path
    key = client.headers["authorization"].removeprefix("Bearer ")
    assert httpx.get(f"{url}v1/model", headers={"x-api-key": key}).status_code == 200


@pytest.mark.ray
def test_a_full_queue_is_429_with_a_time_to_come_back(client: httpx.Client) -> None:
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda n: client.post("/v1/annotate", json=body(12, tag=str(n))), range(16)))
    statuses = {response.status_code for response in found}
    assert 429 in statuses
    assert statuses <= {200, 429, 504}
    for response in found:
        if response.status_code == 429:
            assert int(response.headers["retry-after"]) >= 1
            assert response.json()["error"]["code"] == "queue_full"
    at_rest(client)


@pytest.mark.ray
def test_what_is_not_answered_in_time_is_given_up(client: httpx.Client) -> None:
    started = time.monotonic()
    response = client.post("/v1/annotate", json=body(256, words=300))
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline"
    assert time.monotonic() - started < DEADLINE_S + 10
    at_rest(client)


@pytest.mark.ray
def test_a_client_that_leaves_frees_its_place(client: httpx.Client) -> None:
    def leave(n: int) -> None:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/annotate", json=body(256, words=300, tag=str(n)), timeout=0.5)

    with ThreadPoolExecutor(MAX_REQUESTS) as threads:
        list(threads.map(leave, range(MAX_REQUESTS)))
    started = time.monotonic()
    at_rest(client)
    # All four at work would have held their places until the deadline.
    assert time.monotonic() - started < DEADLINE_S


@pytest.mark.ray
def test_a_stream_left_half_way_frees_its_place(client: httpx.Client) -> None:
    for _ in range(MAX_REQUESTS):
        with client.stream("POST", "/v1/annotate/stream", json=body(2000, words=50)) as response:
            assert json.loads(next(response.iter_lines()))["index"] == 0
    at_rest(client)


@pytest.mark.ray
def test_a_small_request_is_not_starved_by_a_large_one(client: httpx.Client) -> None:
    at_rest(client)
    begun, done = threading.Event(), threading.Event()

    def large() -> int:
        lines = 0
        with client.stream("POST", "/v1/annotate/stream", json=body(150, words=20)) as response:
            for _ in response.iter_lines():
                begun.set()
                lines += 1
        done.set()
        return lines

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(large)
        assert begun.wait(60)
        for _ in range(3):
            assert client.post("/v1/annotate", json=body(1)).status_code == 200
        assert not done.is_set(), "three small requests, one after the other, were answered before the large one"
        assert future.result() == 151


@pytest.mark.ray
def test_it_stays_ready_with_as_many_large_requests_as_it_takes(client: httpx.Client) -> None:
    at_rest(client)
    begun = threading.Semaphore(0)
    stop = threading.Event()

    def large(n: int) -> None:
        with client.stream("POST", "/v1/annotate/stream", json=body(2000, tag=str(n))) as response:
            for _ in response.iter_lines():
                begun.release()
                if stop.is_set():
                    return

    with ThreadPoolExecutor(MAX_REQUESTS) as threads:
        running = [threads.submit(large, n) for n in range(MAX_REQUESTS - 1)]
        try:
            assert begun.acquire(timeout=60)
            for _ in range(5):
                assert client.get("/readyz").json() == {"status": "ready"}
            assert client.post("/v1/annotate", json=body(1)).status_code == 200
        finally:
            stop.set()
        for one in running:
            one.result()


@pytest.mark.ray
def test_a_name_and_not_the_key_stands_in_the_log(client: httpx.Client) -> None:
    from tests.serve.test_app import log_folder, wait_for_logs

    client.get("/v1/tasks", headers={"x-request-id": "named-1"})
    assert [line["key"] for line in wait_for_logs("named-1") if line["message"] == "request"] == ["tests"]
    key = client.headers["authorization"].removeprefix("Bearer ")
    for file in Path(log_folder()).glob("*"):
        if file.is_file():
            assert key not in file.read_text(errors="replace")

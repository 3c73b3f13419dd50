"""More than it can do: full queues, deadlines, clients that leave, keys, and small requests beside large ones."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from emollm.serve.auth import add_key
from tests.serve.conftest import Deploy
from tests.waiting import wait_for

MAX_REQUESTS = 4


@pytest.fixture(scope="module")
def connect(deploy: Deploy, tmp_path_factory: pytest.TempPathFactory) -> Deploy:
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    add_key(file, "other")
    key = add_key(file, "tests")

    def connect_to(**options: Any) -> httpx.Client:
        client = deploy(
            keys=str(file),
            max_requests=MAX_REQUESTS,
            batch_tokens=64,  # less than the pieces that can be under way, so that a bound by tokens would be felt
            host="0.0.0.0",  # what it is told; this test listens on loopback
            **options,
        )
        client.headers["authorization"] = f"Bearer {key}"
        return client

    return connect_to


@pytest.fixture(scope="module")
def client(connect: Deploy) -> httpx.Client:
    return connect()


def body(num_texts: int, *, words: int = 3, tag: str = "") -> dict[str, Any]:
    return {"texts": [f"{tag} {n} " + "so " * words for n in range(num_texts)], "tasks": ["profile"]}


def at_rest(client: httpx.Client, *, seconds: float = 120) -> None:
    """Wait until nothing is at work: a full queue would say 429. In far less than the deadline."""

    def all_places_are_free() -> bool:
        with ThreadPoolExecutor(MAX_REQUESTS) as threads:
            found = list(threads.map(lambda _: client.post("/v1/annotate", json=body(1)), range(MAX_REQUESTS)))
        return {response.status_code for response in found} == {200}

    wait_for(all_places_are_free, seconds)


def begun(client: httpx.Client, stack: ExitStack, **kinds: Any) -> Iterator[str]:
    """The lines of a large stream after its first, which has come.

    It is left at the end of the stack, or when nobody holds its lines.
    """
    response = stack.enter_context(client.stream("POST", "/v1/annotate/stream", json=body(2000, **kinds)))
    lines = response.iter_lines()
    assert json.loads(next(lines))["index"] == 0
    return lines


@pytest.mark.ray
def test_without_a_known_key_there_are_no_answers(client: httpx.Client) -> None:
    url = f"{str(client.base_url).rstrip('/')}/"
    for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": ""}, {"authorization": "Basic eDp5"}):
        for method, path in (("GET", "v1/model"), ("GET", "v1/tasks"), ("POST", "v1/annotate"), ("GET", "v1/x")):
            response = httpx.request(
                method, f"{url}{path}", headers=headers, json=body(1) if method == "POST" else None, timeout=60
            )
            assert response.status_code == 401, (headers, path)
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["code"] == "unauthorized"
    for path in ("", "healthz", "readyz", "docs", "openapi.json", "page/app.js"):
        assert httpx.get(url + path, timeout=60).status_code == 200, path
    key = client.headers["authorization"].removeprefix("Bearer ")
    assert httpx.get(f"{url}v1/model", headers={"x-api-key": key}, timeout=60).status_code == 200


@pytest.mark.ray
def test_a_full_queue_is_429_with_a_time_to_come_back(client: httpx.Client) -> None:
    at_rest(client)
    with ExitStack() as stack:
        streams = [begun(client, stack, tag=str(n)) for n in range(MAX_REQUESTS)]
        with ThreadPoolExecutor(16) as threads:
            found = list(threads.map(lambda n: client.post("/v1/annotate", json=body(12, tag=str(n))), range(16)))
        for response in found:
            assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
            assert int(response.headers["retry-after"]) >= 1
        assert [json.loads(next(lines))["index"] for lines in streams] == [1] * MAX_REQUESTS
    at_rest(client)


@pytest.mark.ray
def test_a_client_that_disconnects_frees_its_place(client: httpx.Client) -> None:
    at_rest(client)
    started = time.monotonic()
    assert client.post("/v1/annotate", json=body(256, words=300)).status_code == 200
    one = time.monotonic() - started

    def leave(n: int) -> None:
        large = body(256, words=300, tag=str(n))
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/annotate", json=large, timeout=httpx.Timeout(60, read=0.5))

    with ThreadPoolExecutor(MAX_REQUESTS) as threads:
        list(threads.map(leave, range(MAX_REQUESTS)))
    at_rest(client, seconds=MAX_REQUESTS / 2 * one)  # all four at work would hold their places twice as long


@pytest.mark.ray
def test_a_stream_left_half_way_frees_its_place(client: httpx.Client) -> None:
    at_rest(client)
    for _ in range(MAX_REQUESTS):
        with ExitStack() as stack:
            begun(client, stack, words=300)  # minutes of work each, of which at_rest waits two
    at_rest(client)


@pytest.mark.ray
def test_a_small_request_is_not_starved_by_a_large_one(client: httpx.Client) -> None:
    at_rest(client)
    stop, ended = threading.Event(), threading.Event()

    def go_on(large: Iterator[str]) -> None:
        for _ in large:
            if stop.is_set():
                return
        ended.set()

    with ExitStack() as stack, ThreadPoolExecutor(1) as thread:
        going_on = thread.submit(go_on, begun(client, stack, words=20))
        for _ in range(3):
            assert client.post("/v1/annotate", json=body(1)).status_code == 200
        assert not ended.is_set(), "three small requests, one after the other, were answered before the large one"
        stop.set()
        going_on.result()


@pytest.mark.ray
def test_it_stays_ready_with_as_many_large_requests_as_it_takes(client: httpx.Client) -> None:
    at_rest(client)
    with ExitStack() as stack:
        streams = [begun(client, stack, tag=str(n)) for n in range(MAX_REQUESTS - 1)]
        for _ in range(5):
            assert client.get("/readyz").json() == {"status": "ready"}
        assert client.post("/v1/annotate", json=body(1)).status_code == 200
        assert [json.loads(next(lines))["index"] for lines in streams] == [1] * (MAX_REQUESTS - 1)


@pytest.mark.ray
def test_the_log_has_the_name_and_not_the_key(client: httpx.Client) -> None:
    from tests.serve.test_app import log_folder, wait_for_logs

    client.get("/v1/tasks", headers={"x-request-id": "named-1"})
    assert [line["key"] for line in wait_for_logs("named-1", '"request"') if line["message"] == "request"] == ["tests"]
    key = client.headers["authorization"].removeprefix("Bearer ")
    for file in Path(log_folder()).glob("*"):
        if file.is_file():
            assert key not in file.read_text(errors="replace")


@pytest.mark.ray
def test_a_request_past_the_deadline_is_cancelled(connect: Deploy) -> None:
    client = connect(deadline_s=3)
    response = client.post("/v1/annotate", json=body(256, words=300))
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline")
    at_rest(client)

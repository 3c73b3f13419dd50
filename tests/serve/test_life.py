"""Replicas that come and go: redeployed, killed, or unable to load their model."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from emollm.serve.config import ServeConfig
from tests.serve.conftest import Deploy
from tests.serve.test_app import log_folder
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def client(deploy: Deploy) -> httpx.Client:
    return deploy()


def ask(client: httpx.Client, text: str, *, times: int = 1) -> httpx.Response:
    return client.post("/v1/annotate", json={"texts": [text] * times, "tasks": ["V-reg", "V-oc", "EI-oc"]})


def values(response: httpx.Response) -> Any:
    return [(a["task"], a["emotion"], a["value"]) for a in response.json()["results"][0]["answers"]]


@contextmanager
def steady_requests(client: httpx.Client, text: str, *, times: int = 1) -> Iterator[list[httpx.Response]]:
    """Four clients that ask without a pause while the block runs, each of their requests with the text `times`."""
    stop = threading.Event()
    answers: list[httpx.Response] = []

    def go() -> None:
        while not stop.is_set():
            answers.append(ask(client, text, times=times))

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(go) for _ in range(4)]
        try:
            yield answers
        finally:
            stop.set()
        for one in running:
            one.result()


def replica_pids() -> set[int]:
    """Processes that hold the model, among this process's own children."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # gone, or a zombie
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::ServeReplica:emollm:Annotator"):
                found.add(process.pid)
    return found


def wait_for_replicas(count: int) -> None:
    """Until so many copies of the model answer, as Serve sees it."""
    from ray import serve

    def states() -> Any:
        return serve.status().applications["emollm"].deployments["Annotator"].replica_states

    wait_for(lambda: states() == {"RUNNING": count}, saying=states)


def assert_all_right(answers: list[httpx.Response], expected: Any) -> None:
    assert {response.status_code for response in answers} == {200}
    for response in answers:
        for (task, emotion, value), (_, _, right) in zip(values(response), expected, strict=True):
            assert value == pytest.approx(right, abs=1e-6), (task, emotion)


@pytest.mark.ray
def test_a_redeployment_loses_no_request(deploy: Deploy, client: httpx.Client) -> None:
    expected = values(ask(client, "a fine day"))
    import ray

    before = replica_pids()
    with steady_requests(client, "a fine day") as answers:
        deploy(batch_tokens=512, gpus_per_replica=1)  # of Ray's; the device is what PyTorch sees
        wait_for(lambda: not before & replica_pids())  # the old replica has drained and gone
        wait_for(lambda: len(answers) > 10)
    assert_all_right(answers, expected)
    assert not ray.available_resources().get("GPU")


@pytest.mark.ray
def test_a_killed_replica_is_replaced_and_no_answer_is_wrong_or_lost(client: httpx.Client) -> None:
    expected = values(ask(client, "a fine day"))
    (victim,) = replica_pids()
    with steady_requests(client, "a fine day") as answers:
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: replica_pids() - {victim})
        seen = len(answers)
        wait_for(lambda: len(answers) >= seen + 8)
    assert_all_right(answers, expected)


@pytest.mark.ray
def test_under_load_a_second_replica_comes_and_goes_and_no_request_fails(
    deploy: Deploy, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emollm.serve import app

    replicas = app._replicas

    def soon(config: ServeConfig) -> dict[str, Any]:
        """The endpoint's own limits and target, on a faster clock than ten seconds up and five minutes down."""
        clock = {"upscale_delay_s": 0.5, "downscale_delay_s": 2, "look_back_period_s": 12}
        return {"autoscaling_config": replicas(config)["autoscaling_config"].model_copy(update=clock)}

    monkeypatch.setattr(app, "_replicas", soon)
    expected = values(ask(client, "a fine day"))
    # Pieces of one text each: the requests of four clients are 64, where one replica is to have eight.
    deploy(max_replicas=2, batch_tokens=64)
    wait_for_replicas(1)
    with steady_requests(client, "a fine day", times=16) as answers:
        wait_for_replicas(2)
        seen = len(answers)
        wait_for(lambda: len(answers) >= seen + 8)
    assert_all_right(answers, expected)
    wait_for_replicas(1)
    assert_all_right([ask(client, "a fine day")], expected)


@pytest.mark.ray
def test_a_model_that_does_not_load_is_reported_and_not_retried_forever(
    serve_url: str, model_directory: Path, tmp_path: Path, deploy: Deploy, client: httpx.Client
) -> None:
    from ray import serve

    from emollm.core.errors import ModelError
    from emollm.serve.start import deploy as start

    broken = tmp_path / "broken"
    shutil.copytree(model_directory, broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=f"cannot load {broken}"):
        start(ServeConfig(model=str(broken)), name="broken", route_prefix="/broken")

    def deployment() -> Any:
        return serve.status().applications["broken"].deployments["Annotator"]

    assert serve.status().applications["broken"].status == "DEPLOY_FAILED"
    assert "cannot load" in deployment().message
    wait_for(lambda: not deployment().replica_states.get("STARTING"), saying=deployment)
    # Each replica that was started has a log of its own.
    assert 1 <= len([*log_folder().glob("replica_broken_Annotator_*.log")]) <= 3
    ready = httpx.get(f"{serve_url}/broken/readyz", timeout=60)
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "not_ready")
    assert httpx.get(f"{serve_url}/broken/healthz", timeout=60).status_code == 200
    # The endpoint beside it does not mind.
    assert ask(client, "a fine day").status_code == 200
    serve.delete("broken")

"""The endpoint on a real Ray Serve."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from emollm.affect_card import read_card
from emollm.prompts import questions_for
from emollm.scoring.scorer import open_scorer
from emollm.tasks import select_tasks
from tests.conftest import ROOT

TEXTS = ["what a lovely morning!", "the train is late AGAIN <script>alert(1)</script>", "", "</s> ok"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def client(local_ray: None, model_directory: Path) -> Iterator[httpx.Client]:
    from ray import serve

    from serve.app import build

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build({"model": str(model_directory)}), name="emollm", route_prefix="/")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        yield http
    serve.shutdown()


@pytest.mark.ray
def test_answers_are_the_offline_ones(client: httpx.Client, model_directory: Path) -> None:
    response = client.post("/v1/annotate", json={"texts": TEXTS, "tasks": ["profile"]})
    assert response.status_code == 200
    results = response.json()["results"]
    scorer = open_scorer(str(model_directory))
    tasks = select_tasks(["profile"], scorer.card.tasks)
    for text, answers in zip(TEXTS, results, strict=True):
        questions = questions_for(text, tasks)
        assert [(a["task"], a["emotion"]) for a in answers] == [(q.task.name, q.emotion) for q in questions]
        for online, offline in zip(answers, scorer.score(questions), strict=True):
            value: Any = list(offline.value) if isinstance(offline.value, tuple) else offline.value
            assert online["error"] == offline.error
            assert online["value"] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value)
            if offline.confidence is None:
                assert online["confidence"] is None
            else:
                assert online["confidence"] == pytest.approx(offline.confidence, rel=1e-4)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"texts": []}, "texts"),
        ({"texts": ["a"], "tasks": ["V-occ"]}, "choose from: EI-reg, EI-oc, V-reg, V-oc, E-c"),
        ({"texts": "a"}, "texts"),
        ({"texts": [3]}, "texts"),
        ({"text": ["a"]}, "texts"),
        ({"texts": ["a" * 20_001]}, "20000"),
        ({"texts": ["a"] * 257}, "256"),
    ],
)
def test_a_wrong_request_is_422_and_says_what_is_wrong(client: httpx.Client, body: Any, said: str) -> None:
    response = client.post("/v1/annotate", json=body)
    assert response.status_code == 422
    assert said in response.text


@pytest.mark.ray
def test_the_model_and_its_tasks_are_described(client: httpx.Client, model_directory: Path) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    tasks = {task["name"]: task for task in client.get("/v1/tasks").json()}
    assert len(tasks["E-c"]["labels"]) == 11
    assert tasks["V-oc"]["classes"]["-3"] == "very negative emotional state can be inferred"
    described = client.get("/v1/model").json()
    card = read_card(model_directory)
    assert (described["engine"], described["adapter"]) == ("constrained", None)
    assert described["base_fingerprint"] == card.base.fingerprint
    assert "/v1/annotate" in client.get("/openapi.json").json()["paths"]


def serve_command(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serve", *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_starting_it_wrongly_is_one_clear_line(tmp_path: Path, model_directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = serve_command("--model", str(model_directory), "--port", port)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.strip() == (
        f"error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port"
    )
    ran = serve_command("--model", str(tmp_path))
    assert ran.returncode == 2
    assert "has no affect.json" in ran.stderr
    assert "Traceback" not in ran.stderr

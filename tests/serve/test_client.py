"""The Python client against a real endpoint, and where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import ClassVar

import httpx
import pytest

from emollm.client import Client
from emollm.core.errors import ConfigError, ResourceError
from tests.conftest import ROOT
from tests.serve.conftest import Deploy, free_port


@pytest.fixture(scope="module")
def client(deploy: Deploy) -> Client:
    http: httpx.Client = deploy()
    return Client(str(http.base_url))


@pytest.mark.ray
def test_it_asks_and_streams(client: Client) -> None:
    texts = ["what a day :)", "a \ud800 broken emoji", ""]
    results = client.annotate(texts, tasks=["V-oc"])
    assert [result["answers"][0]["error"] for result in results] == [None, None, "empty_text"]
    streamed = list(client.stream((text for text in texts * 400), tasks=["V-oc"]))
    assert [result["index"] for result in streamed] == list(range(1200))
    assert [result["answers"][0]["value"] for result in streamed[:3]] == [r["answers"][0]["value"] for r in results]
    assert "V-oc" in [task["name"] for task in client.tasks()]
    assert client.model()["engine"]


@pytest.mark.ray
def test_what_the_endpoint_refuses_is_a_config_error(client: Client) -> None:
    with pytest.raises(ConfigError, match="unknown task 'nope'; choose from: EI-reg"):
        client.annotate(["a"], tasks=["nope"])
    with pytest.raises(ConfigError, match=r"for one text: \[text\]"):
        client.annotate("a")


def test_where_nobody_answers_it_says_so() -> None:
    with pytest.raises(ResourceError, match=r"cannot be reached: .*refused"):
        Client(f"http://127.0.0.1:{free_port()}").model()


class _Busy(BaseHTTPRequestHandler):
    """An endpoint whose queue is full twice; then its stream breaks off."""

    seen: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.seen.append(self.headers.get("authorization", ""))
        full = len(self.seen) <= 2
        self.send_response(429 if full else 200)
        if full:
            self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(b'{"error": {"message": "full"}}' if full else b'{"truncated": false, "answers": []}\n')

    def log_message(self, *_: object) -> None:
        pass


class _Reader(BaseHTTPRequestHandler):
    """An endpoint that keeps the bodies and answers each text with its own first letters."""

    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()
        texts = json.loads(self.bodies[-1])["texts"]
        for said in [*({"text": text[:20]} for text in texts), {"done": len(texts)}]:
            self.wfile.write(json.dumps(said).encode() + b"\n")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_full_queue_is_tried_again_and_a_broken_stream_is_not_taken_for_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMOLLM_API_KEY", "emollm_x")
    with serving(_Busy) as busy:
        with pytest.raises(ResourceError, match="answered 429: full"):
            Client(busy, tries=1).annotate(["a"])
        results = Client(busy).stream(["a", "b"])
        assert next(results)["index"] == 0
        with pytest.raises(ResourceError, match="broke off at text 1"):
            next(results)
    assert _Busy.seen == ["Bearer emollm_x"] * 3


@pytest.mark.parametrize("letter", ["a", "ж", "🙂", "\x01", '"', "\ud800"])
def test_a_request_of_a_stream_stays_below_what_the_endpoint_takes(letter: str) -> None:
    texts = [f"{n} {letter * 19_000}" for n in range(120)]
    with serving(_Reader) as url:
        results = list(Client(url).stream(iter(texts)))
    assert [int(result["text"].split()[0]) for result in results] == list(range(120))
    assert max(map(len, _Reader.bodies)) < 2**20
    _Reader.bodies.clear()


def test_small_texts_share_requests_and_one_text_is_no_list() -> None:
    with serving(_Reader) as url:
        assert len(list(Client(url).stream(str(n) for n in range(2500)))) == 2500
        with pytest.raises(ConfigError, match="list of strings"):
            next(Client(url).stream("posts.txt"))
    assert len(_Reader.bodies) == 3
    _Reader.bodies.clear()


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = "import sys, emollm.client; print({'torch', 'ray', 'pydantic', 'numpy', 'httpx'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"

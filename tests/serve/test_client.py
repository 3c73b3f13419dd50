"""The Python client against a real endpoint, and where there is none."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import httpx
import pytest

from emollm.client import Client, EndpointError, _pause_s
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
def test_a_refusal_of_the_endpoint_is_an_error_with_its_status(client: Client) -> None:
    with pytest.raises(EndpointError, match="unknown task 'nope'; choose from: EI-reg") as refused:
        client.annotate(["a"], tasks=["nope"])
    assert pickle.loads(pickle.dumps(refused.value)).status == 422
    with pytest.raises(ValueError, match=r"for one text: \[text\]"):
        client.annotate("a")


def test_an_unreachable_endpoint_is_reported() -> None:
    with pytest.raises(EndpointError, match=r"cannot be reached: .*refused"):
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
            # As proxies send it, too: a date that has passed.
            self.send_header("retry-after", "0" if len(self.seen) == 1 else formatdate(0, usegmt=True))
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


def test_a_full_queue_is_retried_and_a_broken_stream_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMOLLM_API_KEY", "emollm_x")
    with serving(_Busy) as busy:
        with pytest.raises(EndpointError, match="answered 429: full"):
            Client(busy, tries=1).annotate(["a"])
        results = Client(busy).stream(["a", "b"])
        assert next(results)["index"] == 0
        with pytest.raises(EndpointError, match="broke off at text 1"):
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
        with pytest.raises(ValueError, match="list of strings"):
            next(Client(url).stream("posts.txt"))
    assert len(_Reader.bodies) == 3
    _Reader.bodies.clear()


class _Cut(BaseHTTPRequestHandler):
    """An endpoint that is lost in the middle of an answer whose length it has announced."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        if "stream" in self.path:
            self.protocol_version = "HTTP/1.1"
            self.send_header("transfer-encoding", "chunked")
        else:
            self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b'c\r\n{"text": 1}\n\r\nff\r\n{"te' if "stream" in self.path else b'{"results": [')

    def log_message(self, *_: object) -> None:
        pass


def test_a_lost_connection_is_an_endpoint_error() -> None:
    with serving(_Cut) as url:
        with pytest.raises(EndpointError, match="/v1/annotate: the answer broke off"):
            Client(url).annotate(["a"])
        results = Client(url).stream(["a", "b"])
        assert next(results) == {"text": 1, "index": 0}
        with pytest.raises(EndpointError, match="broke off at text 1: IncompleteRead"):
            next(results)


@pytest.mark.parametrize(
    ("header", "pause_s"),
    [
        ("7", 7.0),
        ("99999", 300.0),
        (None, 1.0),
        ("soon", 1.0),
        ("nan", 1.0),
        (formatdate(0, usegmt=True), 0.0),
        (formatdate(4e9, usegmt=True), 300.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, pause_s: float) -> None:
    assert _pause_s(header) == pause_s


def test_the_file_alone_is_the_client(tmp_path: Path) -> None:
    shutil.copy(ROOT / "emollm" / "client.py", tmp_path / "copied.py")
    with serving(_Reader) as url:
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import copied; "
        code += f"print([r['text'] for r in copied.Client({url!r}).stream(['hey', 'you'])], 'emollm' in sys.modules)"
        command = [sys.executable, "-I", "-S", "-c", code]  # neither this folder nor installed packages
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['hey', 'you'] False"
    _Reader.bodies.clear()

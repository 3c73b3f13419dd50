"""A real HTTP server that speaks the completions of OpenAI, well or badly, for the tests of what asks one."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Response:
    """What goes over the wire."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    cut_off: bool = False
    """Whether the connection closes in the middle of the text."""
    delay_s: float = 0.0
    """Until the first header."""


Respond = Callable[[int, dict[str, Any]], Response]
"""Number of the request, from 0 and without those that look what the server can do, and its body."""


@dataclass
class Server:
    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)
    """Requests that look what the server can do."""
    keys: set[str | None] = field(default_factory=set)
    most_at_once: int = 0
    stop: Callable[[], None] = lambda: None
    """Let nobody listen any more; the address stays taken by nobody."""


def reply(text: str | None, tokens: Sequence[tuple[str, Mapping[str, float]]] = (), *, chat: bool = True) -> Response:
    """A completion; `tokens` are its tokens, each with the probabilities of those that could stand there."""
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    if tokens and chat:
        choice["logprobs"] = {
            "content": [
                {
                    "token": token,
                    "logprob": math.log(p[token]),
                    "top_logprobs": [{"token": other, "logprob": math.log(q)} for other, q in p.items()],
                }
                for token, p in tokens
            ]
        }
    elif tokens:
        choice["logprobs"] = {
            "tokens": [token for token, _ in tokens],
            "token_logprobs": [math.log(p[token]) for token, p in tokens],
            "top_logprobs": [{other: math.log(q) for other, q in p.items()} for _, p in tokens],
        }
    return Response(text=json.dumps({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 5}}))


def structure_of(body: Mapping[str, Any]) -> str:
    """The kind of structured output that a request asks for."""
    names = {"guided_regex": "guided", "response_format": "json_schema"}
    found = [names.get(n, n) for n in body if n in ("structured_outputs", "guided_regex", "regex", "grammar", *names)]
    return found[0] if found else "none"


def _look(body: Mapping[str, Any], structure: str, *, logprobs: bool, strict: bool) -> Response:
    """The answer to a request that looks what the server can do, of one that knows `structure`."""
    asked = structure_of(body)
    if asked not in ("none", structure) and strict:
        return Response(400, text=json.dumps({"error": f"unrecognized argument {asked}"}))
    said = (
        "Hello!" if asked != structure or asked == "none" else "zq7" if asked != "json_schema" else '{"answer": "zq7"}'
    )
    tops = {said: 0.5, **{f"other {n}": 0.02 for n in range(20)}} if logprobs and body.get("logprobs") else {}
    return reply(said, [(said, tops)] if tops else [], chat="messages" in body)


@contextmanager
def serving(
    respond: Respond,
    *,
    models: Sequence[str] = ("m",),
    structure: str = "none",
    logprobs: bool = False,
    strict: bool = False,
    port: int = 0,
) -> Iterator[Server]:
    """The server on a port of this machine, up inside the block. `strict` ones refuse what they do not know."""
    lock = threading.Lock()
    under_way = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(Response(text=json.dumps({"data": [{"id": name, "created": time.time()} for name in models]})))

        def do_POST(self) -> None:
            nonlocal under_way
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            is_look = "Say hello" in str(body.get("prompt") or body.get("messages"))
            with lock:
                seen = server.looks if is_look else server.requests
                number = len(seen)
                seen.append({"path": self.path, **body})
                server.keys.add(self.headers.get("authorization"))
                under_way += 1
                server.most_at_once = max(server.most_at_once, under_way)
            try:
                found = _look(body, structure, logprobs=logprobs, strict=strict) if is_look else respond(number, body)
            finally:
                with lock:
                    under_way -= 1
            time.sleep(found.delay_s)
            self._send(found)

        def _send(self, found: Response) -> None:
            content = found.text.encode()
            self.send_response(found.status)
            for name, value in {**found.headers, "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if found.cut_off else content)
            self.close_connection = self.close_connection or found.cut_off

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError, TimeoutError):  # of a client that did not wait
                super().handle()

    class Http(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 64

    http = Http(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=lambda: http.serve_forever(0.02), daemon=True)
    thread.start()

    def stop() -> None:
        http.shutdown()
        http.server_close()
        thread.join(timeout=5)

    server = Server(f"http://127.0.0.1:{http.server_address[1]}/v1", stop=stop)
    try:
        yield server
    finally:
        stop()

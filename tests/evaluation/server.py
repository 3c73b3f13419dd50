"""A real HTTP server that speaks the chat completions of OpenAI, well or badly, for the tests of the endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Respond = Callable[[int, dict[str, Any]], tuple[int, dict[str, str], str]]
"""Number of the request, from 0, and its body, to status, headers and body of the response."""


@dataclass
class Server:
    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most_at_once: int = 0


def reply(content: str | None) -> tuple[int, dict[str, str], str]:
    message = {"choices": [{"message": {"role": "assistant", "content": content}}]}
    return 200, {}, json.dumps(message | {"usage": {"prompt_tokens": 100, "completion_tokens": 5}})


@contextmanager
def serving(respond: Respond) -> Iterator[Server]:
    """The server on a free port of this machine, up inside the block."""
    lock = threading.Lock()
    under_way = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal under_way
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(server.requests)
                server.requests.append({"path": self.path, **body})
                server.keys.append(self.headers.get("authorization"))
                under_way += 1
                server.most_at_once = max(server.most_at_once, under_way)
            try:
                status, headers, text = respond(number, body)
            finally:
                with lock:
                    under_way -= 1
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(text.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}/v1")
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join(timeout=5)

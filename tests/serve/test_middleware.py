"""What stands around the routes, asked as a server asks it: who may ask, and bodies that do not come. No Ray."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emollm.serve.metrics import HttpMetrics
from emollm.serve.middleware import Admit, AskForKey, LimitBody

HERE = ("127.0.0.1", 5000)


async def application(_scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message.get("body", b"")})


def ask(
    app: ASGIApp,
    *parts: bytes,
    method: str = "POST",
    path: str = "/v1/annotate",
    client: tuple[str, int] | None = HERE,
    complete: bool = True,
    **headers: str,
) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers of the answer; a body that is not `complete` stalls after its parts."""
    said: list[Message] = []
    coming = [{"type": "http.request", "body": part, "more_body": True} for part in parts]

    async def receive() -> Message:
        if coming:
            return coming.pop(0)
        if not complete:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        said.append(message)

    usual = {"host": "127.0.0.1:8000", "content-type": "application/json"}
    named = usual | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "client": client,
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "emollm": {"request_id": "r"},
    }
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 10))
    start, body = said
    return start["status"], body["body"], {name.decode(): value.decode() for name, value in start["headers"]}


@pytest.mark.parametrize("path", ["/v1/annotate", "/v1/model", "/", "/docs", "/page/app.js"])
@pytest.mark.parametrize(
    "asked",
    [
        {"client": ("10.1.2.3", 5000)},
        {"client": None},
        {"host": "rebound.example:8000"},
        {"host": ""},
        {"x_forwarded_for": "127.0.0.1"},
        {"X-Forwarded-Proto": "https"},
        {"forwarded": "for=10.1.2.3"},
        {"via": "1.1 proxy"},
    ],
)
def test_without_keys_nobody_from_elsewhere_is_answered(path: str, asked: dict[str, Any]) -> None:
    status, body, _ = ask(AskForKey(application, {}, open_access=False), path=path, **asked)
    assert (status, json.loads(body)["error"]["code"]) == (403, "no_keys")
    assert ask(AskForKey(application, {}, open_access=True), path=path, **asked)[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "127.0.0.2"])
def test_without_keys_this_machine_is_answered(host: str) -> None:
    assert ask(AskForKey(application, {}, open_access=False), host=host)[0] == 200


def test_with_keys_a_proxy_may_forward_requests_and_load_balancers_need_no_key() -> None:
    from emollm.serve.auth import hash_key

    foreign: dict[str, Any] = {"client": ("10.1.2.3", 5000), "host": "api.example", "forwarded": "for=10.9.9.9"}
    app = AskForKey(application, {"ana": hash_key("secret")}, open_access=False)
    assert ask(app, authorization="Bearer secret", **foreign)[0] == 200
    assert ask(app, authorization="Bearer other", **foreign)[0] == 401
    assert ask(AskForKey(application, {}, open_access=False), path="/readyz", method="GET", **foreign)[0] == 200


def test_an_upload_that_stalls_is_408_and_gives_its_place_back() -> None:
    app = Admit(
        LimitBody(application, max_bytes=100, patience_s=0.05), HttpMetrics(), most=1, patience_s=1
    )  # one place: what is not given back is 429
    for _ in range(2):
        status, body, headers = ask(app, b'{"texts": [', complete=False)
        assert (status, json.loads(body)["error"]["code"]) == (408, "body_late")
        assert headers["connection"] == "close"
    assert ask(app, b"whole ", b"body")[:2] == (200, b"whole body")


def test_a_long_body_is_refused_and_routes_without_a_body_do_not_read_one() -> None:
    app = LimitBody(application, max_bytes=10, patience_s=0.05)
    assert ask(app, b"x" * 11)[0] == 413
    assert ask(app, content_length="11", complete=False)[0] == 413
    for method, path in (("GET", "/v1/annotate"), ("GET", "/"), ("POST", "/"), ("POST", "/page/app.js")):
        # Handed on as it comes: these routes do not read, so nothing can wait or fill memory.
        assert ask(app, b"x" * 11, complete=False, method=method, path=path)[:2] == (200, b"x" * 11)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("application/problem+json", 200),
        ("application/x-www-form-urlencoded", 415),  # curl -d, and a form
        ("text/plain", 415),
        ("application/jsonp", 415),
        ("", 415),
    ],
)
def test_a_body_without_the_json_content_type_is_refused_with_a_hint(sent: str, status: int) -> None:
    answer, body, _ = ask(LimitBody(application, max_bytes=10, patience_s=1), b"{}", content_type=sent)
    assert answer == status
    assert status == 200 or "content-type: application/json" in json.loads(body)["error"]["message"]

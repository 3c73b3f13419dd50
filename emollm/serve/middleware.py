"""Middleware of every route, from the outside in: log line and security headers, access, admission, the body."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import ray.serve
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emollm.serve.auth import is_loopback, is_loopback_host, key_name
from emollm.serve.metrics import HttpMetrics
from emollm.serve.problems import Problem, log, report

OPEN_PATHS = ("/", "/docs", "/openapi.json", "/healthz", "/readyz")
"""These need no key: they return no answers of the model."""
OPEN_FOLDER = "/page/"
COUNTED_FOLDER = "/v1/annotate"
"""Routes that take a body and use the model."""
PROXY_HEADERS = ("forwarded", "x-forwarded-", "x-real-ip", "via")
"""Prefixes of headers that show that the peer is a proxy."""
QUIET_PATHS = ("/healthz", "/readyz")
"""Polled by load balancers: counted, not logged."""

_JSON = re.compile(r"application/(\S+\+)?json\s*(;|$)", re.IGNORECASE)

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'; "
    "object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def local_path(scope: Scope) -> str:
    """The path below the application's route prefix, which servers leave in it."""
    root: str = scope.get("root_path", "").rstrip("/")
    path: str = scope["path"]
    return path[len(root) :] or "/" if root and path.startswith(root) else path


class Record:
    """Outermost: an id and a log line per request, security headers per answer, and the last resort for errors."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, *, log_errors: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._log_errors = log_errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes: dict[str, Any] = {"request_id": ray.serve.context._get_serve_request_context().request_id}
        scope["emollm"] = notes
        status = 499  # the client disconnected before the response
        started = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if local_path(scope).startswith("/v1/"):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            report(error, trace=self._log_errors)
            if status != 499:  # the response has begun, so it can only be aborted
                raise ConnectionError("the answer broke off") from None
            problem = Problem(500, "internal", "this is an error of the endpoint; report the request_id")
            await problem.response(notes["request_id"])(scope, receive, send_with_headers)
        finally:
            self._write(scope, notes, status, time.perf_counter() - started)

    def _write(self, scope: Scope, notes: Mapping[str, Any], status: int, seconds: float) -> None:
        # The route's pattern, not the path: arbitrary paths must not become metric labels.
        route = getattr(scope.get("route"), "path", "other")
        key, texts = notes.get("key", ""), notes.get("texts", 0)
        self._metrics.request(route=route, status=status, key=key, seconds=seconds, texts=texts)
        if local_path(scope) not in QUIET_PATHS:
            said = {"method": scope["method"], "path": route, "status": status, "ms": round(seconds * 1000, 1)}
            log.info("request", extra={**said, "key": key, "texts": texts, "tokens": notes.get("tokens", 0)})


class AskForKey:
    """Access: holders of a key; where there are no keys, this machine only."""

    def __init__(self, app: ASGIApp, keys: Mapping[str, str], *, open_access: bool) -> None:
        self._app = app
        self._keys = keys
        self._open_access = open_access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._refusal(scope)):
            await problem.response(scope["emollm"]["request_id"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        path = local_path(scope)
        if self._open_access or path in QUIET_PATHS:
            return None
        if not self._keys:
            # Checked per request, since the address of `serve run --host` cannot be checked beforehand.
            if _from_this_machine(scope):
                return None
            message = (
                "this endpoint has no API keys, so it answers its own machine alone, asked as localhost or 127.0.0.1 "
                "and through no proxy"
            )
            return Problem(403, "no_keys", message)
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return None
        headers = Headers(scope=scope)
        sent = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("x-api-key", "")
        name = key_name(sent, self._keys)
        if name is None:
            what = "is not known" if sent else "is missing"
            return Problem(401, "unauthorized", f"the API key {what}; send it as `Authorization: Bearer KEY`")
        scope["emollm"]["key"] = name
        return None


def _from_this_machine(scope: Scope) -> bool:
    """The peer's address is not enough: a proxy on this machine forwards requests of others, and a web site may have
    its name resolved to this machine (DNS rebinding), so that a browser treats both as one site."""
    headers = Headers(scope=scope)
    return (
        is_loopback((scope.get("client") or ("",))[0])
        and is_loopback_host(headers.get("host", ""))
        and not any(name.lower().startswith(PROXY_HEADERS) for name in headers)
    )


class Admit:
    """Bounds the requests in progress or waiting; each counts until its last byte is sent or its client disconnects."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, *, most: int, patience_s: float) -> None:
        self._app = app
        self._metrics = metrics
        self._most = most
        self._patience_s = patience_s
        self._at_work = 0
        self._mean_seconds = 1.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not local_path(scope).startswith(COUNTED_FOLDER):
            await self._app(scope, receive, send)
            return
        if self._at_work >= self._most:
            wait = min(self._mean_seconds, self._patience_s)
            message = f"{self._at_work} requests are in progress or waiting; try again later"
            problem = Problem(429, "queue_full", message, retry_after_s=wait)
            await problem.response(scope["emollm"]["request_id"])(scope, receive, send)
            return
        self._count(1)
        started = time.perf_counter()
        try:
            await self._app(scope, receive, send)
        finally:
            self._count(-1)
            self._mean_seconds += 0.1 * (time.perf_counter() - started - self._mean_seconds)

    def _count(self, by: int) -> None:
        self._at_work += by
        self._metrics.at_work(self._at_work)


class LimitBody:
    """Refuses a body that is not announced as JSON, is too long, or does not arrive in time."""

    def __init__(self, app: ASGIApp, max_bytes: int, patience_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not local_path(scope).startswith(COUNTED_FOLDER):
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._patience_s):
                body = await self._read(Headers(scope=scope), receive)
        except TimeoutError:
            problem = Problem(408, "body_late", f"the body did not come within {self._patience_s:g} s")
            problem.headers["Connection"] = "close"  # the rest of it is not read
        except Problem as error:
            problem = error
        else:
            await self._app(scope, _replayed(body, receive), send)
            return
        await problem.response(scope["emollm"]["request_id"])(scope, receive, send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        # Otherwise a form on any web site could send requests here: browsers send a preflight request only for JSON.
        if not _JSON.match(headers.get("content-type", "")):
            raise Problem(415, "not_json", "send the body as JSON with the header `content-type: application/json`")
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_bytes:
                raise self._too_large()
            more = message.get("more_body", False)
        return b"".join(parts)

    def _too_large(self) -> Problem:
        message = f"a body may have {self._max_bytes:,} bytes; send the texts in several requests"
        return Problem(413, "too_large", message, fields=[("body", "too large")])


def _replayed(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    first = True

    async def again() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again

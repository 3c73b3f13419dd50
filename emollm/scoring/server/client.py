"""Requests to inference servers: bounded concurrency, retries with jitter, and waiting for a server that is down.

A failure of a single request (429, 500, garbage, an interrupted response, a timeout) is retried a few times. A failure
of a server (no connection, 502 to 504, a wrong key, another model) stops all requests to it: one request at a time
checks whether it is back, and after `patience_s` the others fail at once until it is.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from emollm.core.errors import ConfigError
from emollm.scoring.server.options import RequestOptions
from emollm.scoring.server.usage import Usage

T = TypeVar("T")

_TRIED_AGAIN = frozenset((408, 409, 425, 429, 500))
_AWAY = frozenset((401, 403, 404, 502, 503, 504))
"""Statuses that mean a failure of the server, not of a request."""
_PROBE_EVERY_S = 2.0
_CONNECT_S = 10.0


class RequestError(Exception):
    """A request that failed for good; the reason does not contain the key."""

    def __init__(self, reason: str, status: int | None = None, *, away: bool = False, wait_s: float | None = None):
        super().__init__(reason)
        self.reason, self.status = reason, status
        self.away = away
        """Whether the server is to blame, and not the request."""
        self.wait_s = wait_s
        """The wait that Retry-After asks for."""

    @property
    def is_refusal(self) -> bool:
        """Whether the same request would be refused again."""
        return self.status is not None and self.status not in _TRIED_AGAIN | _AWAY and self.status < 500


@dataclass(slots=True, eq=False)
class _Server:
    url: str
    free: asyncio.Semaphore | None = None
    """Of the event loop that is running."""
    under_way: int = 0
    away_since: float | None = None
    next_look: float = 0.0

    def went_away(self, wait_s: float | None) -> None:
        now = time.monotonic()
        if self.away_since is None:
            self.away_since = now
        self.next_look = now + max(_PROBE_EVERY_S, wait_s or 0.0)


@dataclass(slots=True)
class Servers:
    """A context manager, entered in each event loop that asks; which servers are away is remembered."""

    urls: Sequence[str]
    options: RequestOptions
    usage: Usage
    _servers: list[_Server] = field(init=False)
    _http: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_urls(self.urls)
        self._servers = [_Server(url.rstrip("/")) for url in self.urls]

    async def __aenter__(self) -> Servers:
        import httpx

        key = self.options.key
        for server in self._servers:
            server.free, server.under_way = asyncio.Semaphore(self.options.in_flight), 0
            server.next_look = 0.0
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(self.options.timeout_s, connect=min(_CONNECT_S, self.options.timeout_s), pool=None),
            limits=httpx.Limits(max_connections=None),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    @property
    def capacity(self) -> int:
        """Largest number of concurrent requests."""
        return self.options.in_flight * len(self._servers)

    async def post(self, path: str, body: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """What `read` makes of the JSON object that one of the servers returns. Raises RequestError.

        An object that `read` refuses is asked for again, like an interrupted response.
        """
        attempt = 0
        while True:
            server = await self._available()
            assert server.free is not None
            try:
                async with server.free:
                    server.under_way += 1
                    try:
                        found = read(await self.once(server.url, path, body))
                    finally:
                        server.under_way -= 1
            except RequestError as failed:
                if not failed.away:
                    server.away_since = None
                if failed.is_refusal:
                    raise
                if failed.away:
                    server.went_away(failed.wait_s)
                    self._give_up_on(server, failed.reason)
                elif attempt == self.options.retries:
                    raise
                else:
                    await asyncio.sleep(self.options.pause_s(attempt, failed.wait_s, random.random()))
                    attempt += 1
                self.usage.retried += 1
                continue
            server.away_since = None
            return found

    async def _available(self) -> _Server:
        """The least busy available server; waits for one within the patience."""
        while True:
            there = [server for server in self._servers if server.away_since is None]
            if there:
                return min(there, key=lambda server: server.under_way)
            server = min(self._servers, key=lambda each: each.next_look)
            left = server.next_look - time.monotonic()
            if left <= 0:
                # Only this request checks; the others wait for its result.
                server.next_look = time.monotonic() + self.options.timeout_s
                return server
            self._give_up_on(server, "it does not answer")
            await asyncio.sleep(min(left, _PROBE_EVERY_S) * (1 + random.random() / 4))

    def _give_up_on(self, server: _Server, reason: str) -> None:
        """Raise if no server has been available for `patience_s`."""
        if any(each.away_since is None for each in self._servers):
            return
        assert server.away_since is not None
        away_s = time.monotonic() - max(each.away_since or 0.0 for each in self._servers)
        if away_s >= self.options.patience_s:
            raise RequestError(f"{server.url}: {reason}", away=True)

    async def once(self, url: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """One request, GET without a body. Raises RequestError."""
        import httpx

        if body is not None:
            self.usage.requests += 1
        try:
            send = self._http.get(f"{url}{path}") if body is None else self._http.post(f"{url}{path}", json=body)
            # A server that keeps sending a few bytes never times out by itself.
            response = await asyncio.wait_for(send, self.options.timeout_s)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise RequestError(self._told(error), away=True) from None
        except (httpx.HTTPError, TimeoutError) as error:
            raise RequestError(self._told(error)) from None
        if response.status_code != 200:
            status, wait_s = response.status_code, retry_after_s(response.headers.get("retry-after"))
            detail = self._without_key(" ".join(response.text.split()))[:160]
            raise RequestError(f"HTTP {status} {detail}".strip(), status, away=status in _AWAY, wait_s=wait_s)
        try:
            found = json.loads(response.content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RequestError(f"not a JSON object: {self._without_key(' '.join(response.text.split()))[:80]!r}")
        return found

    def _told(self, error: Exception) -> str:
        return self._without_key(f"{type(error).__name__}: {error}".rstrip(": "))

    def _without_key(self, text: str) -> str:
        # Some servers quote the key that they refuse.
        key = self.options.key
        return text.replace(key, "***") if key else text


def check_urls(urls: Sequence[str]) -> None:
    """Raise ConfigError for an invalid address of a server, or one that would put a secret into outputs."""
    import urllib.parse

    if not urls:
        raise ConfigError("--engine server needs --server URL, such as http://127.0.0.1:8000/v1")
    for url in urls:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            shown = url.rpartition("@")[2]
            raise ConfigError(f"--server {shown!r} must be an address such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ConfigError(
                f"--server {parts.scheme}://{parts.hostname}: an address with a user, password or query would be "
                "written to outputs; put the key into the environment variable that --requests.key-variable names"
            )


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks to wait: a number, or a date (RFC 9110, 10.2.3). None without one."""
    if not header:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    except ValueError:
        return None

"""A client of the endpoint: one file on the standard library alone; copy it wherever you need it.

from emollm.client import Client

client = Client("http://127.0.0.1:8000")
client.annotate(["what a day :)"], tasks=["V-reg", "E-c"])   # a list of dicts, one per text
posts = (line.rstrip("\n") for line in open("posts.txt", encoding="utf-8"))
for result in client.stream(posts):                          # any number of texts, results as they arrive
    ...
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.utils import mktime_tz, parsedate_tz
from http.client import HTTPException
from typing import Any

Tasks = Sequence[str | dict[str, Any]] | None
Contexts = Sequence[str | list[str] | None] | None
Targets = Sequence[str | None] | None

KEY_VARIABLE = "EMOLLM_API_KEY"
_TEXTS_PER_REQUEST = 1000
_BYTES_PER_REQUEST = 1_000_000
"""The page uses the same: well below the endpoint's limit of 4 MiB."""
_LONGEST_WAIT_S = 300.0
"""Of one pause before another try, whatever Retry-After says."""


class EndpointError(RuntimeError):
    """The endpoint refused a request, could not be reached, or its answer broke off."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; None where there was no complete answer."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.status)


class Client:
    """Asks one endpoint. Safe to share between threads."""

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, key: str | None = None, timeout_s: float = 120, tries: int = 5
    ) -> None:
        """`key` None: $EMOLLM_API_KEY, if it is set. A request is tried up to `tries` times while the queue is full or
        the model is loading, after the pause that the endpoint asks for.
        """
        self._url = url.rstrip("/")
        self._key = key or os.environ.get(KEY_VARIABLE)
        self._timeout_s = timeout_s
        self._tries = tries

    def annotate(
        self,
        texts: Sequence[str],
        tasks: Tasks = None,
        *,
        contexts: Contexts = None,
        targets: Targets = None,
        **extras: Any,
    ) -> list[dict[str, Any]]:
        """The results of at most 256 texts, in order: `truncated`, `not_english`, `notes`, `answers`, one per question.

        `tasks` are names, or tasks of your own such as `{"labels": ["relief", "dread"]}`; None: all of the model.
        `contexts` and `targets` have one entry per text, or are None. `extras` are abstain, second, sets and explain,
        as in the request's schema; what they ask for stands in each answer's `beside`. Raises ValueError where `texts`
        is not a list, and EndpointError where the endpoint refuses the request (`status` says why), has no room or
        cannot be reached.
        """
        _check_list(texts)
        beside = {name: list(each) for name, each in (("contexts", contexts), ("targets", targets)) if each is not None}
        return list(self._fetch("/v1/annotate", _body(texts, tasks, {**extras, **beside}))["results"])

    def stream(self, texts: Iterable[str], tasks: Tasks = None, **extras: Any) -> Iterator[dict[str, Any]]:
        """The results of any number of texts, in order, as they arrive; `index` counts from 0. Raises as `annotate`."""
        done = 0
        _check_list(texts)
        for part in _batched(texts):
            for result in self._stream(_body(part, tasks, extras), done):
                yield {**result, "index": done}
                done += 1

    def tasks(self) -> list[dict[str, Any]]:
        """The tasks that the model answers."""
        return list(self._fetch("/v1/tasks"))

    def model(self) -> dict[str, Any]:
        """The model that answers."""
        return dict(self._fetch("/v1/model"))

    def _fetch(self, path: str, body: bytes | None = None) -> Any:
        with self._open(path, body) as response:
            try:
                return json.load(response)
            except (OSError, HTTPException, ValueError) as error:
                raise EndpointError(f"{self._url}{path}: the answer broke off ({error!r})") from None

    def _stream(self, body: bytes, done: int) -> Iterator[dict[str, Any]]:
        """The lines of one request, whose first text is number `done`."""
        with self._open("/v1/annotate/stream", body) as response:
            reason = "its last line is missing"
            try:
                for line in response:
                    result = json.loads(line)
                    if "done" in result:
                        return
                    if "error" in result:
                        reason = result["error"]["message"]
                        break
                    yield result
                    done += 1
            except (OSError, HTTPException, ValueError) as error:  # IncompleteRead is an HTTPException alone
                reason = repr(error)
        raise EndpointError(f"the stream broke off at text {done}: {reason}")

    def _open(self, path: str, body: bytes | None) -> Any:
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url + path, body, headers)
        attempt = 0
        while True:
            attempt += 1
            try:
                return urllib.request.urlopen(request, timeout=self._timeout_s)
            except urllib.error.HTTPError as error:
                if error.code not in (429, 503) or attempt == self._tries:
                    raise _refusal(error) from None
                time.sleep(_pause_s(error.headers.get("retry-after")))
            except (OSError, HTTPException) as error:
                raise EndpointError(f"{self._url} cannot be reached: {getattr(error, 'reason', error)!s}") from None


def _pause_s(header: str | None) -> float:
    """Retry-After is a number of seconds or a date (RFC 9110, section 10.2.3); proxies send either. Else: 1."""
    text = (header or "1").strip()
    date = parsedate_tz(text)
    if date is None:
        return min(float(text), _LONGEST_WAIT_S) if text.isdecimal() else 1.0
    return min(max(mktime_tz(date) - time.time(), 0.0), _LONGEST_WAIT_S)


def _check_list(texts: Iterable[str]) -> None:
    if isinstance(texts, (str, bytes)):
        raise ValueError("texts must be a list of strings; for one text: [text]")


def _body(texts: Sequence[str], tasks: Tasks, extras: Mapping[str, Any]) -> bytes:
    return _json({"texts": list(texts), "tasks": None if tasks is None else list(tasks), **extras})


def _json(value: Any) -> bytes:
    # A lone surrogate, as broken scrapers leave it, cannot be sent: it becomes "?".
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _batched(texts: Iterable[str]) -> Iterator[list[str]]:
    """As many texts as one request may hold; a text's size is that of its JSON."""
    part: list[str] = []
    size = 0
    for text in texts:
        cost = len(_json(text))
        if part and (len(part) == _TEXTS_PER_REQUEST or size + cost > _BYTES_PER_REQUEST):
            yield part
            part, size = [], 0
        part.append(text)
        size += cost
    if part:
        yield part


def _refusal(error: urllib.error.HTTPError) -> EndpointError:
    try:
        message = json.load(error)["error"]["message"]
    except (ValueError, KeyError, TypeError, OSError, HTTPException):
        message = error.reason
    return EndpointError(f"{error.url} answered {error.code}: {message}", error.code)

"""A client of the endpoint, on the standard library alone: one file, good to copy.

from emollm.client import Client

client = Client("http://127.0.0.1:8000")
client.annotate(["what a day :)"], tasks=["V-reg", "E-c"])   # a list of dicts, one a text
posts = (line.rstrip("\n") for line in open("posts.txt", encoding="utf-8"))
for result in client.stream(posts):                          # any number, as they come
    ...
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from emollm.core.errors import ConfigError, ResourceError

KEY_VARIABLE = "EMOLLM_API_KEY"
_TEXTS_A_REQUEST = 1000
_BYTES_A_REQUEST = 1_000_000
"""As the page has it: well below the endpoint's limit of 4 MiB."""


class Client:
    """Asks one endpoint. Safe to share between threads."""

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, key: str | None = None, timeout_s: float = 120, tries: int = 5
    ) -> None:
        """`key` None: $EMOLLM_API_KEY, if it is set. A request is tried `tries` times where the queue is full or the
        model is loading, after the time that the endpoint names.
        """
        self._url = url.rstrip("/")
        self._key = key or os.environ.get(KEY_VARIABLE)
        self._timeout_s = timeout_s
        self._tries = tries

    def annotate(self, texts: Sequence[str], tasks: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The results of at most 256 texts, in order: `truncated`, and `answers`, one a question.

        `tasks` None: all of the model. Raises ConfigError for what the endpoint refuses, ResourceError where it
        cannot be reached or has no room.
        """
        _check_list(texts)
        with self._open("/v1/annotate", _body(texts, tasks)) as response:
            results: list[dict[str, Any]] = json.load(response)["results"]
        return results

    def stream(self, texts: Iterable[str], tasks: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """The results of any number of texts, in order and as they come; `index` counts from 0."""
        done = 0
        _check_list(texts)
        for part in _batched(texts):
            with self._open("/v1/annotate/stream", _body(part, tasks)) as response:
                for line in response:
                    result = json.loads(line)
                    if "error" in result:
                        raise ResourceError(f"text {done}: {result['error']['message']}")
                    if "done" in result:
                        break
                    yield {**result, "index": done}
                    done += 1
                else:
                    raise ResourceError(f"the answer broke off at text {done}")

    def tasks(self) -> list[dict[str, Any]]:
        """What can be asked."""
        return list(self._get("/v1/tasks"))

    def model(self) -> dict[str, Any]:
        """Which model answers."""
        return dict(self._get("/v1/model"))

    def _get(self, path: str) -> Any:
        with self._open(path, None) as response:
            return json.load(response)

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
                time.sleep(float(error.headers.get("retry-after", 1)))
            except OSError as error:
                raise ResourceError(f"{self._url} cannot be reached: {getattr(error, 'reason', error)}") from None


def _check_list(texts: Iterable[str]) -> None:
    if isinstance(texts, str):
        raise ConfigError("texts must be a list of strings; for one text: [text]")


def _body(texts: Sequence[str], tasks: Sequence[str] | None) -> bytes:
    return _json({"texts": list(texts), "tasks": None if tasks is None else list(tasks)})


def _json(value: Any) -> bytes:
    # A lone surrogate, as broken scrapers leave it, cannot be sent: it becomes "?".
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _batched(texts: Iterable[str]) -> Iterator[list[str]]:
    """As many texts as one request may hold; what a text weighs is known once it is JSON."""
    part: list[str] = []
    size = 0
    for text in texts:
        cost = len(_json(text))
        if part and (len(part) == _TEXTS_A_REQUEST or size + cost > _BYTES_A_REQUEST):
            yield part
            part, size = [], 0
        part.append(text)
        size += cost
    if part:
        yield part


def _refusal(error: urllib.error.HTTPError) -> ConfigError | ResourceError:
    try:
        message = json.load(error)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = error.reason
    kind = ConfigError if 400 <= error.code < 500 and error.code != 429 else ResourceError
    return kind(f"{error.url} answered {error.code}: {message}")

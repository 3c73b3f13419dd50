"""Any OpenAI-compatible server: GPT-4 class models, vLLM, Ollama. Many questions at a time, each asked until answered.

Replies are kept in a file and never paid for twice. A question that fails for good is a prediction with an error. The
key is read from the environment and written nowhere.
"""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from emollm.core.errors import ConfigError
from emollm.core.options import Config
from emollm.evaluation.baselines.chat import Messages, messages, num_tokens, reply_prediction
from emollm.metrics.predictions import Prediction
from emollm.metrics.questions import GoldQuestion

ENDPOINT_FAILED = "endpoint_failed"
_RETRIED = frozenset((408, 409, 425, 429, 500, 502, 503, 504))
_LONGEST_WAIT_S = 60.0


class EndpointConfig(Config):
    """An OpenAI-compatible server."""

    url: str | None = None
    """Address up to /v1, such as http://127.0.0.1:11434/v1."""
    model: str | None = None
    """Model name to ask it for."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; one that is not set sends none."""
    concurrency: int = Field(8, ge=1)
    """Requests under way at a time."""
    retries: int = Field(5, ge=0)
    """Times a request is made again after 429, a 5xx, a timeout or garbage; Retry-After is kept to."""
    timeout_s: float = Field(60.0, gt=0)
    """Seconds to wait for one reply."""
    cache: Path = Path("endpoint-cache.jsonl")
    """File of replies that are not asked for again."""
    price_in: float = Field(0.0, ge=0)
    """Price of a million prompt tokens, for the estimate."""
    price_out: float = Field(0.0, ge=0)
    """Price of a million reply tokens."""
    max_cost: float | None = Field(None, ge=0)
    """Refuse to start if the estimate is above this. None: no limit."""


@dataclass(slots=True)
class Usage:
    """What a run of questions took."""

    requests: int = 0
    cached: int = 0
    retried: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    estimated_cost: float = 0.0
    """Before, from lengths, of what the cache does not hold."""
    cost: float = 0.0
    """After, from the tokens that the server counted."""


@dataclass(eq=False)  # an exception is told from another by identity
class _RequestError(Exception):
    reason: str
    status: int | None = None
    wait_s: float | None = None
    """What Retry-After asks for."""


def predict_endpoint(
    config: EndpointConfig,
    questions: Sequence[GoldQuestion],
    *,
    on_rows: Callable[[int], None] = lambda _done: None,
) -> tuple[list[Prediction], Usage]:
    """Ask the server all questions; one prediction each, in order.

    Raises ConfigError where no answer can be expected: no address, a wrong key or model, a server that does not
    answer the first question, an estimate above `max_cost`.
    """
    if not config.url or not config.model:
        raise ConfigError("the endpoint baseline needs --endpoint.url (http://HOST/v1) and --endpoint.model")
    if not config.url.startswith(("http://", "https://")):
        raise ConfigError(f"--endpoint.url {config.url!r} must begin with http:// or https://")
    asked = [messages(question) for question in questions]
    cache = _Cache(config.cache)
    keys = [_key(config, one) for one in asked]
    new = [i for i, key in enumerate(keys) if key not in cache.replies]
    usage = Usage(cached=len(keys) - len(new))
    usage.estimated_cost = _cost(config, *num_tokens([asked[i] for i in new], [questions[i].task for i in new]))
    if config.max_cost is not None and usage.estimated_cost > config.max_cost:
        raise ConfigError(
            f"{len(new):,} questions are estimated at {usage.estimated_cost:.2f}, above --endpoint.max-cost "
            f"{config.max_cost:g}; ask fewer with --slow-rows, or raise it"
        )
    on_rows(usage.cached)
    failures = asyncio.run(_Client(config, cache, usage, on_rows).ask([(keys[i], asked[i]) for i in new]))
    usage.cost = _cost(config, usage.prompt_tokens, usage.reply_tokens)
    return [
        reply_prediction(question, cache.replies[key])
        if key in cache.replies
        else Prediction(question=question, value=None, error=f"{ENDPOINT_FAILED}: {failures[key]}")
        for question, key in zip(questions, keys, strict=True)
    ], usage


@dataclass(slots=True)
class _Cache:
    """Replies by the hash of what was asked, a JSON line each."""

    path: Path
    replies: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path.is_file():
            return
        # A crash may have cut the last line off, in the middle of a letter too.
        text = self.path.read_text(encoding="utf-8", errors="replace")
        if text and not text.endswith("\n"):
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")
        # Not splitlines: a reply may hold U+2028 or U+0085, which JSON leaves as they are.
        for raw in text.split("\n"):
            try:
                row = json.loads(raw)
                self.replies[str(row["key"])] = str(row["reply"])
            except (ValueError, KeyError, TypeError):
                continue  # cut off: asked again

    def add(self, key: str, reply: str) -> None:
        self.replies[key] = reply
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "reply": reply}, ensure_ascii=False) + "\n")


@dataclass(slots=True)
class _Client:
    config: EndpointConfig
    cache: _Cache
    usage: Usage
    on_rows: Callable[[int], None]

    async def ask(self, asked: Sequence[tuple[str, Messages]]) -> dict[str, str]:
        """Put the replies into the cache; return the reasons of those that failed, by key."""
        import httpx

        distinct = list(dict(asked).items())
        failures: dict[str, str] = {}
        key = os.environ.get(self.config.key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limit = asyncio.Semaphore(self.config.concurrency)
        async with httpx.AsyncClient(headers=headers, timeout=self.config.timeout_s) as http:

            async def one(key: str, said: Messages) -> None:
                async with limit:
                    try:
                        self.cache.add(key, await self._patiently(http, said))
                    except _RequestError as failed:
                        if failed.status in (401, 403, 404):
                            raise
                        failures[key] = failed.reason
                        self.usage.failed += 1
                    self.on_rows(1)

            try:
                if distinct:
                    # The first alone: a wrong address or key costs one request, not a thousand.
                    await one(*distinct[0])
                    if failures:
                        raise _RequestError(next(iter(failures.values())))
                    async with asyncio.TaskGroup() as group:
                        for item in distinct[1:]:
                            group.create_task(one(*item))
            except* _RequestError as found:
                raise ConfigError(
                    f"{self.config.url} does not answer for {self.config.model!r}: {_first(found).reason}; check "
                    f"--endpoint.url, --endpoint.model and ${self.config.key_variable}"
                ) from None
        return failures

    async def _patiently(self, http: Any, said: Messages) -> str:
        for attempt in range(self.config.retries + 1):
            try:
                return await self._once(http, said)
            except _RequestError as failed:
                if attempt == self.config.retries or (failed.status and failed.status not in _RETRIED):
                    raise
                self.usage.retried += 1
                # Doubling, with a random half so that those who were refused together do not come back together.
                wait_s = 0.5 * 2**attempt * random.uniform(0.5, 1.0) if failed.wait_s is None else failed.wait_s
                await asyncio.sleep(min(wait_s, _LONGEST_WAIT_S))
        raise AssertionError

    async def _once(self, http: Any, said: Messages) -> str:
        import httpx

        self.usage.requests += 1
        body = {"model": self.config.model, "messages": said, "temperature": 0, "max_tokens": 64}
        assert self.config.url
        try:
            response = await http.post(f"{self.config.url.rstrip('/')}/chat/completions", json=body)
        except httpx.HTTPError as error:
            raise _RequestError(f"{type(error).__name__}: {error}".rstrip(": ")) from None
        if response.status_code != 200:
            detail = " ".join(response.text.split())[:120]
            wait_s = retry_after_s(response.headers.get("retry-after"))
            raise _RequestError(f"HTTP {response.status_code} {detail}".strip(), response.status_code, wait_s)
        try:
            data = response.json()
            reply = data["choices"][0]["message"]["content"]
            tokens = data.get("usage") or {}
            self.usage.prompt_tokens += int(tokens.get("prompt_tokens", 0))
            self.usage.reply_tokens += int(tokens.get("completion_tokens", 0))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise _RequestError(f"not a chat completion: {' '.join(response.text.split())[:80]!r}") from None
        if reply is None:
            raise _RequestError("an empty reply")
        return str(reply)


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


def _first(group: BaseExceptionGroup[_RequestError]) -> _RequestError:
    found = group.exceptions[0]
    return found if isinstance(found, _RequestError) else _first(found)


def _cost(config: EndpointConfig, prompt_tokens: int, reply_tokens: int) -> float:
    return (prompt_tokens * config.price_in + reply_tokens * config.price_out) / 1e6


def _key(config: EndpointConfig, said: Messages) -> str:
    return hashlib.sha256(json.dumps([config.url, config.model, said], sort_keys=True).encode()).hexdigest()

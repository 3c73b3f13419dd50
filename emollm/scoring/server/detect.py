"""Detects the features of a server with test requests: the model's name, structured output, log-probabilities.

Servers ignore unknown options, so structured output counts only if a reply has a form that no model
would generate by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from emollm.core.bases import bundled
from emollm.core.card import CARD_FILE
from emollm.core.digest import model_digest
from emollm.core.errors import ConfigError, ModelError
from emollm.core.prompts import Question
from emollm.core.tasks import Kind, Task
from emollm.scoring.server.asked import ANSWER
from emollm.scoring.server.client import RequestError, Servers
from emollm.scoring.server.forms import structured
from emollm.scoring.server.options import RequestOptions
from emollm.scoring.server.readout import Reply
from emollm.scoring.server.usage import Usage
from emollm.scoring.server.wire import PATHS, read_response

T = TypeVar("T")

STRUCTURES = ("structured_outputs", "json_schema", "guided", "regex", "grammar")
"""Kinds of structured output in the order in which they are tried: vLLM, response_format of OpenAI and many others,
older vLLM, SGLang, llama.cpp. Regular expressions and grammars give shorter replies than JSON."""

_PROBE = Question(
    Task(
        name="probe", kind=Kind.SINGLE_LABEL, title="", source="", metric="accuracy", labels=("zq7", "zq8"),
        question="Answer: ", templates=("Say hello.",),
    ),
    "hello",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """The detected features of a model behind servers."""

    model: str
    """The model name in requests."""
    api: Literal["chat", "completions"]
    structure: str
    """One of `STRUCTURES`, or `none`: replies are parsed strictly, and invalid ones are requested once more."""
    logprobs: int
    """Alternatives per token that the server returns; 0: none."""
    limit_name: str = "max_tokens"
    """Name of the option that limits a reply; newer hosted models have another one."""
    with_temperature: bool = True
    """Whether temperature 0 is allowed."""
    facts: str = ""
    """The server's entry for the model, and the digest of its folder: part of the content address of answers."""

    def told(self) -> str:
        structure = "no structured output: strict parsing" if self.structure == "none" else f"{self.structure}"
        logprobs = f"{self.logprobs} log-probabilities per token" if self.logprobs else "no log-probabilities"
        return f"{self.model}: {self.api}, {structure}, {logprobs}"

    def sampling(self, max_tokens: int) -> dict[str, Any]:
        """The options of every request."""
        body: dict[str, Any] = {"model": self.model, self.limit_name: max_tokens}
        if self.with_temperature:
            body["temperature"] = 0
        if self.logprobs:
            chat = {"logprobs": True, "top_logprobs": self.logprobs}
            # With ids, vLLM's tokens can be distinguished and decoded exactly; other servers ignore the option.
            completions = {"logprobs": self.logprobs, "return_tokens_as_token_ids": True}
            body |= chat if self.api == "chat" else completions
        return body

    def address(self) -> str:
        """Everything except a request's body that determines its answers."""
        return json.dumps(asdict(self), sort_keys=True)


def is_directory(model: str) -> bool:
    """Whether a model of --engine server is a model directory of ours, and not only the server's name of a model."""
    return (Path(model) / CARD_FILE).is_file()


def detect(servers: Sequence[str], model: str, options: RequestOptions, *, one_prompt: bool = False) -> Detected:
    """Detect the servers' features; `model` is a model directory, or a model name of the servers.

    Raises ConfigError if a server cannot be used: wrong address, key or name.
    """
    api = options.api if options.api != "auto" else "completions" if is_directory(model) and not one_prompt else "chat"
    if api == "completions" and not is_directory(model):
        raise ConfigError(f"--requests.api completions needs a model directory as --model, and {model!r} is not one")
    if one_prompt and api == "completions":
        raise ConfigError("--one-prompt needs chat: give --requests.api chat, or leave --one-prompt out")
    # A server that is missing at the start is a user error, reported at once.
    quick = options.model_copy(update={"patience_s": 0.0, "retries": min(options.retries, 3)})
    # Patterns and grammars are of one answer; a schema holds those of many questions.
    tried = ("json_schema",) if one_prompt else STRUCTURES
    return asyncio_run(_detect(servers, model, api, quick, tried))


def asyncio_run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it to its end in a separate thread, since notebooks have an event loop in this one. Ctrl-C ends it there."""
    import concurrent.futures

    cancel: list[Callable[[], object]] = []

    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        cancel.append(lambda: loop.call_soon_threadsafe(task.cancel))
        return await coroutine

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: asyncio.run(cancellable()))
        try:
            return running.result()
        except BaseException:
            if not running.done() and cancel:
                cancel[0]()
            raise


async def _detect(
    urls: Sequence[str], model: str, api: Any, options: RequestOptions, structures: Sequence[str]
) -> Detected:
    async with Servers(urls, options, Usage()) as servers:
        try:
            entries = [await _entry(servers, url.rstrip("/"), model) for url in urls]
            facts = json.dumps([entries[0][1], model_digest(model) if is_directory(model) else ""], sort_keys=True)
            found = Detected(
                model=entries[0][0], api=api, structure="none", logprobs=options.logprobs, facts=facts
            )  # fmt: skip
            found = await _accepted(servers, found)
            for structure in structures:
                if await _obeys(servers, found, structure):
                    return replace(found, structure=structure)
        except RequestError as failed:
            raise ConfigError(
                f"{', '.join(urls)} does not answer for {model!r}: {failed.reason}; check --server, --model and "
                f"${options.key_variable}"
            ) from None
    return found


async def _entry(servers: Servers, url: str, model: str) -> tuple[str, dict[str, Any]]:
    """The name, and the entry in a server's list of models; a server without a list gets the name."""
    name = Path(model).resolve().name if is_directory(model) else model
    try:
        listed = (await servers.once(url, "/models", None)).get("data")
    except RequestError as failed:
        if failed.status not in (404, 405, 501):
            raise
        return name, {}
    entries = {str(e["id"]): e for e in listed if isinstance(e, dict) and "id" in e} if isinstance(listed, list) else {}
    for known in (model, name):
        if known in entries or not entries:
            # Not `created`: some servers put the time of the request there.
            kept = {k: v for k, v in entries.get(known, {}).items() if k in ("id", "root", "parent", "meta")}
            return (known if entries else name), kept
    raise ConfigError(f"{url} has no model {name!r}; it has: {', '.join(entries)[:300]}")


async def _accepted(servers: Servers, found: Detected) -> Detected:
    """The options without those that the server refuses, or with other names."""
    for _ in range(5):
        try:
            reply = await _probe(servers, found, "none")
        except RequestError as failed:
            if not failed.is_refusal:
                raise
            changed = _changed(found, failed.reason)
            if changed == found:
                raise
            found = changed
        else:
            told = [len(token.alternatives) for token in reply.tokens or ()]
            return replace(found, logprobs=min(found.logprobs, max(told, default=0)))
    raise RequestError("it refuses every known form of a request")


def _changed(found: Detected, reason: str) -> Detected:
    if "max_completion_tokens" in reason:
        return replace(found, limit_name="max_completion_tokens")
    if "temperature" in reason:
        return replace(found, with_temperature=False)
    # For any other reason: log-probabilities are what servers refuse most often.
    return replace(found, logprobs=5 if found.logprobs > 5 else 0)


async def _obeys(servers: Servers, found: Detected, structure: str) -> bool:
    try:
        text = (await _probe(servers, found, structure)).text
    except RequestError as failed:
        if failed.is_refusal or failed.status == 500:
            return False
        raise
    if structure != "json_schema":
        return text.strip() in _PROBE.task.labels
    try:
        return json.loads(text).get(ANSWER) in _PROBE.task.labels
    except (ValueError, AttributeError):
        return False


async def _probe(servers: Servers, found: Detected, structure: str) -> Reply:
    words = "Say hello in JSON." if structure == "json_schema" else "Say hello."
    said = {"messages": [{"role": "user", "content": words}]} if found.api == "chat" else {"prompt": words}
    body = {**said, **found.sampling(24), **structured(structure, [_PROBE], [ANSWER])}
    return await servers.post(PATHS[found.api], body, partial(read_response, found.api))


def check_model(model: str) -> None:
    """Raise ConfigError or ModelError for a model that cannot be used through a server."""
    if bundled(model):
        raise ConfigError("--engine server needs --model: the name that the server knows, or a model directory of ours")
    if is_directory(model):
        from emollm.core.card import read_card

        card = read_card(Path(model))
        if card.base.architecture != "decoder" or (card.heads and not card.heads.writes_answers):
            raise ModelError(f"{model} does not generate answers, so it cannot be used through an inference server")

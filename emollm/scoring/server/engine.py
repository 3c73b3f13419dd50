"""A model behind inference servers as a `Scorer`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emollm.core.answers import EMPTY_TEXT, Answer
from emollm.core.card import AffectCard, BaseModelInfo, read_card
from emollm.core.errors import ConfigError
from emollm.core.prompts import Question
from emollm.scoring.server.asked import Asked, Prompter, repair, tokens_of
from emollm.scoring.server.cache import AnswerCache
from emollm.scoring.server.client import RequestError, Servers
from emollm.scoring.server.detect import Detected, asyncio_run, check_model, detect, is_directory
from emollm.scoring.server.options import RequestOptions
from emollm.scoring.server.readout import Reply, read_reply
from emollm.scoring.server.usage import Usage
from emollm.scoring.server.wire import PATHS, read_response

SERVER_FAILED = "server_failed"
"""The error of a question without a usable reply after all retries; `--retry-errors` asks it again."""
REQUEST_REFUSED = "request_refused"
"""The error of a question that the server refuses, for example because it filters it."""
COST_CAP = "cost_cap"
"""The error of a question that was not asked, because the cost had reached `max_cost`."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A request, and the indices of the questions that it answers; equal requests are one job."""

    asked: Asked
    key: bytes
    places: list[list[int]]


class ServerScorer:
    """Asks servers and caches their answers. Counts requests, tokens and cost in `usage`."""

    engine = "server"

    def __init__(
        self,
        model: str,
        *,
        server: Sequence[str],
        requests: RequestOptions | None = None,
        one_prompt: bool = False,
        detected: Detected | None = None,
    ) -> None:
        """`model` is a model directory that the servers serve, or a model name of the servers; `detected` is
        the result of `detect`, None to run it now. Raises ConfigError or ModelError if the model cannot be used.
        """
        check_model(model)
        self._urls, self._options = tuple(server), requests or RequestOptions()
        self.usage = Usage()
        self.detected = detected or detect(self._urls, model, self._options, one_prompt=one_prompt)
        self._card, encoder = _card_and_encoder(model, self.detected)
        self._piece = encoder.piece if encoder else None
        self._prompter = Prompter(self._card, encoder, self.detected.structure, one_prompt)
        self._servers = Servers(self._urls, self._options, self.usage)
        self._cache = AnswerCache(self._options.cache_folder) if self._options.reuse else None

    @property
    def card(self) -> AffectCard:
        return self._card

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        answers: list[Answer] = [Answer(value=None, error=EMPTY_TEXT)] * len(questions)
        with_text = [n for n, question in enumerate(questions) if question.text.strip()]

        def keep(job: _Job, found: Sequence[Answer]) -> None:
            for places in job.places:
                for n, answer in zip(places, found, strict=True):
                    answers[with_text[n]] = replace(answer, notes=job.asked.notes)

        jobs = self._jobs([questions[n] for n in with_text])
        known = self._known(jobs)
        for job in jobs:
            if job.key in known:
                self.usage.cached += 1
                keep(job, known[job.key])
        if new := [job for job in jobs if job.key not in known]:
            asyncio_run(self._ask_all(new, keep))
        return answers

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text; by chat, where they are not known, in the unit that posts are cut by."""
        return self._prompter.encoder.count(texts) if self._prompter.encoder else [tokens_of(text) for text in texts]

    def estimate(self, questions: Sequence[Question]) -> tuple[int, int, int]:
        """Estimated number of requests that are not cached, and the tokens of their prompts and replies."""
        jobs = self._jobs([question for question in questions if question.text.strip()])
        known = self._known(jobs)
        new = [job.asked for job in jobs if job.key not in known]
        return len(new), sum(asked.prompt_tokens for asked in new), sum(asked.reply_tokens for asked in new)

    def check_cost(self, questions: Sequence[Question]) -> float:
        """The estimated cost of the questions. Raises ConfigError if it exceeds `max_cost`."""
        if not (self._options.price_in or self._options.price_out):
            return 0.0  # what costs nothing need not be counted: every prompt would be built twice
        count, *tokens = self.estimate(questions)
        cost, most = self._options.cost(*tokens), self._options.max_cost
        if most is not None and cost > most:
            raise ConfigError(
                f"{count:,} requests are estimated to cost {cost:.2f}, above max-cost {most:g}; ask fewer "
                "questions, or raise it"
            )
        return cost

    def _known(self, jobs: Sequence[_Job]) -> dict[bytes, list[Answer]]:
        return self._cache.get(job.key for job in jobs) if self._cache else {}

    def _jobs(self, questions: Sequence[Question]) -> list[_Job]:
        address = self.detected.address()
        found: dict[bytes, _Job] = {}
        for places, asked in self._prompter.requests(questions):
            key = asked.key(address)
            found.setdefault(key, _Job(asked, key, [])).places.append(places)
        return list(found.values())

    async def _ask_all(self, jobs: Sequence[_Job], keep: Callable[[_Job, Sequence[Answer]], None]) -> None:
        async with self._servers as servers:
            waiting = iter(jobs)
            workers = [self._work(servers, waiting, keep) for _ in range(min(servers.capacity, len(jobs)))]
            await asyncio.gather(*workers)

    async def _work(
        self, servers: Servers, waiting: Iterator[_Job], keep: Callable[[_Job, Sequence[Answer]], None]
    ) -> None:
        for job in waiting:
            most = self._options.max_cost
            if most is not None and self.usage.cost >= most and self.usage.cost:
                keep(job, _failed(job.asked, f"{COST_CAP}: the cost has reached {most:g}"))
                continue
            try:
                found = await self._answers(servers, job.asked)
            except RequestError as failed:
                self.usage.failed += 1
                code = REQUEST_REFUSED if failed.is_refusal else SERVER_FAILED
                keep(job, _failed(job.asked, f"{code}: {failed.reason}"))
                continue
            if self._cache:
                self._cache.put(job.key, found)
            keep(job, found)

    async def _answers(self, servers: Servers, asked: Asked) -> list[Answer]:
        found = read_reply(asked, reply := await self._reply(servers, asked, asked.body))
        if not any(answer.error for answer in found):
            return found
        self.usage.repaired += 1
        again = read_reply(asked, await self._reply(servers, asked, repair(asked, reply.text)))
        return [second if first.error else first for first, second in zip(found, again, strict=True)]

    async def _reply(self, servers: Servers, asked: Asked, body: dict[str, Any]) -> Reply:
        path = PATHS[self.detected.api]
        whole = {**self.detected.sampling(asked.max_tokens), **body}
        reply = await servers.post(path, whole, lambda data: read_response(self.detected.api, data, self._piece))
        self.usage.prompt_tokens += reply.prompt_tokens
        self.usage.reply_tokens += reply.reply_tokens
        self.usage.cost += self._options.cost(reply.prompt_tokens, reply.reply_tokens)
        return reply


def _failed(asked: Asked, error: str) -> list[Answer]:
    return [Answer(value=None, error=error, truncated=asked.truncated)] * len(asked.questions)


def _card_and_encoder(model: str, detected: Detected) -> tuple[AffectCard, Any]:
    if not is_directory(model):
        info = BaseModelInfo(name=model, architecture="decoder", licence="that of the server's model", fingerprint="")
        return AffectCard(name=model, base=info), None
    card = read_card(Path(model))
    if detected.api == "chat":
        return card, None
    from emollm.models.load import load_encoder

    return card, load_encoder(model)

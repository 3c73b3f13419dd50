"""One replica of the model: pieces of requests in, answers out, batched by tokens."""

# No `from __future__ import annotations` in files that hold a deployment: Serve reads its annotations in replicas.
import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ray import serve

from emollm.core.answers import Answer
from emollm.core.bases import model_folder
from emollm.core.card import AffectCard
from emollm.core.digest import model_digest
from emollm.core.errors import DeviceError
from emollm.core.prompts import Question, questions_for
from emollm.core.tasks import select_tasks
from emollm.models.device import resolve_device
from emollm.models.precision import resolve_precision
from emollm.runtime.session import serve_on_loopback
from emollm.scoring.explain import explained
from emollm.scoring.open import fitted_precision, open_scorer, resolve_engine
from emollm.serve.batching import Beside, FairGate, Piece
from emollm.serve.config import ServeConfig
from emollm.serve.metrics import ModelMetrics
from emollm.serve.problems import report


class Description(NamedTuple):
    """What a replica reports about its model."""

    card: AffectCard
    engine: str
    precision: str
    digest: str
    """`model_digest` of the model that was loaded."""
    metrics: dict[str, Any]
    identity: str
    """16 hex digits, equal for replicas that give the same answers, except for rounding."""


def batch_budget(config: ServeConfig) -> int:
    """Estimated tokens of a batch."""
    return config.batch_tokens or (16_384 if config.gpus_per_replica else 1024)


@serve.deployment
class Annotator:
    def __init__(self, options: Mapping[str, Any]) -> None:
        serve_on_loopback()
        config = ServeConfig.model_validate(dict(options))
        self._config = config
        device = resolve_device(config.device if config.gpus_per_replica else "cpu")
        engine = resolve_engine(config.model, config.engine)
        fitted = fitted_precision(config.model)
        self._precision = resolve_precision(config.precision, device, engine=engine, fitted=fitted)
        self._scorer = open_scorer(
            config.model,
            **{**config.scorer_options(), "precision": self._precision, "device": device},
            num_threads=max(1, int(config.cpus_per_replica)),
        )
        # One batch in the model at a time: concurrent PyTorch threads are slower than one after another. The model runs
        # in a thread, so that the event loop keeps taking requests.
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._gate = FairGate(batch_budget(config))
        self._metrics = ModelMetrics()
        self._gpu_failed = False
        self._score.set_max_batch_size(self._gate.budget)
        self._score.set_batch_wait_timeout_s(config.batch_wait_ms / 1000)
        # Computes the prefixes, and detects a model that loads but cannot answer before a request reaches it.
        self._scorer.score(questions_for("A quiet start.", self._scorer.card.tasks))
        # Read now, not on request: another model may be written to the folder while this one is served.
        self._description = self._described()

    def _described(self) -> Description:
        card, config, digest = self._scorer.card, self._config, model_digest(self._config.model)
        alike = f"{card.model_dump_json()} {digest} {config.engine} {config.exact}"
        return Description(
            card=card,
            engine=config.engine,
            precision=self._precision,
            digest=digest,
            metrics=_training_summary(model_folder(config.model)),
            identity=hashlib.sha256(alike.encode()).hexdigest()[:16],
        )

    def describe(self) -> Description:
        """The model behind this replica."""
        return self._description

    async def answer(self, piece: Piece) -> list[list[Answer]] | None:
        """The answers of each text, in the order of its questions; None if the piece was cut for another model."""
        if piece.model != self._description.identity:
            return None
        # `@serve.batch` refuses a piece larger than a batch: a long text, or one cut by an earlier deployment.
        piece = replace(piece, tokens=min(piece.tokens, self._gate.budget))
        self._metrics.waiting(self._gate.waiting + 1)
        async with self._gate.turn(piece):
            answers: list[list[Answer]] = await self._score(piece)
            return answers

    @serve.batch(  # type: ignore[untyped-decorator]
        max_batch_size=1, batch_size_fn=lambda pieces: sum(piece.tokens for piece in pieces)
    )
    async def _score(self, pieces: list[Piece]) -> list[list[list[Answer]]]:
        self._gate.close()
        try:
            return await self._score_round(pieces)
        except Exception as error:
            self._gpu_failed = self._gpu_failed or isinstance(error, DeviceError)
            report(error, trace=self._config.log_errors)
            # Ray Serve would log any other exception with its traceback, in three places.
            raise RuntimeError("a batch failed; `unexpected error`, logged before this, says where") from None

    def check_health(self) -> None:
        """Ray Serve asks now and then, and starts another replica in the place of one that raises."""
        if self._gpu_failed:
            raise RuntimeError("the GPU failed")

    async def _score_round(self, pieces: list[Piece]) -> list[list[list[Answer]]]:
        run = asyncio.get_running_loop().run_in_executor
        scored, seconds = await run(self._model_thread, self._score_pieces, pieces)
        self._metrics.batch(
            requests=len({piece.request for piece in pieces}),
            tokens=sum(piece.tokens for piece in pieces),
            seconds=seconds,
            waiting=self._gate.waiting,
        )
        return scored

    def _score_pieces(self, pieces: list[Piece]) -> tuple[list[list[list[Answer]]], float]:
        """The answers by piece, text and question, and the seconds in the model. Runs in the model's thread."""
        questions: list[Question] = []
        widths = []
        for piece in pieces:
            tasks = select_tasks(piece.tasks, self._scorer.card.tasks)
            before = len(questions)
            each = questions_for("", tasks)
            for text, (context, target) in zip(piece.texts, piece.beside or [Beside()] * len(piece.texts), strict=True):
                questions += [replace(q, text=text, context=context, target=target) for q in each]
            widths.append((len(questions) - before) // len(piece.texts))
        started = time.perf_counter()
        scored = self._scorer.score(questions)
        if any(piece.explain for piece in pieces):
            scored = self._explained(pieces, widths, scored)
        seconds = time.perf_counter() - started
        self._metrics.answers(questions, scored)
        answers = iter(scored)
        by_piece = zip(pieces, widths, strict=True)
        return [[list(islice(answers, width)) for _ in piece.texts] for piece, width in by_piece], seconds

    def _explained(self, pieces: list[Piece], widths: list[int], scored: list[Answer]) -> list[Answer]:
        """Adds the words with the largest effects to the answers of pieces that request them."""
        found, answers = [], iter(scored)
        for piece, width in zip(pieces, widths, strict=True):
            mine = list(islice(answers, width * len(piece.texts)))
            if piece.explain:
                asked = questions_for("", select_tasks(piece.tasks, self._scorer.card.tasks))
                mine = explained(self._scorer, piece.texts, piece.beside or None, asked, mine)
            found += mine
        return found


def _training_summary(folder: Path) -> dict[str, Any]:
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return dict(run.get("summary", {}))
    except (OSError, ValueError):
        return {}

"""One replica of the model: pieces of requests in, answers out, in batches by tokens."""

# No `from __future__ import annotations` in files that hold a deployment: Serve reads its annotations in replicas.
import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ray import serve

from emollm.core.answers import Answer
from emollm.core.bases import model_folder
from emollm.core.card import AffectCard
from emollm.core.prompts import Question, questions_for
from emollm.core.tasks import select_tasks
from emollm.models.device import resolve_device
from emollm.models.precision import resolve_precision
from emollm.runtime.session import serve_on_loopback
from emollm.scoring.open import open_scorer, resolve_engine
from emollm.serve.batching import FairGate, Piece
from emollm.serve.config import ServeConfig
from emollm.serve.metrics import ModelMetrics
from emollm.serve.problems import report


class Description(NamedTuple):
    """What a replica knows of its model."""

    card: AffectCard
    engine: str
    precision: str
    weights: str | None
    metrics: dict[str, Any]
    identity: str
    """16 hex digits, equal where two replicas give the same answers, rounding aside."""


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
        self._precision = resolve_precision(config.precision, device, engine=engine)
        self._scorer = open_scorer(
            config.model,
            **{**config.scorer_options(), "precision": self._precision, "device": device},
            num_threads=max(1, int(config.cpus_per_replica)),
        )
        # One batch in the model at a time: threads beside each other in PyTorch are slower than one after another.
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._gate = FairGate(batch_budget(config))
        self._metrics = ModelMetrics()
        self._score.set_max_batch_size(self._gate.budget)
        self._score.set_batch_wait_timeout_s(config.batch_wait_ms / 1000)
        # Prefixes are computed now, and a model that loads but cannot answer is found out before it gets a request.
        self._scorer.score(questions_for("A quiet start.", self._scorer.card.tasks))
        # Now, and not when it is asked: the folder may get another model while this one is served.
        self._description = self._described()

    def _described(self) -> Description:
        folder, card, config = model_folder(self._config.model), self._scorer.card, self._config
        weights = _weights_fingerprint(folder)
        # Without the precision: `auto` measures, and may come out differently on two nodes.
        alike = f"{card.model_dump_json()} {weights} {config.engine} {config.exact}"
        return Description(
            card=card,
            engine=config.engine,
            precision=self._precision,
            weights=weights,
            metrics=_training_summary(folder),
            identity=hashlib.sha256(alike.encode()).hexdigest()[:16],
        )

    def describe(self) -> Description:
        """The model behind this replica."""
        return self._description

    async def answer(self, piece: Piece) -> list[list[Answer]] | None:
        """The answers of each text, in the order of its questions; None of a piece that was cut for another model."""
        if piece.model != self._description.identity:
            return None
        # `@serve.batch` refuses what counts more than a batch: a long text, or a piece cut where batches are larger.
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
            report(error, trace=self._config.log_errors)
            # Ray Serve logs what leaves here with its trace, in three places.
            raise RuntimeError("a batch failed; `unexpected error`, logged before this, says where") from None

    async def _score_round(self, pieces: list[Piece]) -> list[list[list[Answer]]]:
        asked = [[self._questions(piece, text) for text in piece.texts] for piece in pieces]
        flat = [question for texts in asked for questions in texts for question in questions]
        started = time.perf_counter()
        scored = await asyncio.get_running_loop().run_in_executor(self._model_thread, self._scorer.score, flat)
        self._metrics.batch(
            requests=len({piece.request for piece in pieces}),
            tokens=sum(piece.tokens for piece in pieces),
            seconds=time.perf_counter() - started,
            waiting=self._gate.waiting,
        )
        self._metrics.answers(flat, scored)
        answers = iter(scored)
        return [[[next(answers) for _ in questions] for questions in texts] for texts in asked]

    def _questions(self, piece: Piece, text: str) -> list[Question]:
        return questions_for(text, select_tasks(piece.tasks, self._scorer.card.tasks))


def _weights_fingerprint(folder: Path) -> str | None:
    """16 hex digits over the name, size, first and last MiB of each weight file; None for an untrained base."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            size = file.stat().st_size
            digest.update(f"{file.name} {size}".encode() + stream.read(2**20))
            stream.seek(max(0, size - 2**20))
            digest.update(stream.read())
    return digest.hexdigest()[:16]


def _training_summary(folder: Path) -> dict[str, Any]:
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return dict(run.get("summary", {}))
    except (OSError, ValueError):
        return {}

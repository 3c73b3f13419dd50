"""The Serve application: `serve run serve.app:build model=DIR`, or python -m serve --model DIR."""

# No `from __future__ import annotations` here: FastAPI reads the annotations of the routes, and inside Serve's
# replicas it cannot look up strings.
import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, HTTPException
from ray import serve

from emollm import __version__
from emollm.affect_card import card_tasks
from emollm.bases import anywhere
from emollm.errors import ConfigError
from emollm.prompts import questions_for
from emollm.scoring.scorer import open_scorer
from emollm.tasks import select_tasks
from serve.config import ServeConfig
from serve.schema import AnnotateRequest, AnnotateResponse, AnswerMessage, ModelMessage, TaskMessage

api = FastAPI(title="emollm", version=__version__, description="Affect in text: emotions, intensities, valence.")


@serve.deployment
@serve.ingress(api)
class Annotator:
    """One replica: a scorer, and the routes that ask it."""

    def __init__(self, model: str, engine: str, device: str) -> None:
        self._scorer = open_scorer(model, engine=engine, device=device)
        self._engine = engine
        # One batch in the model at a time: threads beside each other in PyTorch are slower than one after another.
        self._turn = asyncio.Lock()

    @api.post("/v1/annotate")
    async def annotate(self, request: AnnotateRequest) -> AnnotateResponse:
        """The affect of each text. Unknown tasks give 422 with the known ones."""
        known = self._scorer.card.tasks
        try:
            tasks = known if request.tasks is None else select_tasks(request.tasks, known)
        except ConfigError as error:
            raise HTTPException(422, str(error)) from None
        per_text = [questions_for(text, tasks) for text in request.texts]
        async with self._turn:
            answers = iter(await asyncio.to_thread(self._scorer.score, [q for qs in per_text for q in qs]))
        return AnnotateResponse(
            results=[[AnswerMessage.of(q.task, q.emotion, next(answers)) for q in questions] for questions in per_text]
        )

    @api.get("/v1/tasks")
    def tasks(self) -> list[TaskMessage]:
        """What can be asked, on which scale or over which labels."""
        return [TaskMessage.of(task) for task in self._scorer.card.tasks]

    @api.get("/v1/model")
    def model(self) -> ModelMessage:
        """Which model answers."""
        card = self._scorer.card
        return ModelMessage(
            name=card.name,
            base=card.base.name,
            licence=card.base.licence,
            adapter=card.adapter,
            base_fingerprint=card.base.fingerprint,
            engine=self._engine,
            max_post_tokens=card.max_post_tokens,
            tasks=[task.name for task in card.tasks],
        )

    @api.get("/healthz")
    def healthz(self) -> dict[str, str]:
        return {"status": "ok"}


def build(args: Mapping[str, Any]) -> Any:
    """The Serve application for `serve run serve.app:build model=DIR [engine=..] [replicas=..]`."""
    config = ServeConfig.model_validate(dict(args))
    card_tasks(config.model)  # a wrong folder is an error here, not a replica that restarts for ever
    deployment = Annotator.options(  # type: ignore[attr-defined]
        num_replicas=config.replicas,
        ray_actor_options={"num_cpus": 1, "num_gpus": config.gpus_per_replica},
    )
    return deployment.bind(anywhere(config.model), config.engine, "cuda" if config.gpus_per_replica else "cpu")

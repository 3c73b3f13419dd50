"""The Serve application: `serve run emollm.serve.app:build model=DIR`, or emollm serve --model DIR."""

# No `from __future__ import annotations` here: FastAPI and Serve read annotations inside replicas, where they
# cannot look up strings.
import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, StreamingResponse
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.schema import LoggingConfig
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from emollm import __version__
from emollm.core.bases import anywhere
from emollm.core.card import card_tasks
from emollm.core.options import with_values
from emollm.runtime.session import serve_on_loopback
from emollm.scoring.open import resolve_engine
from emollm.serve.annotator import Annotator, batch_budget
from emollm.serve.auth import check_access
from emollm.serve.batching import PIECES_PER_BATCH
from emollm.serve.config import ServeConfig
from emollm.serve.gateway import PIECES_UNDER_WAY, Gateway
from emollm.serve.middleware import Admit, AskForKey, LimitBody, Record
from emollm.serve.problems import Problem, on_http_error, on_invalid, on_problem
from emollm.serve.schema import (
    AnnotateRequest,
    AnnotateResponse,
    ErrorMessage,
    ModelMessage,
    StreamLine,
    StreamRequest,
    TaskMessage,
    TextResult,
)

PAGE = Path(__file__).parent / "page"
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorMessage, "description": what}
    for status, what in {
        401: "The API key is missing or unknown",
        403: "There are no API keys, and the request came from another machine",
        408: "The body did not arrive within the deadline",
        413: "The body is too large",
        415: "The body is not announced as JSON",
        422: "A field is wrong; `fields` names it",
        429: "The queue is full; Retry-After says when to try again",
        503: "No replica has loaded the model yet, or it was replaced meanwhile",
        504: "Not answered within the deadline",
    }.items()
}


def make_api(gateway: Gateway, keys: Mapping[str, str]) -> FastAPI:
    """The routes and their middleware."""
    api = FastAPI(
        title="emollm",
        version=__version__,
        description="Affect in text: emotions, intensities, valence.",
        docs_url=None,  # FastAPI's own page loads scripts from another site
        redoc_url=None,
        exception_handlers={
            Problem: on_problem,
            RequestValidationError: on_invalid,
            HTTPException: on_http_error,
        },
    )

    @api.post("/v1/annotate", responses=ERRORS, response_model=AnnotateResponse)
    async def annotate(request: Request, body: AnnotateRequest) -> Response:
        """The affect of each text."""
        extras = await gateway.extras(body.asked, body.extras())
        results = await gateway.annotate(
            request.scope["emollm"], body.texts, body.asked, body.beside, explain=body.explain
        )
        message = AnnotateResponse.model_construct(
            results=[TextResult.of(text, *each, extras) for text, each in zip(body.texts, results, strict=True)]
        )
        # Serialised here: FastAPI would validate each answer once more, which took longer than computing it.
        return Response(message.model_dump_json(), media_type="application/json")

    @api.post("/v1/annotate/stream", responses=ERRORS, response_class=StreamingResponse)
    async def stream(request: Request, body: StreamRequest) -> StreamingResponse:
        """The same for a large list: one JSON line per text as soon as it is scored; the last line is `{"done": N}`."""
        await gateway.tasks(body.asked)  # an unknown task is 422, not a line of a stream
        extras = await gateway.extras(body.asked, body.extras())
        notes = request.scope["emollm"]

        async def lines() -> AsyncIterator[str]:
            index = 0
            try:
                answered = gateway.stream(notes, body.texts, body.asked, body.beside, explain=body.explain)
                async with aclosing(answered) as results:
                    async for questions, answers in results:
                        result = TextResult.of(body.texts[index], questions, answers, extras)
                        yield StreamLine.model_construct(index=index, **dict(result)).model_dump_json() + "\n"
                        index += 1
            except Problem as problem:
                yield json.dumps(problem.body(notes["request_id"])) + "\n"
            else:
                yield json.dumps({"done": index}) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @api.get("/v1/tasks", responses={401: ERRORS[401]})
    async def tasks() -> list[TaskMessage]:
        """The tasks that the model answers, with their scales or labels."""
        described = await gateway.describe()
        card = described.card
        origins = card.heads.origins() if card.heads and described.engine == "heads" else {}
        return [TaskMessage.of(task, origins.get(task.name)) for task in card.tasks]

    @api.get("/v1/model", responses={401: ERRORS[401]})
    async def model() -> ModelMessage:
        """The model that answers: its card, digest, and the summary of its training."""
        described = await gateway.describe()
        return ModelMessage.of(
            described.card,
            engine=described.engine,
            precision=described.precision,
            digest=described.digest,
            metrics=described.metrics,
        )

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The HTTP process is up."""
        return {"status": "ok"}

    @api.get("/readyz", responses={503: ERRORS[503]})
    async def readyz() -> dict[str, str]:
        """A replica of the model answers."""
        await gateway.describe(now=True)
        return {"status": "ready"}

    @api.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @api.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    api.mount("/page", StaticFiles(directory=PAGE), name="page")
    # Added last is outermost.
    config, metrics = gateway.config, gateway.metrics
    api.add_middleware(LimitBody, max_bytes=int(config.max_body_mib * 2**20), patience_s=config.deadline_s)
    most = math.ceil(config.max_requests / config.num_http_replicas)
    api.add_middleware(Admit, metrics, most=most, patience_s=config.deadline_s)
    api.add_middleware(AskForKey, keys=keys, open_access=config.open_access)
    api.add_middleware(Record, metrics, log_errors=config.log_errors)
    return api


@serve.deployment
@serve.ingress()
class Http:
    """The HTTP processes: they hold no model and stay up while replicas of the model come and go."""

    def __init__(self, options: Mapping[str, Any], keys: Mapping[str, str], annotator: Any) -> None:
        serve_on_loopback()
        self._gateway = Gateway(ServeConfig.model_validate(dict(options)), annotator)
        self._keys = keys

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_api(self._gateway, self._keys)


def build(args: Mapping[str, Any]) -> Any:
    """The Serve application for `serve run emollm.serve.app:build model=DIR [engine=..] [replicas=..]`."""
    config = ServeConfig.model_validate(dict(args))
    keys = check_access(config)
    card_tasks(config.model)  # a wrong folder is an error here, not a replica that is restarted forever
    config = with_values(config, model=anywhere(config.model), engine=resolve_engine(config.model, config.engine))
    options = config.model_dump(mode="json")
    draining = {"graceful_shutdown_wait_loop_s": 1.0, "graceful_shutdown_timeout_s": config.deadline_s + 5}
    # Our own log has one line per request, with the key's name and the number of texts.
    logging = LoggingConfig(encoding="JSON", enable_access_log=False)
    # The gate in the replica is fair between requests, so pieces must wait there and not in Serve's queue: the limit
    # covers every piece that can be in flight, and readiness checks. Serve warns if it is below the tokens of a batch.
    at_work = max(batch_budget(config), config.max_requests * PIECES_UNDER_WAY + 64)
    annotator = Annotator.options(  # type: ignore[attr-defined]
        **_replicas(config),
        ray_actor_options={"num_cpus": config.cpus_per_replica, "num_gpus": config.gpus_per_replica or 0.0},
        max_ongoing_requests=at_work,
        # A folder that does not load is reported after three tries.
        max_constructor_retry_count=3,
        max_surge_percent=100,
        logging_config=logging,
        **draining,
    )
    http = Http.options(  # type: ignore[attr-defined]
        num_replicas=config.num_http_replicas,
        ray_actor_options={"num_cpus": 0.1},
        # `Admit` counts requests and answers 429 in its own words; this limit is behind it.
        max_ongoing_requests=config.max_requests + 64,
        max_queued_requests=config.max_requests + 64,  # a burst waits here until it is handed on
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        max_surge_percent=100,
        logging_config=logging,
        **draining,
    )
    return http.bind(options, keys, annotator.bind(options))


def _replicas(config: ServeConfig) -> dict[str, Any]:
    if config.max_replicas is None:
        return {"num_replicas": config.replicas}
    scaling = AutoscalingConfig(
        min_replicas=config.replicas,
        max_replicas=config.max_replicas,
        # Two batches' worth of pieces: one in the model, one waiting.
        target_ongoing_requests=2 * PIECES_PER_BATCH,
        upscale_delay_s=10,
        downscale_delay_s=300,
    )
    return {"autoscaling_config": scaling}

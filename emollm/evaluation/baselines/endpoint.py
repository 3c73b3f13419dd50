"""A model behind any OpenAI-compatible server as a baseline: the server engine, beside the model that is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from emollm.core.answers import INVALID_ANSWER
from emollm.core.errors import ConfigError
from emollm.core.options import ClusterConfig
from emollm.evaluation.external import read_raw
from emollm.evaluation.predict import Scored, predict
from emollm.metrics.predictions import OUT_OF_RANGE, Prediction
from emollm.metrics.questions import GoldQuestion
from emollm.scoring.server.options import RequestOptions
from emollm.scoring.server.readout import bare


class EndpointConfig(RequestOptions):
    """An OpenAI-compatible server."""

    url: str | None = None
    """Address up to /v1, such as http://127.0.0.1:11434/v1."""
    model: str | None = None
    """Model name to ask it for."""


def predict_endpoint(
    config: EndpointConfig, questions: Sequence[GoldQuestion], *, on_rows: Callable[[int], None] = lambda _done: None
) -> Scored:
    """Ask the server all questions; one prediction each, in order. Raises ConfigError as `ServerScorer` does."""
    if not config.url or not config.model:
        raise ConfigError("the endpoint baseline needs --endpoint.url (http://HOST/v1) and --endpoint.model")
    requests = RequestOptions(**{name: getattr(config, name) for name in RequestOptions.model_fields})
    options = {"engine": "server", "server": (config.url,), "requests": requests}
    scored = predict(config.model, questions, options=options, cluster=ClusterConfig(), on_rows=on_rows)
    return replace(scored, predictions=[_with_number(prediction) for prediction in scored.predictions])


def _with_number(prediction: Prediction) -> Prediction:
    """An answer that is a number, but none of the task's: metrics may clip it."""
    if prediction.error != INVALID_ANSWER or prediction.text is None:
        return prediction
    task = prediction.question.task
    number = read_raw(task, bare(task, prediction.text), "unit").out_of_range_value
    return prediction if number is None else replace(prediction, out_of_range_value=number, error=OUT_OF_RANGE)

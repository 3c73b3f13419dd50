"""Evaluation of a model behind an inference server, as the measured system and as a baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emollm.core.options import ClusterConfig
from emollm.core.tasks import TASKS
from emollm.evaluation.baselines.endpoint import EndpointConfig, predict_endpoint
from emollm.evaluation.options import EvaluateConfig
from emollm.evaluation.predict import predict
from emollm.evaluation.run import evaluate
from emollm.metrics.questions import GoldQuestion
from emollm.scoring.server.options import RequestOptions
from tests.inference_server import Response, reply, serving


def answer(_n: int, body: dict[str, Any]) -> Response:
    asked = str(body["messages"])
    return reply("joy, love." if "contains emotions" in asked else "2" if "Class" in asked else "0.5")


def test_a_served_model_is_measured_like_any_other(sample_data: Path, tmp_path: Path) -> None:
    with serving(answer) as server:
        config = EvaluateConfig(
            model="m",
            server=(server.url,),
            data=sample_data,
            tasks=("V-oc", "E-c"),
            max_rows=4,
            resamples=0,
            out=tmp_path / "out",
            requests=RequestOptions(cache=tmp_path / "cache", price_in=10.0),
        )
        [measured] = evaluate(config).measured
        told = json.loads((tmp_path / "out" / "metrics.json").read_text())["systems"][0]["facts"]
        assert measured.system.name == "m"
        assert {p.value for p in measured.system.predictions if p.question.task.name == "V-oc"} == {2}
        assert told["requests"] == len(server.requests) == len({str(r["messages"]) for r in server.requests})
        assert told["cost"] == pytest.approx(len(server.requests) * 100 * 10 / 1e6)
        assert told["distributions"] == {"unknown": len(measured.system.predictions)}
        assert "strict parsing" in (tmp_path / "out" / "report.html").read_text()


def test_a_server_reads_all_of_a_question_in_its_wording(tmp_path: Path) -> None:
    """As the actors of a model that runs here do."""
    task = TASKS["V-reg"]
    question = GoldQuestion(
        id="1", task=task, emotion=None, text="so it goes", gold=0.5, context="and then?", target="Ada"
    )
    options = {
        "engine": "server", "server": ("",), "requests": RequestOptions(cache=tmp_path)
    }  # fmt: skip
    with serving(answer) as server:
        options["server"] = (server.url,)
        predict("m", [question, question], options=options, cluster=ClusterConfig(), templates=[0, 2])
    asked = [request["messages"][-1]["content"] for request in server.requests]
    assert all("and then?" in each and "Ada" in each for each in asked)
    assert {n for n in (0, 2) for each in asked if task.templates[n] in each} == {0, 2}


def test_a_number_out_of_range_can_be_clipped(tmp_path: Path) -> None:
    questions = [GoldQuestion(id=str(n), task=TASKS["V-reg"], emotion=None, text=f"t {n}", gold=0.5) for n in range(2)]
    with serving(lambda _n, body: reply("7" if "t 1" in str(body["messages"]) else "0.25")) as server:
        scored = predict_endpoint(EndpointConfig(url=server.url, model="m", cache=tmp_path), questions)
    assert [(p.value, p.out_of_range_value, p.error) for p in scored.predictions] == [
        (0.25, None, None),
        (None, 7.0, "out_of_range"),
    ]
    assert scored.facts["repaired"] == 1

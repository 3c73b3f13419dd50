"""The OpenAI-compatible client against a real server that behaves badly."""

from __future__ import annotations

import email.utils
import json
import time
from pathlib import Path
from typing import Any

import pytest

from emollm.core.errors import ConfigError
from emollm.core.tasks import TASKS, Kind
from emollm.evaluation.baselines.chat import messages, reply_prediction
from emollm.evaluation.baselines.endpoint import EndpointConfig, predict_endpoint, retry_after_s
from emollm.metrics.questions import GoldQuestion
from tests.evaluation.server import reply, serving

QUESTIONS = [
    GoldQuestion(id=str(i), task=TASKS["V-reg"], emotion=None, text=f"text {i}", gold=i / 10) for i in range(8)
]


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("TEST_KEY", "secret-of-the-test")
    return {"model": "m", "key_variable": "TEST_KEY", "cache": tmp_path / "cache.jsonl", "retries": 2, "timeout_s": 60}


def in_text(body: dict[str, Any]) -> str:
    """The number that the question's text holds."""
    return str(body["messages"][-1]["content"]).partition("text ")[2][:1]


def test_all_questions_are_answered_in_order_and_a_few_at_a_time(options: dict[str, Any]) -> None:
    def respond(_number: int, body: dict[str, Any]) -> Any:
        time.sleep(0.05)
        return reply(f"0.{in_text(body)}")

    with serving(respond) as server:
        done: list[int] = []
        config = EndpointConfig(url=server.url, concurrency=3, price_in=10.0, price_out=30.0, **options)
        found, usage = predict_endpoint(config, QUESTIONS, on_rows=done.append)
    assert [p.value for p in found] == pytest.approx([q.gold for q in QUESTIONS])
    assert 1 < server.most_at_once <= 3
    assert server.requests[0]["path"] == "/v1/chat/completions"
    assert (server.requests[0]["model"], server.requests[0]["temperature"]) == ("m", 0)
    assert set(server.keys) == {"Bearer secret-of-the-test"}
    assert "secret" not in (options["cache"]).read_text()
    assert usage.cost == pytest.approx((800 * 10 + 40 * 30) / 1e6)
    assert 0.3 * usage.cost < usage.estimated_cost < 3 * usage.cost
    assert sum(done) == len(QUESTIONS)


def test_a_reply_is_never_paid_for_twice(options: dict[str, Any]) -> None:
    with serving(lambda _n, body: reply(f"0.{in_text(body)}")) as server:
        config = EndpointConfig(url=server.url, **options)
        predict_endpoint(config, QUESTIONS[:4])
        with options["cache"].open("a") as file:
            file.write('{"key": "cut of')  # as a crash leaves it
        found, usage = predict_endpoint(config, QUESTIONS)
        assert (len(server.requests), usage.requests, usage.cached) == (8, 4, 4)
        assert all(p.error is None for p in found)
        # What came behind the cut line is whole.
        assert predict_endpoint(config, QUESTIONS)[1].cached == 8


def test_a_reply_with_breaks_of_its_own_is_kept_whole(options: dict[str, Any]) -> None:
    with serving(lambda _n, _b: reply("0.5\u2028by my count\u0085")) as server:
        config = EndpointConfig(url=server.url, **options)
        predict_endpoint(config, QUESTIONS[:1])
        found, usage = predict_endpoint(config, QUESTIONS[:1])
    assert (usage.requests, usage.cached, found[0].text) == (0, 1, "0.5\u2028by my count\u0085")


def test_it_comes_back_after_429_500_garbage_and_silence(options: dict[str, Any]) -> None:
    troubles = [
        # Those without Retry-After first: the wait doubles with each.
        (200, {}, "not json at all"),
        reply(None),
        (429, {"retry-after": "0.2"}, "slow down"),
        (500, {"retry-after": "0"}, "<html>oops</html>"),
        (503, {"retry-after": "0"}, json.dumps({"choices": []})),
    ]

    def respond(number: int, body: dict[str, Any]) -> Any:
        return troubles[number] if number < len(troubles) else reply("0.5")

    started = time.monotonic()
    with serving(respond) as server:
        found, usage = predict_endpoint(
            EndpointConfig(url=server.url, concurrency=1, **{**options, "retries": 5}), QUESTIONS[:1]
        )
    assert found[0].value == 0.5
    assert (usage.requests, usage.retried, usage.failed) == (6, 5, 0)
    assert time.monotonic() - started > 0.2  # Retry-After was kept to


def test_a_question_that_fails_for_good_is_an_error_and_harms_no_other(options: dict[str, Any]) -> None:
    def respond(_number: int, body: dict[str, Any]) -> Any:
        return (400, {}, '{"error": "filtered"}') if in_text(body) == "3" else reply("0.5")

    with serving(respond) as server:
        found, usage = predict_endpoint(EndpointConfig(url=server.url, **options), QUESTIONS[:5])
    assert [p.error is None for p in found] == [True, True, True, False, True]
    assert found[3].error == 'endpoint_failed: HTTP 400 {"error": "filtered"}'
    assert (usage.failed, usage.retried) == (1, 0)  # 400 is not tried again
    assert len(options["cache"].read_text().splitlines()) == 4


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_server_that_never_answers_costs_one_question(options: dict[str, Any], status: int) -> None:
    with serving(lambda _n, _b: (status, {"retry-after": "0"}, "no")) as server:
        with pytest.raises(ConfigError, match=f"does not answer for 'm': HTTP {status} no; check --endpoint.url"):
            predict_endpoint(EndpointConfig(url=server.url, **options), QUESTIONS)
        assert len(server.requests) == (3 if status == 500 else 1)


def test_a_server_that_is_not_there_is_one_clear_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"does not answer for 'm': ConnectError"):
        predict_endpoint(EndpointConfig(url="http://127.0.0.1:9/v1", **{**options, "retries": 0}), QUESTIONS)


def test_options_that_cannot_work_are_refused_before_any_request(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"--endpoint.url"):
        predict_endpoint(EndpointConfig(model="m"), QUESTIONS)
    with pytest.raises(ConfigError, match="must begin with http"):
        predict_endpoint(EndpointConfig(url="ftp://x", model="m"), QUESTIONS)
    with serving(lambda _n, _b: reply("0.5")) as server:
        dear = EndpointConfig(url=server.url, price_in=1000.0, max_cost=0.1, **options)
        with pytest.raises(ConfigError, match=r"8 questions are estimated at .* above --endpoint.max-cost 0.1"):
            predict_endpoint(dear, QUESTIONS)
        assert server.requests == []


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after_s("2.5") == 2.5
    assert retry_after_s("-1") == 0.0
    in_a_while = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert retry_after_s(in_a_while) == pytest.approx(30, abs=2)
    assert retry_after_s(None) is None
    assert retry_after_s("soon") is None


@pytest.mark.parametrize(
    ("task", "said", "value"),
    [
        ("V-reg", "0.62", 0.62),
        ("V-reg", "**0.62**\nbecause it is nice", 0.62),
        ("V-reg", "Intensity Score: 0.62", 0.62),
        ("V-reg", "about 0.62", None),
        ("V-reg", "7", None),
        ("EmoBank-V", "0.5", 3.0),
        ("V-oc", "2: moderately positive emotional state can be inferred", 2),
        ("E-c", "`anger, joy`", ("anger", "joy")),
        ("E-c", "neutral or no emotion", ()),
        ("E-c", "", None),
    ],
)
def test_replies_are_read_strictly(task: str, said: str, value: object) -> None:
    question = GoldQuestion(id="x", task=TASKS[task], emotion=None, text="t", gold=0.5)
    assert reply_prediction(question, said).value == value


@pytest.mark.parametrize("said", ["very_happy", "**very_happy**", "_very_happy_", "`very_happy`.", '"very_happy"'])
def test_markup_inside_a_label_is_its_own(said: str) -> None:
    mood = TASKS["SST5"].model_copy(
        update={"kind": Kind.SINGLE_LABEL, "labels": ("very_happy", "don't know"), "classes": ()}
    )
    question = GoldQuestion(id="x", task=mood, emotion=None, text="t", gold="very_happy")
    assert reply_prediction(question, said).value == "very_happy"
    assert reply_prediction(question, "'don't know'").value == "don't know"


def test_the_prompt_spells_out_what_may_be_answered() -> None:
    asked = GoldQuestion(id="x", task=TASKS["EI-oc"], emotion="joy", text="what a day", gold=1)
    system, user = messages(asked)
    assert "0: no E can be inferred" in user["content"] and "Emotion E: joy." in user["content"]
    assert "3: high amount of anger can be inferred" in system["content"]
    assert (
        "optimism" in messages(GoldQuestion(id="x", task=TASKS["E-c"], emotion=None, text="t", gold=()))[1]["content"]
    )

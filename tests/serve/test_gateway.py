"""Requests whose pieces fail, or meet another model. The replicas are a stand-in: no Ray."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from emollm.core.answers import Answer
from emollm.core.card import read_card
from emollm.core.prompts import questions_for
from emollm.core.tasks import select_tasks
from emollm.serve import gateway as module
from emollm.serve.annotator import Description
from emollm.serve.batching import Piece
from emollm.serve.config import ServeConfig
from emollm.serve.gateway import Gateway, ModelChanged
from emollm.serve.problems import Problem

TEXTS = ["so " * 200] * 8
"""At 64 tokens a batch each is a piece of its own."""


@dataclass
class Replicas:
    """One model after another: `models[0]` answers until `changes_after` pieces, then `models[1]`, and so on."""

    card: Any
    models: list[str]
    changes_after: int = 10**9
    fails: bool = False
    loads_for: float = 0.0
    """Seconds before it can describe itself."""
    asked: int = 0
    described: int = 0
    given: list[tuple[str, int]] = field(default_factory=list)

    @property
    def model(self) -> str:
        return self.models[min(self.asked // self.changes_after, len(self.models) - 1)]

    @property
    def describe(self) -> Any:
        return _Method(self._describe)

    @property
    def answer(self) -> Any:
        return _Method(self._answer)

    async def _describe(self) -> Description:
        self.described += 1
        await asyncio.sleep(self.loads_for)
        return Description(self.card, "constrained", "float32", "", {}, self.model)

    async def _answer(self, piece: Piece) -> list[list[Answer]] | None:
        number, model = self.asked, self.model
        self.asked += 1
        if self.fails and number == 0:
            raise RuntimeError("piece 0")
        if self.fails:  # what a replica raises as it is called back comes in place of a cancellation
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            raise RuntimeError(f"piece {number}, called back")
        await asyncio.sleep(0)
        if piece.model != model:
            return None
        questions = questions_for("", select_tasks(piece.tasks, self.card.tasks))
        return [[Answer(value=None, error=model) for _ in questions] for _ in piece.texts]


@dataclass
class _Method:
    call: Callable[..., Coroutine[Any, Any, Any]]

    def remote(self, *args: Any) -> Coroutine[Any, Any, Any]:
        return self.call(*args)


@pytest.fixture
def replicas(model_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Gateway, Replicas]]:
    monkeypatch.setattr(module, "RESTART_PAUSE_S", 0.0)

    def make(*models: str, **options: Any) -> tuple[Gateway, Replicas]:
        found = Replicas(read_card(model_directory), list(models), **options)
        return Gateway(ServeConfig(model="m", engine="constrained", batch_tokens=64), found), found

    return make


async def all_of(gateway: Gateway, texts: Sequence[str], into: list[Any]) -> None:
    async for _, answers in gateway.stream({"request_id": "r"}, texts, ["V-oc"]):
        into.append(answers[0].error)


def test_a_request_waits_for_a_replica_that_comes_up_and_readiness_does_not(
    replicas: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READY_TIMEOUT_S", 0.01)
    gateway, _ = replicas("model", loads_for=0.2)

    async def scenario() -> None:
        with pytest.raises(Problem) as problem:
            await gateway.describe(now=True)
        assert (problem.value.status, problem.value.code) == (503, "not_ready")
        results = await gateway.annotate({"request_id": "r"}, TEXTS, ["V-oc"])
        assert [answers[0].error for _, answers in results] == ["model"] * len(TEXTS)

    asyncio.run(scenario())


def test_a_replaced_model_is_noticed_and_its_request_started_over(replicas: Any) -> None:
    gateway, found = replicas("old", "new", changes_after=4)

    async def scenario() -> None:
        await gateway.describe()
        found.asked = 4  # replaced between two requests: the gateway knows the old one
        results = await gateway.annotate({"request_id": "r"}, TEXTS, ["V-oc"])
        assert [answers[0].error for _, answers in results] == ["new"] * len(TEXTS)
        assert found.described == 2

    asyncio.run(scenario())


def test_no_answer_holds_two_models(replicas: Any) -> None:
    gateway, _ = replicas("old", "new", changes_after=4)
    results = asyncio.run(gateway.annotate({"request_id": "r"}, TEXTS, ["V-oc"]))
    assert [answers[0].error for _, answers in results] == ["new"] * len(TEXTS)


def test_a_stream_that_has_begun_breaks_off_where_the_model_changes(replicas: Any) -> None:
    gateway, _ = replicas("old", "new", changes_after=4)
    seen: list[str] = []
    with pytest.raises(ModelChanged):
        asyncio.run(all_of(gateway, TEXTS, seen))
    assert seen == ["old"] * 4
    seen.clear()
    asyncio.run(all_of(gateway, TEXTS, seen))
    assert seen == ["new"] * len(TEXTS), "the next one is asked of the new model"


def test_two_models_side_by_side_are_told_and_not_tried_for_ever(replicas: Any) -> None:
    gateway, found = replicas(*["a", "b"] * 1000, changes_after=1)
    with pytest.raises(Problem) as problem:
        asyncio.run(gateway.annotate({"request_id": "r"}, TEXTS, ["V-oc"]))
    assert (problem.value.status, problem.value.code) == (503, "model_changed")
    assert found.asked <= 2 * module.RESTARTS * len(TEXTS)


def test_pieces_that_fail_behind_the_first_leave_nothing_in_the_log(replicas: Any) -> None:
    gateway, _ = replicas("m", fails=True)
    unheard: list[dict[str, Any]] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unheard.append(context))
        with pytest.raises(RuntimeError, match="piece 0"):
            await gateway.annotate({"request_id": "r"}, TEXTS, ["V-oc"])
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(scenario())
    gc.collect()
    assert unheard == []

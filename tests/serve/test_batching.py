"""Pieces, and the gate that lets them through: no Ray, no clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from emollm.serve.batching import QUESTION_TOKENS, FairGate, Piece, cut, text_tokens


def pieces(request: str, *tokens: int) -> list[Piece]:
    return [Piece(request, (f"{request}{n}",), ("V-reg",), count, "m") for n, count in enumerate(tokens)]


def test_a_request_is_cut_in_order_and_loses_nothing() -> None:
    texts = ["a" * 400, "b", "c" * 40, "", "d" * 100_000, "e"]
    found = list(cut("r", texts, ["V-reg"], num_questions=1, max_post_tokens=512, batch_tokens=512, model="m"))
    assert [text for piece in found for text in piece.texts] == texts
    assert [piece.texts for piece in found if piece.tokens > 128] == [("d" * 100_000,)]
    costs = [text_tokens(text, num_questions=1, max_post_tokens=512) for text in texts]
    assert sum(piece.tokens for piece in found) == sum(costs)
    assert costs == [101 + 8, 1 + 8, 11 + 8, 1 + 8, 512 + 8, 1 + 8]  # four bytes a token; cut at 512
    assert QUESTION_TOKENS == 8


async def rounds(gate: FairGate, asked: list[Piece], *, during: Callable[[int], Awaitable[None]]) -> list[list[str]]:
    """What is let through together, when a batch is run as soon as the gate has let all in that it will."""
    inside: list[str] = []
    seen: list[list[str]] = []
    done = asyncio.Condition()

    async def go(piece: Piece) -> None:
        async with gate.turn(piece):
            inside.extend(piece.texts)
            async with done:
                await done.wait()

    tasks = [asyncio.create_task(go(piece)) for piece in asked]
    while not all(task.done() for task in tasks):
        for _ in range(5):
            await asyncio.sleep(0)
        if not inside:
            continue
        gate.close()
        seen.append(inside.copy())
        inside.clear()
        await during(len(seen))
        async with done:
            done.notify_all()
    await asyncio.gather(*tasks)
    return seen


async def nothing(_round: int) -> None:
    pass


def test_rounds_hold_what_fits_and_requests_take_turns() -> None:
    large, small = pieces("L", *[50] * 6), pieces("s", 50)
    seen = asyncio.run(rounds(FairGate(100), [*large, *small], during=nothing))
    # The large one came first and is six pieces; the small one is in the second round.
    assert seen == [["L0", "L1"], ["L2", "s0"], ["L3", "L4"], ["L5"]]


def test_a_piece_larger_than_a_round_goes_alone_and_is_not_overtaken_for_ever() -> None:
    asked = [*pieces("a", 60), *pieces("B", 500), *pieces("c", 60, 60), *pieces("d", 60)]
    seen = asyncio.run(rounds(FairGate(100), asked, during=nothing))
    assert seen[0] == ["a0"]
    assert seen[1] == ["B0"]
    assert sum(map(len, seen)) == 5


def test_a_request_during_a_round_waits_for_the_next_round() -> None:
    async def scenario() -> list[str]:
        gate, order = FairGate(1000), list[str]()

        async def late() -> None:
            async with gate.turn(pieces("late", 10)[0]):
                order.append("late")

        async with gate.turn(pieces("first", 10)[0]):
            gate.close()
            task = asyncio.create_task(late())
            for _ in range(10):
                await asyncio.sleep(0)
            assert gate.waiting == 1
            order.append("first")
        await task
        assert gate.waiting == 0
        return order

    assert asyncio.run(scenario()) == ["first", "late"]


def test_a_cancelled_request_gives_its_place_back() -> None:
    async def scenario() -> None:
        gate = FairGate(100)
        release = asyncio.Event()

        async def hold(piece: Piece) -> None:
            async with gate.turn(piece):
                gate.close()
                await release.wait()

        inside = asyncio.create_task(hold(pieces("in", 100)[0]))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(hold(piece)) for piece in pieces("w", 100, 100)]
        await asyncio.sleep(0)
        assert gate.waiting == 2
        waiting[0].cancel()
        inside.cancel()
        with pytest.raises(asyncio.CancelledError):
            await inside
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        release.set()
        await asyncio.wait_for(waiting[1], 1)
        async with asyncio.timeout(1), gate.turn(pieces("next", 100)[0]):
            pass

    asyncio.run(scenario())


def test_a_request_cancelled_while_it_is_admitted_blocks_no_other() -> None:
    async def scenario() -> None:
        gate = FairGate(100)

        async def go(piece: Piece) -> None:
            async with gate.turn(piece):
                pass

        async with gate.turn(pieces("first", 100)[0]):
            task = asyncio.create_task(go(pieces("a", 100)[0]))
            await asyncio.sleep(0)
        task.cancel()  # it has its place now, and has not yet run on
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(go(pieces("b", 100)[0]), 1)

    asyncio.run(scenario())

"""Requests cut into pieces, and the gate that lets pieces through to the model in fair rounds."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

BYTES_PER_TOKEN = 4
"""The sample posts hold 4.03 bytes a token for SmolLM2 (2.8 to 5.7). An estimate will do: it decides who waits, while
the engine cuts its own passes by exact tokens."""
QUESTION_TOKENS = 8
"""What a question costs besides the post: its suffix and the answers that are read."""
PIECES_A_BATCH = 4
"""A piece is at most this part of a batch, so that a round holds several requests."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some texts of one request, asked the same tasks: what goes through the model as a whole."""

    request: str
    """Id of the request it was cut from: pieces of one request take turns with those of others."""
    texts: tuple[str, ...]
    tasks: tuple[str, ...]
    tokens: int
    """Estimated work."""
    model: str
    """Identity of the model it was cut for: a replica with another one does not answer."""


def text_tokens(text: str, *, num_questions: int, max_post_tokens: int) -> int:
    """Estimated tokens of work for one text; a longer post than `max_post_tokens` is cut there by the engine.

    `num_questions` is 0 for heads, which read a post once for all questions.
    """
    post = len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN + 1
    return min(post, max_post_tokens) + num_questions * QUESTION_TOKENS


def cut(
    request: str,
    texts: Sequence[str],
    tasks: Sequence[str],
    *,
    num_questions: int,
    max_post_tokens: int,
    batch_tokens: int,
    model: str,
) -> Iterator[Piece]:
    """The texts in order, in pieces of at most a part of a batch; a longer text is a piece of its own."""
    part: list[str] = []
    tokens = 0
    piece_tokens = batch_tokens // PIECES_A_BATCH
    for text in texts:
        cost = text_tokens(text, num_questions=num_questions, max_post_tokens=max_post_tokens)
        if part and tokens + cost > piece_tokens:
            yield Piece(request, tuple(part), tuple(tasks), tokens, model)
            part, tokens = [], 0
        part.append(text)
        tokens += cost
    if part:
        yield Piece(request, tuple(part), tuple(tasks), tokens, model)


class FairGate:
    """Lets pieces through in rounds of at most `budget` tokens, requests taking turns.

    Why before `@serve.batch`: Serve closes a batch by the clock, also while the model is busy with the one before, so
    that a steady stream of requests would run in batches of one; and it puts what no longer fits at the end of its
    queue. Here a round is made up when the model is free, holds no more than fits, and a request with a thousand
    pieces gets one in while a request with one gets one.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._lines: OrderedDict[str, deque[tuple[int, asyncio.Future[None]]]] = OrderedDict()
        self._inside = 0
        self._room = budget
        self._closed = False

    @property
    def waiting(self) -> int:
        """Pieces that wait for their round."""
        return sum(not future.done() for line in self._lines.values() for _, future in line)

    @contextlib.asynccontextmanager
    async def turn(self, piece: Piece) -> AsyncIterator[None]:
        """Wait for a place in a round and hold it in the block. Cancelled, it is given back at once."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(piece.request, deque()).append((piece.tokens, place))
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            # Admitted and cancelled in the same moment: the place was taken, so it is left.
            if place.done() and not place.cancelled():
                self._leave()
            raise
        try:
            yield
        finally:
            self._leave()

    def close(self) -> None:
        """The model has begun with this round: nobody enters until all of it have left."""
        self._closed = self._inside > 0

    def _leave(self) -> None:
        self._inside -= 1
        if self._inside == 0:
            self._room, self._closed = self.budget, False
            self._admit()

    def _admit(self) -> None:
        while self._lines and not self._closed:
            request, line = next(iter(self._lines.items()))
            while line and line[0][1].done():  # cancelled while it waited
                line.popleft()
            if line:
                tokens, place = line[0]
                if self._inside and tokens > self._room:
                    return  # nobody overtakes: it is the first of the next round
                line.popleft()
                place.set_result(None)
                self._inside += 1
                self._room -= tokens
            del self._lines[request]
            if line:
                self._lines[request] = line  # behind the others

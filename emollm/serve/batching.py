"""Cuts requests into pieces and lets them through to the model in fair rounds."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from emollm.core.encoding import CONTEXT_TOKENS, TARGET_TOKENS
from emollm.core.tasks import Task
from emollm.scoring.explain import words_of

BYTES_PER_TOKEN = 4
"""The sample posts have 4.03 bytes per token for SmolLM2 (2.8 to 5.7). An estimate is enough: it decides which pieces
wait, and the engine batches by exact token counts."""
QUESTION_TOKENS = 8
"""Tokens per question besides the post: its suffix and the answers scored."""
PIECES_PER_BATCH = 4
"""A piece is at most a quarter of a batch, so that a round holds several requests."""


class Beside(NamedTuple):
    """What is read beside a text."""

    context: str = ""
    target: str = ""

    @property
    def tokens(self) -> int:
        """Estimated; a context is cut at `CONTEXT_TOKENS`."""
        return min(_tokens(self.context), CONTEXT_TOKENS) + min(_tokens(self.target), TARGET_TOKENS)


def _tokens(text: str) -> int:
    return len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN


@dataclass(frozen=True, slots=True)
class Piece:
    """Some texts of one request, which go through the model together."""

    request: str
    """Id of its request: requests take turns."""
    texts: tuple[str, ...]
    tasks: tuple[str | Task, ...]
    tokens: int
    """Estimated work."""
    model: str
    """Identity of the model it was cut for: a replica with another model does not answer."""
    explain: bool = False
    """Whether each word is removed in turn, which needs one pass per word and one more."""
    beside: tuple[Beside, ...] = ()
    """Context and target of each text; empty where there are none."""


def text_tokens(text: str, *, num_questions: int, max_post_tokens: int) -> int:
    """Estimated tokens of work for one text; the engine truncates posts at `max_post_tokens`.

    `num_questions` is 0 for heads: one forward pass answers all questions.
    """
    post = len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN + 1
    return min(post, max_post_tokens) + num_questions * QUESTION_TOKENS


def cut(
    request: str,
    texts: Sequence[str],
    tasks: Sequence[str | Task],
    *,
    beside: Sequence[Beside] = (),
    num_questions: int,
    max_post_tokens: int,
    batch_tokens: int,
    model: str,
    explain: bool = False,
) -> Iterator[Piece]:
    """The texts in order, in pieces of at most a quarter of a batch; a longer text is a piece of its own."""
    first, tokens = 0, 0
    piece_tokens = batch_tokens // PIECES_PER_BATCH

    def piece(stop: int) -> Piece:
        part = tuple(texts[first:stop]), tuple(tasks)
        return Piece(request, *part, tokens, model, explain, tuple(beside[first:stop]))

    for n, text in enumerate(texts):
        cost = text_tokens(text, num_questions=num_questions, max_post_tokens=max_post_tokens)
        cost += beside[n].tokens if beside else 0
        cost *= 1 + len(words_of(text)) if explain else 1
        if n > first and tokens + cost > piece_tokens:
            yield piece(n)
            first, tokens = n, 0
        tokens += cost
    if first < len(texts):
        yield piece(len(texts))


class FairGate:
    """Lets pieces through in rounds of at most `budget` tokens; requests take turns.

    Why in front of `@serve.batch`: Serve closes a batch by the clock, even while the model is busy with the one before,
    so a steady stream of requests would run in batches of one; and what does not fit goes to the end of its queue. Here
    a round is assembled when the model is free, and a request with a thousand pieces gets one in for each piece of a
    request with one.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._lines: OrderedDict[str, deque[tuple[int, asyncio.Future[None]]]] = OrderedDict()
        self._inside = 0
        self._room = budget
        self._closed = False

    @property
    def waiting(self) -> int:
        """Pieces waiting for their round."""
        return sum(not future.done() for line in self._lines.values() for _, future in line)

    @contextlib.asynccontextmanager
    async def turn(self, piece: Piece) -> AsyncIterator[None]:
        """Wait for a place in a round and hold it within the block. A cancelled piece gives it back at once."""
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
        """The model has started this round: no piece enters until all of it have left."""
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

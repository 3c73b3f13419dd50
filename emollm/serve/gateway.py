"""Between HTTP and the model: cuts requests into pieces and sends them again if a replica died or the model changed."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from ray.exceptions import RayActorError

from emollm.core.answers import Answer
from emollm.core.ask import asked_task
from emollm.core.errors import ConfigError
from emollm.core.prompts import Question, questions_for
from emollm.core.tasks import Task, references, select_tasks
from emollm.scoring.extras import Extras
from emollm.serve.annotator import Description, batch_budget
from emollm.serve.batching import Beside, Piece, cut
from emollm.serve.config import ServeConfig
from emollm.serve.metrics import HttpMetrics
from emollm.serve.problems import Problem, log

Names = Sequence[str | Mapping[str, Any]] | None
"""Names of tasks of the model, and tasks of a request as `core.ask` reads them; None: all that the model knows."""

PIECES_UNDER_WAY = 32
"""Pieces in flight per request: enough for eight replicas, and bounded memory for a large request."""
ATTEMPTS = 3
"""Sending a piece again is safe: answers are computed and nothing is stored. But a text that kills its replica must
not kill all replicas in turn."""
RESTARTS = 5
RESTART_PAUSE_S = 0.5
"""While replicas of an old and a new model run side by side, a request may meet both."""
READY_TIMEOUT_S = 2.0
"""Readiness checks must not wait; a request may wait for a replica that is starting."""
DESCRIBE_TIMEOUT_S = 15.0


class ModelChanged(Problem):
    """A replica has another model than the one the request was cut for."""

    def __init__(self) -> None:
        super().__init__(503, "model_changed", "the model was replaced meanwhile; send it again", retry_after_s=1)


class Gateway:
    """The interface for the routes, one per HTTP process; `annotator` is a handle to the model replicas."""

    def __init__(self, config: ServeConfig, annotator: Any) -> None:
        self.config = config
        self.metrics = HttpMetrics()
        self._annotator = annotator
        self._description: Description | None = None

    async def describe(self, *, now: bool = False) -> Description:
        """The model's description, cached; with `now` a replica is asked even so.

        Raises Problem while no replica has a model.
        """
        if self._description is None or now:
            try:
                async with asyncio.timeout(READY_TIMEOUT_S if now else DESCRIBE_TIMEOUT_S):
                    self._description = await self._annotator.describe.remote()
            except Exception as error:
                log.warning("no model answers", extra={"error": type(error).__name__})
                raise Problem(
                    503, "not_ready", "no replica of the model answers; it is loading, or `serve status` says why not",
                    retry_after_s=5,
                ) from None  # fmt: skip
        return self._description

    async def tasks(self, names: Names) -> tuple[Task, ...]:
        """The tasks of these names; raises Problem naming the known ones."""
        return _select(names, await self.describe())

    async def extras(self, names: Names, asked: Mapping[str, Any]) -> Extras | None:
        """The requested additions to the answers; raises Problem if the model was not fitted for them."""
        if not any(asked.values()):
            return None
        described = await self.describe()
        tasks = _select(names, described)
        try:
            return Extras.of(described.card, described.engine, tasks, **asked)
        except ConfigError as error:
            raise Problem(422, "not_fitted", str(error)[:500]) from None

    async def annotate(
        self,
        notes: dict[str, Any],
        texts: Sequence[str],
        names: Names,
        beside: Sequence[Beside] = (),
        *,
        explain: bool = False,
    ) -> list[tuple[list[Question], list[Answer]]]:
        """Questions and answers of each text, all of one model and within the deadline, or Problem 504."""
        try:
            async with asyncio.timeout(self.config.deadline_s):
                try:
                    return await self._gathered(notes, texts, names, beside, explain=explain)
                except ModelChanged:  # some texts were answered by the previous model: all are sent again
                    return await self._gathered(notes, texts, names, beside, explain=explain)
        except TimeoutError:
            raise self._too_late() from None

    async def _gathered(
        self,
        notes: dict[str, Any],
        texts: Sequence[str],
        names: Names,
        beside: Sequence[Beside] = (),
        *,
        explain: bool = False,
    ) -> list[tuple[list[Question], list[Answer]]]:
        async with aclosing(self.stream(notes, texts, names, beside, explain=explain)) as results:
            return [result async for result in results]

    async def stream(
        self,
        notes: dict[str, Any],
        texts: Sequence[str],
        names: Names,
        beside: Sequence[Beside] = (),
        *,
        explain: bool = False,
    ) -> AsyncGenerator[tuple[list[Question], list[Answer]]]:
        """The same, text by text in their order, each within the deadline after the one before.

        Raises ModelChanged if the model is replaced after the first text; before it, it starts over.
        """
        for attempt in itertools.count(1):
            begun = False
            try:
                async with aclosing(self._answered(notes, texts, names, beside, explain=explain)) as results:
                    async for result in results:
                        begun = True
                        yield result
                return
            except ModelChanged:
                self._description = None
                if begun or attempt == RESTARTS:
                    raise
                log.warning("the model was replaced; starting a request over", extra={"attempt": attempt})
                await asyncio.sleep(RESTART_PAUSE_S)

    async def _answered(
        self,
        notes: dict[str, Any],
        texts: Sequence[str],
        names: Names,
        beside: Sequence[Beside] = (),
        *,
        explain: bool = False,
    ) -> AsyncGenerator[tuple[list[Question], list[Answer]]]:
        described = await self.describe()
        tasks = _select(names, described)
        # One list for all texts: the response needs the task and emotion of each answer, not the text.
        questions = questions_for("", tasks)
        remaining = iter(self._cut(notes, texts, tasks, described, beside, explain=explain))
        under_way: deque[asyncio.Task[list[list[Answer]]]] = deque()
        try:
            while True:
                for piece in itertools.islice(remaining, PIECES_UNDER_WAY - len(under_way)):
                    under_way.append(asyncio.create_task(self._ask(piece)))
                if not under_way:
                    return
                task = under_way[0]
                try:
                    answered = await asyncio.wait_for(task, self.config.deadline_s)
                except TimeoutError:
                    raise self._too_late() from None
                under_way.popleft()
                for answers in answered:
                    yield questions, answers
        finally:
            # The client left, the deadline passed or a piece failed: cancel the rest.
            for task in under_way:
                task.cancel()
            # Awaited, or asyncio would log the traceback of one that fails while it is cancelled.
            await asyncio.gather(*under_way, return_exceptions=True)

    def _cut(
        self,
        notes: dict[str, Any],
        texts: Sequence[str],
        tasks: tuple[Task, ...],
        described: Description,
        beside: Sequence[Beside],
        *,
        explain: bool,
    ) -> list[Piece]:
        # A task of the request is read answer by answer, whatever the engine.
        asked = sum(len(task.answer_values) or 2 for task in tasks if task.way is not None)
        own = sum(len(task.keys) for task in tasks if task.way is None)
        pieces = list(
            cut(
                notes["request_id"],
                texts,
                references(tasks),
                beside=beside,
                num_questions=asked + (0 if self.config.engine == "heads" else own),
                max_post_tokens=described.card.max_post_tokens,
                batch_tokens=batch_budget(self.config),
                model=described.identity,
                explain=explain,
            )
        )
        notes["texts"], notes["tokens"] = len(texts), sum(piece.tokens for piece in pieces)
        return pieces

    async def _ask(self, piece: Piece) -> list[list[Answer]]:
        for attempt in range(ATTEMPTS):
            try:
                answers: list[list[Answer]] | None = await self._annotator.answer.remote(piece)
                if answers is None:
                    raise ModelChanged
                return answers
            except RayActorError:
                self.metrics.lost()
                log.warning("a replica of the model died; sending its pieces again", extra={"attempt": attempt + 1})
        raise Problem(503, "model_lost", "replicas of the model died with this request; try it again", retry_after_s=5)

    def _too_late(self) -> Problem:
        return Problem(504, "deadline", f"not answered within {self.config.deadline_s:g} s; send fewer texts at once")


def _select(names: Names, described: Description) -> tuple[Task, ...]:
    known = described.card.tasks
    if names is None:
        return known
    wanted: list[str | Task] = []
    for n, name in enumerate(names):
        try:
            wanted.append(name if isinstance(name, str) else asked_task(name))
        except ConfigError as error:
            message = str(error)[:500]
            raise Problem(422, "invalid_task", message, fields=[(f"tasks.{n}", message)]) from None
    try:
        return select_tasks(wanted, known)
    except ConfigError as error:
        raise Problem(422, "unknown_task", str(error)[:500], fields=[("tasks", str(error)[:500])]) from None

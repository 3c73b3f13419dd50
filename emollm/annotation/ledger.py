"""Bookkeeping of a run, without Ray: which blocks are being scored, their progress, and what went wrong.

Ray restarts a dead actor and retries its block without limit, so a post that always kills its actor, by exhausting
memory or crashing native code, would block the run for good. The ledger records the posts that each actor is about to
score. If the attempt never finishes, they are suspects: the next attempt scores them one at a time, and a post that
was alone in flight at two deaths is set aside.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SERVER_FAILED = "server_failed"
"""The error code of `scoring.server.engine`, which this file does not import: it is bookkeeping alone."""
MAX_STRIKES = 2
"""Deaths with this post alone in flight after which it is set aside. Not 1: a node failure blames an innocent post."""
MAX_DEATHS = 12
"""Deaths per block after which the run stops: no single post is to blame."""
MIN_POSTS = 200
"""Posts before the error rate is checked."""
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Instructions:
    """How an attempt at a block proceeds. Posts are numbered from 0 within the block."""

    attempt: int
    """0 for the first attempt."""
    suspect_range: tuple[int, int] | None = None
    """First and past-the-end index of the posts to score one at a time."""
    set_aside: frozenset[int] = frozenset()
    """Posts not to score."""


@dataclass(frozen=True, slots=True)
class Portion:
    """An actor's report of posts it has scored."""

    posts: int
    errors: dict[str, int] = field(default_factory=dict)
    """Posts with an error, by its code."""
    examples: tuple[str, ...] = ()
    tokens: int = 0
    padded: int = 0
    """Tokens with padding."""
    repeated: int = 0
    """Posts that share the answers of an equal text."""
    seconds: float = 0.0
    """Actor time."""
    server: dict[str, float] = field(default_factory=dict)
    """Of posts that servers answered: sums as in `scoring.server.usage.Usage`."""


@dataclass(slots=True)
class _Block:
    running: bool = False
    flight: tuple[int, int] | None = None
    done: int = 0
    """Posts of the running attempt that are scored."""
    deaths: int = 0
    suspect_range: tuple[int, int] | None = None
    strikes: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Totals:
    """The run so far."""

    posts: int = 0
    """Scored and not known to be lost."""
    lost: int = 0
    """Scored by attempts that died, and therefore scored again."""
    deaths: int = 0
    set_aside: int = 0
    errors: int = 0
    tokens: int = 0
    padded: int = 0
    repeated: int = 0
    seconds: float = 0.0
    server: dict[str, float] = field(default_factory=dict)
    """As a portion's."""


class Ledger:
    def __init__(
        self, *, max_error_rate: float, num_workers: int, good_before: int = 0, max_cost: float | None = None
    ) -> None:
        """`num_workers` is the largest number of actors; `good_before` rows of earlier runs have no error; `max_cost`
        is the cap of the servers' cost.
        """
        self._max_cost = max_cost
        self._server: Counter[str] = Counter()
        self._max_error_rate = max_error_rate
        self._max_loads = 3 * num_workers + 3
        self._good_before = good_before
        self._loads = self._loaded = 0
        self._blocks: dict[str, _Block] = {}
        self._sums: Counter[str] = Counter()
        self._seconds = 0.0
        self._waited_for = 0
        """Posts whose server did not answer: a failed server does not end the run."""
        self._errors: Counter[str] = Counter()
        self._examples: list[str] = []
        self.stop: str | None = None
        """Why the run must stop, or None: every actor raises it."""

    def loading(self) -> str | None:
        """An actor is about to load the model. Returns why the run must stop, or None."""
        if not self._loaded and self._loads >= self._max_loads:
            self.stop = (
                f"{self._loads} actors died while loading the model, and none loaded it: they may lack memory; lower "
                "--cluster.num-workers, or use a smaller model"
            )
        self._loads += 1
        return self.stop

    def loaded(self) -> None:
        self._loaded += 1

    def start_block(self, block: str) -> Instructions:
        """An actor starts a block; an earlier attempt at it that is still open has died."""
        state = self._blocks.setdefault(block, _Block())
        if state.running:
            self._died(block, state)
        state.running, state.flight, state.done = True, None, 0
        aside = frozenset(post for post, strikes in state.strikes.items() if strikes >= MAX_STRIKES)
        return Instructions(state.deaths, state.suspect_range, aside)

    def _died(self, block: str, state: _Block) -> None:
        state.deaths += 1
        self._sums["deaths"] += 1
        self._sums["lost"] += state.done
        self._sums["posts"] -= state.done
        if state.flight is not None:
            first, stop = state.flight
            if stop - first == 1:
                state.strikes[first] += 1
                self._sums["set_aside"] += state.strikes[first] == MAX_STRIKES
            else:
                state.suspect_range = state.flight
        if state.deaths >= MAX_DEATHS:
            self.stop = (
                f"{state.deaths} actors died while scoring {block}, at no single post: they may lack "
                "memory; lower --batch-size or --cluster.num-workers, or raise --cluster.cpus-per-worker, and run again"
            )

    def start_portion(self, block: str, first: int, stop: int) -> str | None:
        """These posts are scored next. Returns why the run must stop, or None."""
        self._blocks[block].flight = (first, stop)
        return self.stop

    def finish_portion(self, block: str, portion: Portion) -> str | None:
        """The posts were scored. Returns the same as `start_portion`."""
        state = self._blocks[block]
        state.flight = None
        state.done += portion.posts
        self._sums.update(
            posts=portion.posts, tokens=portion.tokens, padded=portion.padded, repeated=portion.repeated,
            errors=sum(portion.errors.values()),
        )  # fmt: skip
        self._seconds += portion.seconds
        self._server.update(portion.server)
        self._waited_for += portion.errors.get(SERVER_FAILED, 0)
        self._errors.update(portion.errors)
        self._examples += portion.examples[: _EXAMPLES - len(self._examples)]
        checked = self._good_before + self._sums["posts"] + self._sums["lost"]
        wrong = self._sums["errors"] - self._waited_for
        if self.stop is None and checked >= MIN_POSTS and wrong > self._max_error_rate * checked:
            codes = ", ".join(f"{count:,} {code}" for code, count in self._errors.most_common(3))
            self.stop = (
                f"{self._sums['errors']:,} of the first {checked:,} posts have an error ({codes}), more than "
                f"--max-error-rate {self._max_error_rate:g}; for example {'; '.join(self._examples)}. Scored "
                "posts are kept: fix the cause or raise --max-error-rate, and run again"
            )
        if self.stop is None and self._max_cost is not None and self._server["cost"] >= self._max_cost > 0:
            self.stop = (
                f"the servers' cost has reached {self._server['cost']:.2f}, and --requests.max-cost is "
                f"{self._max_cost:g}. Scored posts are kept: raise it and run again"
            )
        return self.stop

    def finish_block(self, block: str) -> None:
        """The whole block is scored. If Ray loses its result and has it scored again, that is not a death."""
        self._blocks.pop(block, None)

    def totals(self) -> Totals:
        return Totals(**{name: self._sums[name] for name in (
            "posts", "lost", "deaths", "set_aside", "errors", "tokens", "padded", "repeated",
        )}, seconds=self._seconds, server=dict(self._server))  # fmt: skip

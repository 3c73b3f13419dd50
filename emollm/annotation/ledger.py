"""Who scores which block, how far they are, and what went wrong: plain bookkeeping, no Ray in it.

Ray restarts an actor that died and gives its block to another, for ever. So a post that always kills its actor, by
exhausting memory or crashing native code, would hold up the run for good. The ledger notes the posts that each actor
is about to score. An attempt that never ended blames them: the next one takes those one at a time, and a post that
was alone in flight at two deaths is set aside.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MAX_STRIKES = 2
"""Deaths alone in flight after which a post is set aside. Not one: a machine that goes down blames the wrong post."""
MAX_DEATHS = 12
"""Deaths over one block after which the run stops: no post in particular is to blame."""
MIN_POSTS = 200
"""Posts from which on the share of errors is looked at."""
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Orders:
    """How an attempt is to go about a block. Posts are counted from 0 in the block."""

    attempt: int
    """0 for the first."""
    suspects: tuple[int, int] | None = None
    """From and up to which post they are taken one at a time."""
    set_aside: frozenset[int] = frozenset()
    """Posts that are not to be scored."""


@dataclass(frozen=True, slots=True)
class Portion:
    """What an actor tells of posts that it has scored."""

    posts: int
    errors: dict[str, int] = field(default_factory=dict)
    """Posts with an error, by its code."""
    examples: tuple[str, ...] = ()
    tokens: int = 0
    padded: int = 0
    """Tokens with padding."""
    repeated: int = 0
    """Posts answered by an equal text's answers."""
    seconds: float = 0.0
    """Of an actor's time."""


@dataclass(slots=True)
class _Block:
    running: bool = False
    flight: tuple[int, int] | None = None
    done: int = 0
    """Posts of the running attempt that are scored."""
    deaths: int = 0
    suspects: tuple[int, int] | None = None
    strikes: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Totals:
    """The run up to now."""

    posts: int = 0
    """Scored and, as far as is known, not lost."""
    lost: int = 0
    """Scored by attempts that died: their work is done again."""
    deaths: int = 0
    set_aside: int = 0
    errors: int = 0
    tokens: int = 0
    padded: int = 0
    repeated: int = 0
    seconds: float = 0.0


class Ledger:
    def __init__(self, *, max_error_rate: float, num_workers: int, good_before: int = 0) -> None:
        """`num_workers` are the actors there may be at once; `good_before` rows of earlier runs have no error."""
        self._max_error_rate = max_error_rate
        self._max_loads = 3 * num_workers + 3
        self._good_before = good_before
        self._loads = self._loaded = 0
        self._blocks: dict[str, _Block] = {}
        self._sums: Counter[str] = Counter()
        self._seconds = 0.0
        self._errors: Counter[str] = Counter()
        self._examples: list[str] = []
        self.stop: str | None = None
        """Why the run has to end, if it has to: every actor raises it."""

    def load(self) -> str | None:
        """An actor is about to load the model. Returns why the run has to end, if it has to."""
        if not self._loaded and self._loads >= self._max_loads:
            self.stop = (
                f"{self._loads} actors died while loading the model, and none loaded it: they may lack memory; lower "
                "--cluster.num-workers, or take a smaller model"
            )
        self._loads += 1
        return self.stop

    def loaded(self) -> None:
        self._loaded += 1

    def begin(self, block: str) -> Orders:
        """An actor starts on a block; an attempt at it that is still open has died."""
        state = self._blocks.setdefault(block, _Block())
        if state.running:
            self._died(block, state)
        state.running, state.flight, state.done = True, None, 0
        aside = frozenset(post for post, strikes in state.strikes.items() if strikes >= MAX_STRIKES)
        return Orders(state.deaths, state.suspects, aside)

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
                state.suspects = state.flight
        if state.deaths >= MAX_DEATHS:
            self.stop = (
                f"{state.deaths} actors died over the posts of {block}, at no post in particular: they may lack "
                "memory; lower --batch-size or --cluster.num-workers, or raise --cluster.cpus-per-worker, and run again"
            )

    def fly(self, block: str, first: int, stop: int) -> str | None:
        """These posts are scored next. Returns why the run has to end, if it has to."""
        self._blocks[block].flight = (first, stop)
        return self.stop

    def land(self, block: str, portion: Portion) -> str | None:
        """They were scored, and nothing died. Returns as `fly`."""
        state = self._blocks[block]
        state.flight = None
        state.done += portion.posts
        self._sums.update(
            posts=portion.posts, tokens=portion.tokens, padded=portion.padded, repeated=portion.repeated,
            errors=sum(portion.errors.values()),
        )  # fmt: skip
        self._seconds += portion.seconds
        self._errors.update(portion.errors)
        self._examples += portion.examples[: _EXAMPLES - len(self._examples)]
        looked_at = self._good_before + self._sums["posts"] + self._sums["lost"]
        if self.stop is None and looked_at >= MIN_POSTS and self._sums["errors"] > self._max_error_rate * looked_at:
            codes = ", ".join(f"{count:,} {code}" for code, count in self._errors.most_common(3))
            self.stop = (
                f"{self._sums['errors']:,} of the first {looked_at:,} posts have an error ({codes}), more than "
                f"--max-error-rate {self._max_error_rate:g}; for example {'; '.join(self._examples)}. What was scored "
                "is kept: mend the cause or raise --max-error-rate, and run again"
            )
        return self.stop

    def end(self, block: str) -> None:
        """All of the block is scored. Should Ray lose its result and have it scored again, that is no death."""
        self._blocks.pop(block, None)

    def totals(self) -> Totals:
        return Totals(**{name: self._sums[name] for name in (
            "posts", "lost", "deaths", "set_aside", "errors", "tokens", "padded", "repeated",
        )}, seconds=self._seconds)  # fmt: skip

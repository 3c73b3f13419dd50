"""The ledger as a Ray actor on the driver's node, the progress computed from it, and metrics for Prometheus."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from emollm.annotation.ledger import Ledger, Portion, Totals

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run, to be displayed."""

    new: int
    """Posts since the last time."""
    total: int | None
    """Posts in all; None while they are counted."""
    note: str


@contextlib.contextmanager
def monitored(*, receive: Callable[[Totals], None], **options: Any) -> Iterator[Any]:
    """A `Ledger(**options)` that actors on any node can call.

    `receive` gets its totals about twice a second, and at the end.
    """
    import ray

    from emollm.runtime.pools import on_this_node

    ledger = ray.remote(Ledger).options(num_cpus=0, scheduling_strategy=on_this_node()).remote(**options)
    finished = threading.Event()

    def poll() -> None:
        while not finished.wait(_POLL_S):
            with contextlib.suppress(ray.exceptions.RayError):
                receive(ray.get(ledger.totals.remote(), timeout=60))

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield ledger
    finally:
        finished.set()
        thread.join(timeout=10)
        with contextlib.suppress(ray.exceptions.RayError):
            receive(ray.get(ledger.totals.remote(), timeout=60))
        ray.kill(ledger)


class Pace:
    """Totals to `Progress`: rates over the last minute, and the time that is left."""

    def __init__(self, *, done: int, total: int) -> None:
        """`done` posts of `total` were there before the run."""
        self._before, self._total = done, total
        self._told = 0
        self._points: list[tuple[float, Totals]] = []
        self._last_note = "starting actors"

    def first(self) -> Progress:
        return Progress(new=self._before, total=self._total, note=self._last_note)

    def step(self, totals: Totals) -> Progress:
        now = time.monotonic()
        recent = [point for point in self._points if now - point[0] < 60]
        # Actors load their model before the first post: that does not count towards their pace.
        self._points = (recent if totals.posts and recent else []) + [(now, totals)]
        # A dead actor's posts are subtracted; the bar waits for them rather than going backwards.
        new = max(0, totals.posts - self._told)
        self._told += new
        if new or self._before + totals.posts < self._total:  # once all are scored, the rate stays as it was
            self._last_note = self._note(totals)
        return Progress(new=new, total=self._total, note=self._last_note)

    def _note(self, totals: Totals) -> str:
        (then, before), (now, _) = self._points[0], self._points[-1]
        seconds = max(now - then, 1e-9)
        rate = (totals.posts - before.posts) / seconds
        parts = []
        if rate > 0:
            parts.append(f"{rate:,.1f} posts/s" if rate < 100 else f"{rate:,.0f} posts/s")
            left = (self._total - self._before - totals.posts) / rate
            if totals.tokens > before.tokens:
                parts.append(f"{(totals.tokens - before.tokens) / seconds:,.0f} tokens/s")
            parts.append(f"{left_in_words(left)} left")
        if totals.padded:
            parts.append(f"{1 - totals.tokens / totals.padded:.0%} padding")
        if totals.posts:
            parts.append(f"{totals.errors / totals.posts:.1%} errors" if totals.errors else "no errors")
        if cost := totals.server.get("cost"):
            parts.append(f"cost {cost:,.2f}")
        if totals.deaths:
            parts.append(f"{totals.deaths} actor{'' if totals.deaths == 1 else 's'} died")
        return ", ".join(parts) or "starting actors"


def left_in_words(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class Metrics:
    """Counters of one actor, which Ray exports to Prometheus; docs/annotation.md lists them."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Histogram

        self._posts = Counter("emollm_annotated_posts", "Posts scored.")
        self._errors = Counter("emollm_annotated_errors", "Posts with an error, by its code.", tag_keys=("code",))
        self._tokens = Counter("emollm_annotated_tokens", "Tokens that went through the model, without padding.")
        self._padding = Counter("emollm_annotated_padding", "Padding tokens that went through the model.")
        self._seconds = Histogram(
            "emollm_annotated_post_seconds",
            "Seconds per post and actor, averaged over a portion.",
            boundaries=[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
        )

    def count(self, portion: Portion) -> None:
        self._posts.inc(portion.posts)
        for code, count in portion.errors.items():
            self._errors.inc(count, tags={"code": code})
        if portion.tokens:
            self._tokens.inc(portion.tokens)
        if portion.padded > portion.tokens:
            self._padding.inc(portion.padded - portion.tokens)
        self._seconds.observe(portion.seconds / portion.posts)

"""How an actor scores a block of posts: its distinct texts in portions, each reported to the ledger."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emollm.annotation.ledger import Instructions, Portion
from emollm.annotation.output import ROW
from emollm.core.errors import DataError, DeviceError
from emollm.core.prompts import as_context
from emollm.models.batching import PASSES
from emollm.scoring.calibrated import inner
from emollm.scoring.rows import AnnotatePosts

KILLED_WORKER = "killed_worker"

_FIRST_PORTION = 16
_LARGEST_PORTION = 16_384
_SHORT_S, _LONG_S = 2.0, 10.0
_SHOWN = 60
_STDERR = 2


class ScoreBlock:
    """A block of numbered rows to the same rows with affect columns."""

    def __init__(self, *, ledger: Any, batch_size: int | None, patience_s: float, **options: Any) -> None:
        """`ledger` is the handle that `monitor.monitored` yields; the other options are those of `AnnotatePosts`.

        A portion that is not scored after `patience_s` ends the process.
        """
        self._ledger = ledger
        self._annotate = AnnotatePosts(**options)
        self._beside = [name for name in options.get("beside", ()) if name]
        self._batch_size = batch_size
        self._patience_s = patience_s
        self._size = batch_size or _FIRST_PORTION
        self._metrics: Any = None
        """Counters, once the model is loaded."""

    def __call__(self, table: pa.Table) -> pa.Table:
        import ray

        if self._metrics is None:
            self._get_ready()
        block = block_name(table)
        instructions: Instructions = ray.get(self._ledger.start_block.remote(block))
        distinct, which = distinct_posts(table, self._beside)
        weights = np.bincount(which, minlength=distinct.num_rows)
        scored = []
        for first, stop in self._portions(distinct.num_rows, instructions):
            self._tell(self._ledger.start_portion.remote(block, first, stop))
            portion = _setting_aside(distinct.slice(first, stop - first), first, instructions)
            rows, report = self._score(portion, weights[first:stop])
            scored.append(rows)
            self._tell(self._ledger.finish_portion.remote(block, report))
        ray.get(self._ledger.finish_block.remote(block))
        return _answers(table, pa.concat_tables(scored).take(pa.array(which)))

    def _get_ready(self) -> None:
        import ray

        from emollm.annotation.monitor import Metrics

        self._tell(self._ledger.loading.remote())
        _ = self._annotate.scorer
        # Otherwise every full garbage collection scans all objects of torch and the model.
        gc.freeze()
        ray.get(self._ledger.loaded.remote())
        self._metrics = Metrics()

    def _portions(self, count: int, instructions: Instructions) -> Iterator[tuple[int, int]]:
        """Neighbouring posts that are scored together; those of the suspect range go alone."""
        first = 0
        low, high = instructions.suspect_range or (count, count)
        while first < count:
            size = 1 if low <= first < high else min(self._size, (low if first < low else count) - first)
            yield first, first + size
            first += size

    def _score(self, table: pa.Table, weights: NDArray[np.intp]) -> tuple[pa.Table, Portion]:
        """`weights` is the number of posts that each row stands for."""
        tokens, padded, started = PASSES.tokens, PASSES.padded, time.monotonic()
        usage = getattr(inner(self._annotate.scorer), "usage", None)
        asked_before = replace(usage) if usage else None
        with ending_if_it_hangs(self._patience_s), ending_if_the_gpu_fails():
            scored = self._annotate(table)
        seconds = time.monotonic() - started
        self._adapt(table.num_rows, seconds)
        errors: Counter[str] = Counter()
        if scored["error"].null_count < scored.num_rows:
            for error, weight in zip(scored["error"].to_pylist(), weights.tolist(), strict=True):
                if error:
                    errors[error_code(error)] += weight
        portion = Portion(
            posts=int(weights.sum()),
            errors=dict(errors),
            examples=tuple(_examples(scored)) if errors else (),
            tokens=PASSES.tokens - tokens,
            padded=PASSES.padded - padded,
            repeated=int(weights.sum()) - scored.num_rows,
            seconds=seconds,
            server=usage.since(asked_before) if usage else {},
        )
        self._metrics.count(portion)
        return scored, portion

    def _adapt(self, count: int, seconds: float) -> None:
        """Keep portions at a few seconds: short enough for regular progress, long enough for good batches."""
        if self._batch_size is None and count == self._size:
            if seconds < _SHORT_S:
                self._size = min(self._size * (8 if seconds < _SHORT_S / 8 else 2), _LARGEST_PORTION)
            elif seconds > _LONG_S:
                self._size = max(self._size // 2, _FIRST_PORTION)

    def _tell(self, answer: Any) -> None:
        import ray

        if stop := ray.get(answer):
            raise DataError(stop)


@contextlib.contextmanager
def ending_if_it_hangs(patience_s: float) -> Iterator[None]:
    """End the process if the block takes longer, with a trace of its threads in its log.

    A watchdog thread without the interpreter does this: native code that hangs, such as on a GPU, may hold its lock.
    """
    faulthandler.dump_traceback_later(patience_s, exit=True, file=_STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def ending_if_the_gpu_fails() -> Iterator[None]:
    """End the process if the GPU's context is broken: Ray starts another actor, which scores the block again."""
    try:
        yield
    except DeviceError:
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)


def distinct_posts(table: pa.Table, beside: Sequence[str] = ()) -> tuple[pa.Table, NDArray[np.intp]]:
    """The rows that differ in text or in what is read beside it, and for each row of the table which of those it is."""
    places: dict[tuple[str | None, ...], int] = {}
    texts, problems = table["text"].to_pylist(), table["problem"].to_pylist()
    others = [[as_context(value) for value in table[name].to_pylist()] for name in beside]
    keys = zip(texts, problems, *others, strict=True)
    which = np.array([places.setdefault(key, len(places)) for key in keys], np.intp)
    _, firsts = np.unique(which, return_index=True)
    return (table if len(firsts) == table.num_rows else table.take(pa.array(firsts))), which


def _answers(table: pa.Table, answered: pa.Table) -> pa.Table:
    """The row numbers with their answers; `finish` joins ids, texts and carried columns to them."""
    given = [name for name in table.column_names if name in answered.column_names]
    return answered.drop_columns(given).add_column(0, table.schema.field(ROW), table[ROW])


def block_name(table: pa.Table) -> str:
    """The same at each attempt, since a block is always read with the same rows."""
    return f"rows {table[ROW][0]} to {table[ROW][-1]} ({table.num_rows})"


def error_code(error: str) -> str:
    return error.partition(":")[0]


def _setting_aside(table: pa.Table, first: int, instructions: Instructions) -> pa.Table:
    if not any(first + i in instructions.set_aside for i in range(table.num_rows)):
        return table
    why = f"{KILLED_WORKER}: {instructions.attempt} actors died while scoring this post or its neighbours"
    problems = [
        why if first + i in instructions.set_aside else problem
        for i, problem in enumerate(table["problem"].to_pylist())
    ]
    return table.set_column(table.schema.get_field_index("problem"), "problem", pa.array(problems, pa.string()))


def _examples(scored: pa.Table) -> Iterator[str]:
    failed = scored.filter(pc.is_valid(scored["error"])).slice(0, 3)
    for row in failed.select(["id", "text", "error"]).to_pylist():
        yield f"{row['id']} {(row['text'] or '')[:_SHOWN]!r}: {' '.join(row['error'].split())[:_SHOWN]}"

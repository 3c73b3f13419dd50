"""Error handling of batches in every engine: a bad row affects no other row, and a failed GPU gives no answers."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from emollm.core.answers import EMPTY_TEXT, SCORING_FAILED, Answer
from emollm.core.encoding import EncodedPrompt
from emollm.core.errors import DeviceError
from emollm.core.prompts import Question

_log = logging.getLogger(__name__)

A = TypeVar("A")
T = TypeVar("T")
Rows = Sequence[int]

_FULL = ("out of memory", "ALLOC_FAILED", "can't allocate memory", "not enough memory")
_BROKEN = ("CUDA error", "device-side assert", "CUBLAS_STATUS", "CUDNN_STATUS", "cuDNN error", "NCCL")


class TokenLimit:
    """Tokens per forward pass, padding included: the requested number, or fewer if that turns out not to fit.

    A size that did not fit is remembered: all later batches of the process are smaller.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def lower(self, tried: int) -> None:
        """A batch of `tried` tokens did not fit."""
        self.tokens = max(1, min(self.tokens, tried) // 2)
        _log.warning("a batch did not fit into memory; from now on at most %s tokens at once", self.tokens)


def run_safely(
    rows: Rows,
    run: Callable[[Rows], A],
    *,
    batches: Callable[[Rows], Iterator[Rows]] = lambda rows: iter([rows]),
    too_large: Callable[[Rows], None] = lambda _rows: None,
) -> Iterator[tuple[Rows, A | None, str]]:
    """Run every row once, in `batches`: (rows, what `run` gave, ""), or (one row, None, its error).

    A batch that does not fit into memory is reported to `too_large`, which makes later `batches` smaller. One that
    raises any other error is halved until the failing row is alone. Raises DeviceError if a GPU failed, since then
    every later call fails too.
    """
    left = deque(batches(rows))
    while left:
        batch = left.popleft()
        try:
            found = run(batch)
        except Exception as error:
            full, why = _is_full(error), error_text(error)
            if not full and _is_broken(error):
                raise DeviceError(f"the GPU failed ({why}); restart the process") from error
        else:
            yield batch, found, ""
            continue
        if len(batch) == 1:
            # Without the message: it may quote the text, and this log is also written by the endpoint.
            _log.warning("a row could not be scored: %s", why.partition(":")[0])
            yield batch, None, f"{SCORING_FAILED}: {why}"
            continue
        if full:
            _free_memory()
            too_large(batch)
            again = deque(batches([row for each in (batch, *left) for row in each]))
            if len(again[0]) < len(batch):
                left = again
                continue
        half = len(batch) // 2
        left.extendleft((batch[half:], batch[:half]))


def score_safely(
    questions: Sequence[Question],
    *,
    encode: Callable[[Sequence[Question]], Sequence[EncodedPrompt]],
    batches: Callable[[Sequence[Question], Sequence[EncodedPrompt]], Iterator[list[int]]],
    score: Callable[[Sequence[Question], Sequence[EncodedPrompt]], Sequence[Answer]],
    lower: Callable[[int], None],
) -> list[Answer]:
    """One answer per question, in order. A question without text, or one that fails by itself, gets an error.

    `lower` gets the tokens of a batch that did not fit, and makes later batches smaller.
    """
    answers = {n: Answer(value=None, error=EMPTY_TEXT) for n, q in enumerate(questions) if not q.text.strip()}
    prompts: dict[int, EncodedPrompt] = {}

    def keep(rows: Rows, found: Sequence[T] | None, why: str, kept: dict[int, T]) -> None:
        if found is None:
            answers[rows[0]] = Answer(value=None, error=why)
        else:
            kept.update(zip(rows, found, strict=True))

    def cut(rows: Rows) -> Iterator[list[int]]:
        for batch in batches([questions[n] for n in rows], [prompts[n] for n in rows]):
            yield [rows[i] for i in batch]

    with_text = [n for n in range(len(questions)) if n not in answers]
    for rows, encoded, why in run_safely(with_text, lambda rows: encode([questions[n] for n in rows])):
        keep(rows, encoded, why, prompts)
    scored = run_safely(
        list(prompts),
        lambda rows: score([questions[n] for n in rows], [prompts[n] for n in rows]),
        batches=cut,
        too_large=lambda rows: lower(sum(len(prompts[n]) for n in rows)),
    )
    for rows, found, why in scored:
        keep(rows, found, why, answers)
    return [answers[n] for n in range(len(questions))]


def error_text(error: Exception) -> str:
    """In one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _is_full(error: Exception) -> bool:
    return type(error).__name__ in ("OutOfMemoryError", "MemoryError") or any(mark in str(error) for mark in _FULL)


def _is_broken(error: Exception) -> bool:
    # Compared by name, since this module must not import torch.
    return type(error).__name__ == "AcceleratorError" or (
        isinstance(error, RuntimeError) and any(mark in str(error) for mark in _BROKEN)
    )


def _free_memory() -> None:
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()

"""Splits texts beyond the model's limit into overlapping windows of whole sentences.

A text that fits is one window and is scored as usual. Sentences of a longer one are packed into windows up to the
model's token limit; a window begins with the last sentences of the previous one, about a quarter of it. A sentence
that is longer than a window is split between words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from emollm.core.sentences import Span, sentences

_OVERLAP = 0.25
_MARGIN = 4
"""Tokens that joined sentences may have in addition to their sum."""
_SURELY_LONG = 20
"""Upper bound of characters per token: longer texts need not be tokenised completely."""

Count = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True, slots=True)
class Window:
    start: int
    stop: int
    tokens: int
    parts: tuple[Span, ...] = ()
    """Its sentences; none if it is a whole text that fits."""


@dataclass(slots=True)
class WindowedText:
    windows: list[Window]
    tokens: int
    """Tokens of the whole text: as scored if it fits, else summed over sentences."""
    tokens_cut: int = 0
    """Tokens after the last window, if the number of windows is limited."""


def cut_windows(texts: Sequence[str], count: Count, *, limit: int, most: int | None = None) -> list[WindowedText]:
    """The windows of each text, `most` at most; `limit` is in tokens."""
    maybe = [n for n, text in enumerate(texts) if len(text) <= limit * _SURELY_LONG]
    counted = dict(zip(maybe, count([texts[n] for n in maybe]), strict=True)) if maybe else {}
    found = []
    for n, text in enumerate(texts):
        tokens = counted.get(n)
        if tokens is not None and tokens <= limit:
            found.append(WindowedText([Window(0, len(text), tokens)], tokens))
        else:
            found.append(_windowed(text, count, max(limit - _MARGIN, 1), most))
    return found


def _windowed(text: str, count: Count, limit: int, most: int | None) -> WindowedText:
    spans = sentences(text)
    sizes = count([text[a:b] for a, b in spans]) if spans else []
    parts = [part for span, size in zip(spans, sizes, strict=True) for part in _short(text, span, size, count, limit)]
    windows = list(_packed(parts, limit))
    total = sum(size for _, size in parts)
    if most is None or len(windows) <= most:
        return WindowedText(windows or [Window(0, len(text), total)], total)
    kept = windows[:most]
    return WindowedText(kept, total, sum(size for span, size in parts if span[0] >= kept[-1].stop))


def _short(text: str, span: Span, size: int, count: Count, limit: int) -> Iterator[tuple[Span, int]]:
    """A sentence, or, if it is longer than a window, halves of it, split at a blank if there is one."""
    start, stop = span
    if size <= limit or stop - start < 2:
        yield span, size
        return
    middle = (start + stop) // 2
    cut = text.rfind(" ", start + 1, middle)
    cut = cut if cut > start + (stop - start) // 4 else middle
    halves = (start, cut), (cut + (text[cut] == " "), stop)
    for half, tokens in zip(halves, count([text[a:b] for a, b in halves]), strict=True):
        yield from _short(text, half, tokens, count, limit)


def _packed(parts: Sequence[tuple[Span, int]], limit: int) -> Iterator[Window]:
    first = 0
    while first < len(parts):
        stop, tokens = first, 0
        while stop < len(parts) and (stop == first or tokens + parts[stop][1] <= limit):
            tokens += parts[stop][1]
            stop += 1
        spans = tuple(span for span, _ in parts[first:stop])
        yield Window(spans[0][0], spans[-1][1], tokens, spans)
        if stop == len(parts):
            return
        # Step back over the last sentences, as long as the next window still ends after this one.
        again, shared = stop, 0
        while again - 1 > first and shared + parts[again - 1][1] <= limit * _OVERLAP:
            again -= 1
            shared += parts[again][1]
        if shared + parts[stop][1] > limit:
            again = stop
        first = again

"""Splits a text into sentences, by punctuation, blank lines and abbreviations, in any script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

LongTexts = Literal["cut", "windows", "sentences"]
"""How long texts are handled. cut: truncated at the model's limit. windows: read whole, in overlapping windows of
sentences. sentences: one row per sentence."""

Span = tuple[int, int]
"""Start and end in characters, without surrounding blanks."""

# The end of a sentence, with closing quotes and brackets, before a blank; CJK and Devanagari need no blank.
_END = re.compile(r"[.!?…؟۔]+[\"'”’»)\]]*(?=\s)|[。！？।]+[”’」』）]*|\n\s*\n|\n(?=\s*[-*•–—]\s)")
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|e\.g|i\.e|no|vol|fig|approx|dept|inc|ltd|co|gen|sen|rep|gov|capt|col|lt"
    r"|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|u\.s|u\.k|a\.m|p\.m)|\b(?-i:[A-HJ-Z]))\.$",
    re.IGNORECASE,
)
_LONGEST_ABBREVIATION = 8


def sentences(text: str) -> list[Span]:
    """The sentences of a text in order. Blank lines end a sentence; single line ends do not, as texts are wrapped."""
    return list(_spans(text))


def _spans(text: str) -> Iterator[Span]:
    start = 0
    for end in _END.finditer(text):
        if _goes_on(text, end):
            continue
        if span := _trimmed(text, start, end.end()):
            yield span
        start = end.end()
    if span := _trimmed(text, start, len(text)):
        yield span


def _goes_on(text: str, end: re.Match[str]) -> bool:
    """Whether a full stop ends an abbreviation, or a small letter follows an ellipsis."""
    if end.group() != ".":
        after = text[end.end() : end.end() + _LONGEST_ABBREVIATION].lstrip()
        return end.group() in ("...", "…") and after[:1].islower()
    before = text[max(0, end.start() - _LONGEST_ABBREVIATION) : end.start() + 1]
    return _ABBREVIATION.search(before) is not None


def _trimmed(text: str, start: int, stop: int) -> Span | None:
    piece = text[start:stop]
    if not piece.strip():
        return None
    begin = start + len(piece) - len(piece.lstrip())
    return begin, start + len(piece.rstrip())

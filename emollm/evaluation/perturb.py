"""Small changes of a post that should move no answer: a typo, emoji taken out, a name put for another.

Each is the same for the same text, whatever stands around it. A post that a change does not touch is left out of it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping

_WORD = re.compile(r"[^\W\d_]{4,}")
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2300-\u23ff\ufe0f\u200d]+|(?<!\\S)[:;=8xX]['^-]?[)(DPpoO/\\\\|*3]+(?!\\S)|<3"
)
_MENTION = re.compile(r"@\w+")
_NAMES = (
    *("Anna", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Henry", "Isabel", "Jack", "Kate", "Liam", "Maria"),
    *("Nina", "Oliver", "Paul", "Rosa", "Sam", "Tom", "Vera", "John", "James", "Michael", "Sarah", "Laura", "Alex"),
)
_NAME = re.compile(rf"\b({'|'.join(_NAMES)})\b")


def typo(text: str) -> str:
    """Two neighbouring letters inside one word of four letters or more, exchanged."""
    words = [m.span() for m in _WORD.finditer(text) if not text[: m.start()].endswith(("@", "#", "/"))]
    if not words:
        return text
    seed = zlib.crc32(text.encode("utf-8", "replace"))
    start, end = words[seed % len(words)]
    at = start + 1 + seed // len(words) % (end - start - 3 + 1)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def without_emoji(text: str) -> str:
    """Emoji and emoticons taken out, with the blank before them; a post of nothing else is left as it is."""
    left = re.sub(r"\s+", " ", _EMOJI.sub("", text)).strip()
    return left if left and _EMOJI.search(text) else text


def other_names(text: str) -> str:
    """Mentions become @someone, a first name that is known another one of the list."""
    named = _NAME.sub(lambda m: _NAMES[(_NAMES.index(m.group()) + 1) % len(_NAMES)], text)
    return _MENTION.sub("@someone", named)


CHANGES: Mapping[str, Callable[[str], str]] = {
    "typo": typo,
    "emoji removed": without_emoji,
    "name swapped": other_names,
}

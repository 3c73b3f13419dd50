"""A reply that is a JSON object: its values, and where in the text each of them stands."""

from __future__ import annotations

import json
from typing import Any

Places = dict[tuple[str, ...], tuple[int, int]]
"""First and past-the-end character of each value, by the path of the names that lead to it."""

_DECODER = json.JSONDecoder()


def parse_object(text: str) -> tuple[dict[str, Any], Places]:
    """The object, and where its values stand in the text by the path of their names. Raises ValueError.

    Prose or a code fence around the object is not part of it.
    """
    start = text.index("{")
    found, _ = _DECODER.raw_decode(text, start)
    places: Places = {}
    _locate(text, start, (), places)
    return found, places


def _locate(text: str, at: int, path: tuple[str, ...], places: Places) -> int:
    """Note the place of the value that begins at `at`, or those of an object's; a string's is inside its quotes.

    Returns where the value ends. The text is known to be JSON.
    """
    if text[at] != "{":
        _, end = _DECODER.raw_decode(text, at)
        quote = int(text[at] == '"')
        places[path] = (at + quote, end - quote)
        return end
    at = _behind_blanks(text, at + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        colon = _behind_blanks(text, at)
        at = _locate(text, _behind_blanks(text, colon + 1), (*path, name), places)
        at = _behind_blanks(text, at)
        if text[at] == ",":
            at = _behind_blanks(text, at + 1)
    return at + 1


def _behind_blanks(text: str, at: int) -> int:
    while text[at].isspace():
        at += 1
    return at

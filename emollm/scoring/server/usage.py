"""Requests, tokens and cost, estimated before and counted after."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

CHARACTERS_PER_TOKEN = 4
"""Characters per token of English with common tokenizers, for estimates."""
_PER_MESSAGE = 10
"""Tokens of a chat template per message."""


@dataclass(slots=True)
class Usage:
    """Sums of a scorer or of a run."""

    requests: int = 0
    """Sent, repeated ones included."""
    cached: int = 0
    """Requests answered from the cache."""
    retried: int = 0
    """Sent again after a failure."""
    repaired: int = 0
    """Sent once more because the reply was not a valid answer."""
    failed: int = 0
    """Given up."""
    prompt_tokens: int = 0
    """As counted by the server, like the next."""
    reply_tokens: int = 0
    cost: float = 0.0

    def since(self, before: Usage) -> dict[str, float]:
        return {f.name: getattr(self, f.name) - getattr(before, f.name) for f in fields(self)}


def estimate_tokens(texts: Iterable[str]) -> int:
    """Tokens of the texts of one request."""
    return sum(len(text) // CHARACTERS_PER_TOKEN + _PER_MESSAGE for text in texts)


def told(usage: dict[str, float]) -> str:
    """One line of text for the user."""
    parts = [f"{int(usage['requests']):,} requests"]
    parts += [
        f"{int(usage[name]):,} {words}"
        for name, words in (
            ("cached", "answers from the cache"),
            ("retried", "sent again after a failure"),
            ("repaired", "sent once more for a valid answer"),
            ("failed", "given up"),
        )
        if usage[name]
    ]
    parts.append(f"{int(usage['prompt_tokens']):,} prompt tokens and {int(usage['reply_tokens']):,} reply tokens")
    if usage["cost"]:
        parts.append(f"cost {usage['cost']:.2f}")
    return ", ".join(parts)

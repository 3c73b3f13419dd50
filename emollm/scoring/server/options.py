"""How an inference server is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from emollm.core.options import Config

_LONGEST_WAIT_S = 60.0
"""Of one pause before another try, whatever Retry-After says."""


class RequestOptions(Config):
    """Requests to the servers of --engine server."""

    api: Literal["auto", "chat", "completions"] = "auto"
    """Interface to ask. completions: prompts as a model directory of emollm was trained on them. chat: messages, for
    any other model. auto: completions if --model is a model directory, else chat."""
    in_flight: int = Field(32, ge=1)
    """Requests under way at a time per server, shared out over the scoring actors."""
    retries: int = Field(5, ge=0)
    """Times a request is made again after 429, 5xx, a timeout or garbage, with a growing pause or the one that
    Retry-After asks for."""
    timeout_s: float = Field(120.0, gt=0)
    """Seconds to wait for a reply."""
    patience_s: float = Field(300.0, ge=0)
    """Seconds to wait for a server that does not answer at all, until its questions become errors."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; if it is not set, no key is sent."""
    logprobs: int = Field(20, ge=0)
    """Alternatives per token to ask for, from which probabilities are computed. 0: answers only."""
    reuse: bool = True
    """Take answers from the cache, and keep new ones there."""
    cache: Path | None = None
    """Folder of the cache. None: emollm/replies in the user's cache folder ($XDG_CACHE_HOME, or ~/.cache)."""
    price_in: float = Field(0.0, ge=0)
    """Price of a million prompt tokens."""
    price_out: float = Field(0.0, ge=0)
    """Price of a million reply tokens."""
    max_cost: float | None = Field(None, ge=0)
    """Refuse to start if the estimated cost is above this, and stop asking when the cost has reached it. None: no
    limit."""

    @property
    def cache_folder(self) -> Path:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return self.cache or Path(root) / "emollm" / "replies"

    @property
    def key(self) -> str | None:
        """The key; it is read where it is sent, and is in no option, log or output."""
        return os.environ.get(self.key_variable) or None

    @property
    def longest_s(self) -> float:
        """Seconds that one question may take in all, pauses included."""
        return self.patience_s + (self.retries + 1) * (self.timeout_s + _LONGEST_WAIT_S)

    def cost(self, prompt_tokens: int, reply_tokens: int) -> float:
        return (prompt_tokens * self.price_in + reply_tokens * self.price_out) / 1e6

    def pause_s(self, attempt: int, asked_s: float | None, jitter: float) -> float:
        """Seconds before try `attempt` + 1; `jitter` in 0..1, so that those refused together come back apart."""
        wait_s = 0.5 * 2**attempt * (0.5 + jitter / 2) if asked_s is None else asked_s * (1 + jitter / 10)
        return min(wait_s, _LONGEST_WAIT_S)

"""Options of requests to inference servers."""

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
    """API to use. completions: the training prompts of a model directory of emollm. chat: messages, for any
    other model. auto: completions if --model is a model directory, else chat."""
    in_flight: int = Field(32, ge=1)
    """Concurrent requests per server, divided among the scoring actors."""
    retries: int = Field(5, ge=0)
    """Retries of a request after 429, 5xx, a timeout or garbage, with a growing pause or the one that
    Retry-After asks for."""
    timeout_s: float = Field(120.0, gt=0)
    """Seconds to wait for a reply."""
    patience_s: float = Field(300.0, ge=0)
    """Seconds to wait for a server that is down before its questions become errors."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the API key; if it is not set, no key is sent."""
    logprobs: int = Field(20, ge=0)
    """Alternatives per token to request, from which probabilities are computed. 0: answers only."""
    reuse: bool = True
    """Read answers from the cache, and store new ones there."""
    cache: Path | None = None
    """Folder of the cache. None: emollm/replies in the user's cache folder ($XDG_CACHE_HOME, or ~/.cache)."""
    price_in: float = Field(0.0, ge=0)
    """Price per million prompt tokens."""
    price_out: float = Field(0.0, ge=0)
    """Price per million reply tokens."""
    max_cost: float | None = Field(None, ge=0)
    """Refuse to start if the estimated cost is above this, and stop when the cost has reached it. None: no
    limit."""

    @property
    def cache_folder(self) -> Path:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return self.cache or Path(root) / "emollm" / "replies"

    @property
    def key(self) -> str | None:
        """The key; it is read when it is sent, and is never in an option, log or output."""
        return os.environ.get(self.key_variable) or None

    @property
    def longest_s(self) -> float:
        """Largest total time of one question in seconds, including pauses."""
        return self.patience_s + (self.retries + 1) * (self.timeout_s + _LONGEST_WAIT_S)

    def cost(self, prompt_tokens: int, reply_tokens: int) -> float:
        return (prompt_tokens * self.price_in + reply_tokens * self.price_out) / 1e6

    def pause_s(self, attempt: int, asked_s: float | None, jitter: float) -> float:
        """Seconds before try `attempt` + 1; `jitter` in 0..1 spreads the retries of simultaneous failures."""
        wait_s = 0.5 * 2**attempt * (0.5 + jitter / 2) if asked_s is None else asked_s * (1 + jitter / 10)
        return min(wait_s, _LONGEST_WAIT_S)

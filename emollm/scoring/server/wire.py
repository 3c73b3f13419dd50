"""The two OpenAI-compatible APIs of servers: the paths of requests, and the content of responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emollm.scoring.server.client import RequestError
from emollm.scoring.server.decisions import Token
from emollm.scoring.server.readout import Reply

PATHS = {"chat": "/chat/completions", "completions": "/completions"}


_ID = "token_id:"
"""Prefix of the number of a token that vLLM returns as an id."""


def read_response(api: str, data: dict[str, Any], piece: Callable[[int], str] | None = None) -> Reply:
    """The reply in a response; `piece` decodes a token. Raises RequestError if there is no reply."""
    try:
        choice = data["choices"][0]
        text = choice["message"]["content"] if api == "chat" else choice["text"]
        usage = data.get("usage") or {}
        prompt_tokens, reply_tokens = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise RequestError(f"not a completion: {str(data)[:80]!r}") from None
    if not isinstance(text, str):
        raise RequestError("an empty reply")
    try:
        tokens = _chat_tokens(choice) if api == "chat" else _completion_tokens(choice, piece)
    except (KeyError, TypeError, ValueError, AttributeError):
        tokens = None  # in a form of the server's own
    return Reply(text, tokens, prompt_tokens, reply_tokens)


def _chat_tokens(choice: dict[str, Any]) -> tuple[Token, ...] | None:
    content = (choice.get("logprobs") or {}).get("content")
    if not content:
        return None
    return tuple(
        Token(
            token["token"],
            float(token["logprob"]),
            tuple((other["token"], float(other["logprob"])) for other in token.get("top_logprobs") or ()),
        )
        for token in content
    )


def _completion_tokens(choice: dict[str, Any], piece: Callable[[int], str] | None) -> tuple[Token, ...] | None:
    def spelled(token: str) -> str:
        return piece(int(token.removeprefix(_ID))) if piece and token.startswith(_ID) else token

    told = choice.get("logprobs") or {}
    if not told.get("tokens"):
        return None
    tops = told.get("top_logprobs") or [{}] * len(told["tokens"])
    return tuple(
        Token(spelled(text), float(log_p), tuple((spelled(other), float(p)) for other, p in (top or {}).items()))
        for text, log_p, top in zip(told["tokens"], told["token_logprobs"], tops, strict=True)
    )

"""The two interfaces of OpenAI that servers copy: where requests go, and what their responses say."""

from __future__ import annotations

from typing import Any

from emollm.scoring.server.client import RequestError
from emollm.scoring.server.decisions import Token
from emollm.scoring.server.readout import Reply

PATHS = {"chat": "/chat/completions", "completions": "/completions"}


def read_response(api: str, data: dict[str, Any]) -> Reply:
    """The reply in a response. Raises RequestError if there is none."""
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
        tokens = _chat_tokens(choice) if api == "chat" else _completion_tokens(choice)
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


def _completion_tokens(choice: dict[str, Any]) -> tuple[Token, ...] | None:
    told = choice.get("logprobs") or {}
    if not told.get("tokens"):
        return None
    tops = told.get("top_logprobs") or [{}] * len(told["tokens"])
    return tuple(
        Token(text, float(log_p), tuple((other, float(p)) for other, p in (top or {}).items()))
        for text, log_p, top in zip(told["tokens"], told["token_logprobs"], tops, strict=True)
    )

"""Prompt pieces to token ids: the one place where training and scoring turn text into numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emollm.core.prompts import Layout, Pieces, lay_out

# SentencePiece tokenizers put a blank before the start of a text; encoded after an anchor, a piece gets the ids that
# it has in the middle of a text. A colon does not merge with a following blank, letter or digit.
_ANCHOR = ":"

CONTEXT_TOKENS = 256
"""Of a context, the last so many tokens are read: what is nearest to the post."""
TARGET_TOKENS = 32
"""Of a target, the first so many tokens are read."""
_ROOM_TO_ANSWER = 64
"""Tokens of the model's length that a context leaves free."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    prefix: list[int]
    """Ids that all posts of a task and template share."""
    post: list[int]
    """Ids of the post, with its context before it and its target behind it where it has them."""
    suffix: list[int]
    """Ids up to where the answer (or for an encoder, its end token included) begins."""
    truncated: bool
    """Whether the post was truncated at the limit."""
    context_cut: bool = False
    """Whether tokens of the context, the farthest from the post, were left out."""
    target_cut: bool = False
    """Whether the end of the target was left out."""
    num_before: int = 0
    """Tokens of `post` that belong to the context."""
    num_behind: int = 0
    """Tokens of `post` that belong to the target."""

    @property
    def ids(self) -> list[int]:
        return self.prefix + self.post + self.suffix

    def __len__(self) -> int:
        return len(self.prefix) + len(self.post) + len(self.suffix)


class PromptEncoder:
    """Encodes prompts and answers for one model."""

    def __init__(
        self, tokenizer: Any, layout: Layout, *, max_post_tokens: int, is_encoder_decoder: bool,
        max_tokens: int | None = None,
    ) -> None:  # fmt: skip
        """`max_tokens` is what the model can read at most, None where it has no limit: contexts are cut to fit."""
        self._tokenizer = tokenizer
        self._layout = layout
        self._max_post_tokens = max_post_tokens
        self._max_tokens = max_tokens
        self._is_encoder_decoder = is_encoder_decoder
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        if is_encoder_decoder:
            # An encoder gets the special tokens of its tokenizer: BART between <s> and </s>, T5 before </s>, BERT
            # between [CLS] and [SEP].
            bos = bos if bos is not None else tokenizer.cls_token_id
            eos = eos if eos is not None else tokenizer.sep_token_id
        begins = bos is not None and (layout.bos or is_encoder_decoder)
        self._begin: list[int] = [bos] if begins else []
        self._end: list[int] = [eos] if is_encoder_decoder else []
        self._eos: int = eos
        self._anchor: list[int] = self._ids([_ANCHOR])[0]
        self._cache: dict[tuple[str, bool], list[int]] = {}
        self._pieces: dict[int, str] = {}
        self._surroundings: dict[tuple[str, str], tuple[list[int], list[int]]] = {}

    def prompt(self, pieces: Pieces) -> EncodedPrompt:
        """Ids of the whole prompt, in three parts."""
        return self.prompts([pieces])[0]

    def prompts(self, pieces: Sequence[Pieces]) -> list[EncodedPrompt]:
        """The prompts of many posts, tokenised in one call, equal ones once."""
        laid_out = [lay_out(each, self._layout) for each in pieces]
        texts = list(dict.fromkeys(text for each in laid_out for text in (each.post, each.context, each.target)))
        ids = dict(zip(texts, self._encode(texts), strict=True))
        return [self._prompt(each, ids) for each in laid_out]

    def _prompt(self, pieces: Pieces, ids: dict[str, list[int]]) -> EncodedPrompt:
        whole, most = ids[pieces.post], self._max_post_tokens
        prefix, suffix = self._around(pieces.prefix, pieces.suffix)
        post, truncated = whole[:most], len(whole) > most
        if not (pieces.context or pieces.target):
            return EncodedPrompt(prefix, post, suffix, truncated=truncated)
        target = ids[pieces.target]
        behind = [*self._fixed(pieces.lead), *target[:TARGET_TOKENS]] if pieces.target else []
        before, context = [], ids[pieces.context] if pieces.context else []
        bridge = self._fixed(pieces.bridge) if context else []
        taken = len(prefix) + len(bridge) + len(post) + len(behind) + len(suffix)
        room = CONTEXT_TOKENS
        if self._max_tokens is not None:
            room = min(room, max(0, self._max_tokens - _ROOM_TO_ANSWER - taken))
        before = [*context[max(0, len(context) - room) :], *bridge]
        return EncodedPrompt(
            prefix,
            [*before, *post, *behind],
            suffix,
            truncated=truncated,
            context_cut=len(context) > room,
            target_cut=len(target) > TARGET_TOKENS,
            num_before=len(before),
            num_behind=len(behind),
        )

    def count(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text as a post, without truncation."""
        return [len(ids) for ids in self._encode([f" {text}" for text in texts])]

    def _around(self, prefix: str, suffix: str) -> tuple[list[int], list[int]]:
        """Returns the same lists each time, so that equal prefixes can be recognised by identity."""
        if (prefix, suffix) not in self._surroundings:
            before = self._begin + self._fixed(prefix, first=True)
            self._surroundings[prefix, suffix] = before, self._fixed(suffix) + self._end
        return self._surroundings[prefix, suffix]

    def answer(self, text: str) -> list[int]:
        """Ids of an answer, followed by the end token.

        After a prompt it continues a text; in a decoder of its own it is a text, with the begin token that BART's
        tokenizer gives to every text.
        """
        if self._is_encoder_decoder:
            return [*self._begin, *self._fixed(text, first=True), self._eos]
        return [*self._fixed(text), self._eos]

    def decode(self, ids: list[int]) -> str:
        """The text of generated ids, up to the end token."""
        if self._eos in ids:
            ids = ids[: ids.index(self._eos)]
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def piece(self, token: int) -> str:
        """The text that a token adds in the middle of a text; empty for the end token.

        Decoded alone, a SentencePiece token would lose the blank that it begins with.
        """
        if token == self._eos:
            return ""
        if token not in self._pieces:
            before, both = (self._tokenizer.decode(ids) for ids in (self._anchor, [*self._anchor, token]))
            self._pieces[token] = str(both[len(before) :])
        return self._pieces[token]

    def _fixed(self, text: str, *, first: bool = False) -> list[int]:
        key = (text, first)
        if key not in self._cache:
            [self._cache[key]] = self._ids([text]) if first else self._encode([text])
        return self._cache[key]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids that texts have in the middle of a text."""
        # A lone surrogate, as broken scrapers leave it, cannot be encoded: it becomes "?".
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        behind, found = len(self._anchor), []
        for text, ids in zip(clean, self._ids([_ANCHOR + text for text in clean]), strict=True):
            found.append(ids[behind:] if ids[:behind] == self._anchor else self._ids([text])[0])
        return found

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        # split_special_tokens: "<|im_end|>" or "</s>" in a post is text, never the token that ends a prompt.
        encoded = self._tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # a text beyond the model's own limit is cut by us, and is no news
        )  # fmt: skip
        found: list[list[int]] = encoded["input_ids"]
        return found

"""FeatureSpec with a decoder-only model: every post is one tree of tokens.

    prefix ── post ─┬─ suffix (anger) ─┬─ "0" ─ ":" ...
                    │                  └─ "1" ─ ":" ...
                    └─ suffix (joy) ─── ...

All tokens of a tree lie side by side in one row of the model's key-value cache; a mask lets each see its ancestors
only, and its position is its depth. So a prefix is computed once for all posts, a post once for all its questions,
and an answer's shared tokens once for all answers.

Shapes: B rows, T new tokens of the longest row, K tokens in the cache and new, H heads, D head size.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import DynamicCache

from emollm.core.encoding import EncodedPrompt
from emollm.core.errors import ModelError
from emollm.models.batching import with_least_padding
from emollm.scoring.constrained.reader import Read, Request, wanted_log_ps
from emollm.scoring.constrained.treecache import KeyValues, TreeCache

_MAX_PREFIXES = 64
_ROOM = 24
"""Places for answers in a row from the start: what most rows need, so that few grow."""
_HEAD_POSITIONS = 128
"""Positions that go through the vocabulary head at once: 25 MB of logits with 50,000 tokens. With 100 MB, which come
fresh from the system every time, the softmax took four times as long."""


class _Place(NamedTuple):
    row: int
    at: int


@dataclass(slots=True)
class _Append:
    """Tokens to append to a row whose next free place is `base`."""

    row: int
    base: int
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    """Their places: in the row, or from `base` on among these tokens."""
    wanted: dict[int, list[int]] = field(default_factory=dict)
    """Ids asked for, by place."""
    num_kept: int = 0
    """The first so many are stored."""

    def chain(self, tokens: Sequence[int], parent: int) -> list[int]:
        """Append tokens one after the other; return their places."""
        places = []
        for token in tokens:
            self.parents.append(parent)
            self.tokens.append(token)
            parent = self.base + len(self.tokens) - 1
            places.append(parent)
        return places


class CausalReader:
    """Works with any decoder that takes position ids (LLaMA, OPT, ...), and with BLOOM."""

    def __init__(self, model: Any, *, device: str, batch_tokens: int) -> None:
        self._decoder = model.get_decoder()
        self._head = model.get_output_embeddings()
        self._dtype = next(model.parameters()).dtype
        self._device = device
        self._batch_tokens = batch_tokens
        self._takes_positions = "position_ids" in inspect.signature(self._decoder.forward).parameters
        if not self._takes_positions and not hasattr(self._decoder, "build_alibi_tensor"):
            name = type(model).__name__
            raise ModelError(f"{name} takes no position ids, so it cannot be scored over a trie; use --engine generate")
        self._prefixes: dict[tuple[int, ...], KeyValues] = {}
        self._trees: TreeCache

    @torch.inference_mode()
    def open(self, prompts: Sequence[EncodedPrompt], wanted: Sequence[list[int]]) -> list[Read]:
        # Questions of one post and task share a row; equal suffixes share a branch.
        rows: dict[tuple[tuple[int, ...], tuple[int, ...]], dict[tuple[int, ...], list[int]]] = {}
        for number, prompt in enumerate(prompts):
            branches = rows.setdefault((tuple(prompt.prefix), tuple(prompt.post)), {})
            branches.setdefault(tuple(prompt.suffix), []).append(number)
        appends, ends = [], {}
        for row, ((prefix, post), branches) in enumerate(rows.items()):
            append = _Append(row, base=len(prefix))
            tip = [len(prefix) - 1, *append.chain(post, len(prefix) - 1)][-1]
            for suffix, numbers in branches.items():
                end = append.chain(suffix, tip)[-1]
                append.wanted[end] = sorted({i for n in numbers for i in wanted[n]})
                ends.update({n: _Place(row, end) for n in numbers})
            append.num_kept = len(append.tokens)
            appends.append(append)
        prefixes = [prefix for prefix, _ in rows]
        computed = {prefix: self._prefix(prefix) for prefix in dict.fromkeys(prefixes)}
        self._trees = TreeCache(prefixes, computed, room=max(append.num_kept for append in appends) + _ROOM)
        log_ps = self._forward(appends)
        return [Read(ends[n], [log_ps[ends[n]][i] for i in ids]) for n, ids in enumerate(wanted)]

    @torch.inference_mode()
    def read(self, requests: Sequence[Request]) -> list[list[Read]]:
        appends: dict[int, _Append] = {}
        places: dict[int, list[_Place]] = {}
        # What is kept comes first in its row, so that its places stay true when the rest is dropped.
        for number in sorted(range(len(requests)), key=lambda n: not requests[n].keep):
            request, row = requests[number], requests[number].parent.row
            append = appends.setdefault(row, _Append(row, base=self._trees.used[row]))
            chain = append.chain(request.tokens, request.parent.at)
            append.wanted.update(zip(chain, request.wanted, strict=True))
            if request.keep:
                append.num_kept = len(append.tokens)
            places[number] = [_Place(row, place) for place in chain]
        log_ps = self._forward(list(appends.values()))
        return [
            [Read(place, [log_ps[place][i] for i in ids]) for place, ids in zip(places[n], request.wanted, strict=True)]
            for n, request in enumerate(requests)
        ]

    def _prefix(self, prefix: tuple[int, ...]) -> KeyValues:
        if prefix not in self._prefixes:
            if len(self._prefixes) >= _MAX_PREFIXES:
                self._prefixes.pop(next(iter(self._prefixes)))
            ids = torch.tensor([prefix], device=self._device)
            cache = DynamicCache()
            self._decoder(input_ids=ids, past_key_values=cache, use_cache=True)
            self._prefixes[prefix] = [(layer.keys, layer.values) for layer in cache.layers]
        return self._prefixes[prefix]

    def _forward(self, appends: Sequence[_Append]) -> dict[_Place, dict[int, float]]:
        """Run all appends, like lengths together; returns the wanted log-probabilities by place."""
        log_ps: dict[_Place, dict[int, float]] = {}
        for batch in with_least_padding([len(append.tokens) for append in appends], batch_tokens=self._batch_tokens):
            log_ps.update(self._forward_batch([appends[i] for i in batch]))
        return log_ps

    def _forward_batch(self, appends: Sequence[_Append]) -> dict[_Place, dict[int, float]]:
        rows = [append.row for append in appends]
        past = max(append.base for append in appends)
        longest = max(len(append.tokens) for append in appends)
        ids_BT = np.zeros((len(rows), longest), dtype=np.int64)
        depth_BT = np.zeros((len(rows), longest), dtype=np.int64)
        seen_BTK = np.zeros((len(rows), longest, past + longest), dtype=bool)
        # Each sees itself; padding sees nothing else, and nothing sees it.
        seen_BTK[:, np.arange(longest), past + np.arange(longest)] = True
        for b, append in enumerate(appends):
            ids_BT[b, : len(append.tokens)] = append.tokens
            old_seen_KK, old_depth_K = self._trees.seen_BKK[append.row], self._trees.depth_BK[append.row]
            for t, parent in enumerate(append.parents):
                if parent < append.base:
                    seen_BTK[b, t, : append.base] |= old_seen_KK[parent, : append.base]
                    depth_BT[b, t] = old_depth_K[parent] + 1
                else:
                    seen_BTK[b, t] |= seen_BTK[b, parent - append.base]
                    depth_BT[b, t] = depth_BT[b, parent - append.base] + 1
        past_depth_BK = self._trees.depth_BK[rows, :past]
        cache = self._trees.past(rows)
        hidden_BTD = self._decode(ids_BT, depth_BT, seen_BTK, past_depth_BK, cache)
        self._trees.store(cache, rows, [append.num_kept for append in appends], depth_BT, seen_BTK)

        wanted = {
            (b, place - append.base): ids for b, append in enumerate(appends) for place, ids in append.wanted.items()
        }
        log_ps: list[list[float]] = []
        for start in range(0, len(wanted), _HEAD_POSITIONS):
            part = list(wanted)[start : start + _HEAD_POSITIONS]
            hidden_ND = hidden_BTD[[b for b, _ in part], [t for _, t in part]]
            log_ps += wanted_log_ps(self._head(hidden_ND), [wanted[key] for key in part])
        return {
            _Place(appends[b].row, appends[b].base + t): dict(zip(ids, values, strict=True))
            for ((b, t), ids), values in zip(wanted.items(), log_ps, strict=True)
        }

    def _decode(
        self, ids_BT: np.ndarray, depth_BT: np.ndarray, seen_BTK: np.ndarray, past_depth_BK: np.ndarray, cache: Any
    ) -> torch.Tensor:
        seen_B1TK = torch.from_numpy(seen_BTK).to(self._device)[:, None]
        # Additive, not boolean: BLOOM adds it to its scores.
        mask_B1TK = torch.zeros(seen_B1TK.shape, dtype=self._dtype, device=self._device)
        mask_B1TK.masked_fill_(~seen_B1TK, torch.finfo(self._dtype).min)
        inputs = {"input_ids": torch.from_numpy(ids_BT).to(self._device), "attention_mask": mask_B1TK}
        if self._takes_positions:
            inputs["position_ids"] = torch.from_numpy(depth_BT).to(self._device)
        positions_BK = torch.from_numpy(np.concatenate([past_depth_BK, depth_BT], axis=1)).to(self._device)
        with _key_positions(self._decoder, positions_BK):
            out = self._decoder(**inputs, past_key_values=cache, use_cache=True)
        hidden_BTD: torch.Tensor = out.last_hidden_state
        return hidden_BTD


@contextlib.contextmanager
def _key_positions(decoder: Any, positions_BK: torch.Tensor) -> Iterator[None]:
    """BLOOM takes no position ids but counts them off a two-dimensional mask; here it is told the keys' positions.

    Its bias depends on the key alone: softmax does not see a shift that all keys of a query share.
    """
    if not hasattr(decoder, "build_alibi_tensor"):
        yield
        return
    original = decoder.build_alibi_tensor

    def with_our_positions(_mask: Any, num_heads: int, dtype: torch.dtype) -> torch.Tensor:
        two_tokens = torch.ones((1, 2), device=positions_BK.device)
        slopes_H: torch.Tensor = original(two_tokens, num_heads, torch.float32)[:, 0, 1]
        alibi_BHK = slopes_H[None, :, None] * positions_BK[:, None, :]
        return alibi_BHK.reshape(-1, 1, positions_BK.shape[1]).to(dtype)

    decoder.build_alibi_tensor = with_our_positions
    try:
        yield
    finally:
        del decoder.build_alibi_tensor

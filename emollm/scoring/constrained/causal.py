"""Reads with a decoder-only model: every post is one tree of tokens.

    prefix ── post ─┬─ suffix (anger) ─┬─ "0" ─ ":" ...
                    │                  └─ "1" ─ ":" ...
                    └─ suffix (joy) ─── ...

All tokens of a tree are in one row of the model's key-value cache; a mask lets each attend to its ancestors only,
and its position is its depth. So a prefix is computed once for all posts, a post once for all its questions,
and an answer's shared tokens once for all answers.

Shapes: B rows, T new tokens of the longest row, K cached and new tokens, H heads, D head size.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import DynamicCache

from emollm.core.encoding import EncodedPrompt
from emollm.core.errors import ModelError
from emollm.models.batching import with_least_padding
from emollm.models.device import pass_tokens
from emollm.scoring.arrays import Floats
from emollm.scoring.constrained.log_ps import on_host, wanted_log_ps
from emollm.scoring.constrained.ragged import Bools, Ints, lists_of, ranges, within
from emollm.scoring.constrained.reader import Chains, Reads
from emollm.scoring.constrained.treecache import Kept, KeyValues, TreeCache, alike, stacked
from emollm.scoring.safely import TokenLimit

_MAX_PREFIXES = 64
_ROOM = 24
"""Initial cache positions for answers per row: enough for most rows, so that few must grow."""
_HEAD_BYTES = {"cpu": 25 << 20, "cuda": 1 << 30}
"""Float32 logits computed at once. On a CPU, 100 MB are allocated from the system every time: the softmax took four
times as long as with 25 MB."""


class _Append(NamedTuple):
    """T tokens to append to rows of the cache, in C chains: runs of tokens each of which sees the one before."""

    row_C: Ints
    anchor_C: Ints
    """The place in the row after which a chain comes."""
    is_trunk_C: Bools
    """Whether the other new chains of its row come after it, too."""
    above_C: Ints
    """The number of tokens of the trunk that a chain comes after."""
    is_kept_C: Bools
    """Whether it stays in the cache."""
    chain_T: Ints
    within_T: Ints
    """The number of a token in its chain, from 0."""
    ids_T: Ints
    num_wanted_T: Ints
    """The number of ids whose probabilities after a token are requested."""
    first_wanted_T: Ints
    """Where these begin in `wanted`."""
    wanted: Ints


class CausalReader:
    """Works with any decoder that takes position ids (LLaMA, OPT, ...), and with BLOOM."""

    def __init__(self, model: Any, *, device: str, limit: TokenLimit) -> None:
        self._decoder = model.get_decoder()
        self._head = model.get_output_embeddings()
        self._dtype = next(model.parameters()).dtype
        self._device = device
        self._seen, self._unseen = torch.tensor([0.0, torch.finfo(self._dtype).min], dtype=self._dtype, device=device)
        self._limit = limit
        kind = torch.device(device).type
        self._head_positions = max(1, _HEAD_BYTES[kind] // (4 * model.config.get_text_config().vocab_size))
        self._pass_tokens = pass_tokens(model, device)
        self._takes_positions = "position_ids" in inspect.signature(self._decoder.forward).parameters
        if not self._takes_positions and not hasattr(self._decoder, "build_alibi_tensor"):
            name = type(model).__name__
            raise ModelError(f"{name} takes no position ids, so it cannot be scored over a trie; use --engine generate")
        self._prefixes: dict[tuple[int, ...], KeyValues] = {}
        self._alike: list[list[int]] = []
        self._trees: TreeCache

    @torch.inference_mode()
    def open(self, prompts: Sequence[EncodedPrompt], num_after_C: Ints, after_A: Ints) -> Reads:
        # Questions of one post and task share a row: its prefix, its trunk, which is the post, and their suffixes.
        rows: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        row_C = np.array([rows.setdefault((tuple(p.prefix), tuple(p.post)), len(rows)) for p in prompts])
        prefixes = [prefix for prefix, _ in rows]
        computed = {prefix: self._prefix(prefix) for prefix in dict.fromkeys(prefixes)}
        append = _of_prompts([post for _, post in rows], [prompt.suffix for prompt in prompts], row_C)
        room = int(np.bincount(append.row_C[append.chain_T]).max()) + _ROOM
        self._trees = TreeCache(prefixes, computed, room=room)
        last_C = np.bincount(append.chain_T).cumsum()[len(rows) :] - 1
        append.num_wanted_T[last_C], append.first_wanted_T[last_C] = num_after_C, num_after_C.cumsum() - num_after_C
        append = append._replace(anchor_C=self._trees.used_B[append.row_C] - 1, wanted=after_A)
        log_ps, place_T = self._forward(append)
        return Reads(np.stack([row_C, place_T[last_C]], axis=1), log_ps)

    @torch.inference_mode()
    def read(self, chains: Chains) -> Reads:
        row_C, anchor_C = chains.slot_CP.T
        last_C = chains.length_C.cumsum() - 1
        chain_T, within_T = lists_of(chains.length_C), within(chains.length_C)
        _, is_inner_N = chains.split()
        wanted = np.empty(len(is_inner_N), int)
        wanted[is_inner_N], wanted[~is_inner_N] = chains.tokens_T[within_T > 0], chains.after_A
        num_wanted_T = np.ones_like(chain_T)
        num_wanted_T[last_C] = chains.num_after_C
        nothing_C = np.zeros_like(row_C)
        log_ps, place_T = self._forward(
            _Append(
                row_C, anchor_C, nothing_C > 0, nothing_C, chains.is_read_on_C, chain_T, within_T, chains.tokens_T,
                num_wanted_T, num_wanted_T.cumsum() - num_wanted_T, wanted,
            )
        )  # fmt: skip
        return Reads(np.stack([row_C, place_T[last_C]], axis=1), log_ps)

    def _prefix(self, prefix: tuple[int, ...]) -> KeyValues:
        if prefix not in self._prefixes:
            if len(self._prefixes) >= _MAX_PREFIXES:
                self._prefixes.pop(next(iter(self._prefixes)))
            ids = torch.tensor([prefix], device=self._device)
            cache = DynamicCache()
            self._decoder(input_ids=ids, past_key_values=cache, use_cache=True)
            self._prefixes[prefix] = stacked(cache)
            self._alike = alike([(layer.keys.shape[1], layer.keys.shape[3]) for layer in cache.layers])
        return self._prefixes[prefix]

    def _forward(self, append: _Append) -> tuple[Floats, Ints]:
        """The log-probabilities of `append.wanted`, and the places of the tokens in their rows."""
        row_T, used_B = append.row_C[append.chain_T], self._trees.used_B
        # Kept tokens come first in their row, so that their places hold when the rest is dropped.
        order_T = np.lexsort((~append.is_kept_C[append.chain_T], row_T))
        row_B, first_B, count_B = np.unique(row_T[order_T], return_index=True, return_counts=True)
        place_T = np.empty_like(row_T)
        place_T[order_T] = used_B[row_T[order_T]] + within(count_B)
        read: list[Ints] = []
        flat: list[torch.Tensor] = []
        for batch in with_least_padding(
            count_B.tolist(), batch_tokens=self._limit.tokens, pass_tokens=self._pass_tokens
        ):
            read.append(order_T[ranges(first_B[batch], count_B[batch])])
            flat += self._forward_batch(append, row_B[batch], count_B[batch], read[-1])
        read_T = np.concatenate(read)
        log_ps = np.empty(len(append.wanted))
        # One synchronisation with the device, after all batches.
        found = on_host(torch.cat(flat))
        log_ps[ranges(append.first_wanted_T[read_T], append.num_wanted_T[read_T])] = found
        return log_ps, place_T

    def _forward_batch(self, append: _Append, row_B: Ints, count_B: Ints, token_N: Ints) -> list[torch.Tensor]:
        """Read tokens, so many in each of some rows; the log-probabilities of what is wanted, on the device."""
        trees, here_N, new_N = self._trees, lists_of(count_B), within(count_B)
        past, longest = int(trees.used_B[row_B].max()), int(count_B.max())
        chain_N, within_N = append.chain_T[token_N], append.within_T[token_N]
        row_N, anchor_N, above_N = row_B[here_N], append.anchor_C[chain_N], append.above_C[chain_N]
        depth_N = trees.depth(row_N, anchor_N) + above_N + within_N + 1
        ids_BT, depth_BT = np.zeros((2, len(row_B), longest), np.int64)
        ids_BT[here_N, new_N], depth_BT[here_N, new_N] = append.ids_T[token_N], depth_N
        seen_BTK = np.zeros((len(row_B), longest, past + longest), bool)
        seen_BTK[:, :, past:] = _seen_new(append, here_N, new_N, chain_N, seen_BTK.shape[:2])
        is_first_N = within_N == 0
        seen_CK = trees.seen(row_N[is_first_N], anchor_N[is_first_N], past)
        seen_BTK[here_N, new_N, :past] = seen_CK[is_first_N.cumsum() - 1]
        cache, past_depth_BK = trees.past(row_B, self._alike, new=longest), trees.depths(row_B, past)
        hidden_BTD = self._decode(ids_BT, depth_BT, seen_BTK, past_depth_BK, cache)
        # From now on the trunk is in the cache, too.
        anchor_N = np.where(above_N > 0, trees.used_B[row_N] + above_N - 1, anchor_N)
        kept = append.is_kept_C[chain_N]
        trees.store(cache, row_B, Kept(*(of_N[kept] for of_N in (here_N, new_N, within_N, anchor_N, depth_N))))
        return self._wanted(hidden_BTD, here_N, new_N, append, token_N)

    def _wanted(
        self, hidden_BTD: torch.Tensor, here_N: Ints, new_N: Ints, append: _Append, token_N: Ints
    ) -> list[torch.Tensor]:
        asked = np.flatnonzero(append.num_wanted_T[token_N])
        count = append.num_wanted_T[token_N[asked]]
        ids = append.wanted[ranges(append.first_wanted_T[token_N[asked]], count)]
        ends = [0, *count.cumsum().tolist()]
        here, new = torch.from_numpy(np.stack([here_N[asked], new_N[asked]])).to(self._device)
        hidden_ND = hidden_BTD[here, new]
        found = []
        for start in range(0, len(asked), self._head_positions):
            end = min(start + self._head_positions, len(asked))
            logits_NV = self._head(hidden_ND[start:end])
            found.append(wanted_log_ps(logits_NV, count[start:end], ids[ends[start] : ends[end]]))
        return found

    def _decode(
        self, ids_BT: np.ndarray, depth_BT: np.ndarray, seen_BTK: np.ndarray, past_depth_BK: np.ndarray, cache: Any
    ) -> torch.Tensor:
        seen_B1TK = torch.from_numpy(seen_BTK).to(self._device)[:, None]
        # An additive mask, not a boolean one: BLOOM adds it to its attention scores.
        mask_B1TK = torch.where(seen_B1TK, self._seen, self._unseen)
        inputs = {"input_ids": torch.from_numpy(ids_BT).to(self._device), "attention_mask": mask_B1TK}
        if self._takes_positions:
            inputs["position_ids"] = torch.from_numpy(depth_BT).to(self._device)
        positions_BK = torch.from_numpy(np.concatenate([past_depth_BK, depth_BT], axis=1)).to(self._device)
        with _key_positions(self._decoder, positions_BK):
            out = self._decoder(**inputs, past_key_values=cache, use_cache=True)
        hidden_BTD: torch.Tensor = out.last_hidden_state
        return hidden_BTD


def _of_prompts(posts: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]], row_C: Ints) -> _Append:
    """The posts, a row each, and suffixes of questions about them; anchors and what is wanted are left open."""
    length_C = np.array([len(ids) for ids in (*posts, *suffixes)])
    is_trunk_C = np.arange(len(length_C)) < len(posts)
    row_C = np.concatenate([np.arange(len(posts)), row_C])
    ids_T = np.fromiter(chain.from_iterable((*posts, *suffixes)), int, length_C.sum())
    return _Append(
        row_C, np.zeros_like(row_C), is_trunk_C, np.where(is_trunk_C, 0, length_C[row_C]), np.ones_like(is_trunk_C),
        lists_of(length_C), within(length_C), ids_T, np.zeros_like(ids_T), np.zeros_like(ids_T), ids_T[:0],
    )  # fmt: skip


def _seen_new(append: _Append, here_N: Ints, new_N: Ints, chain_N: Ints, shape: tuple[int, int]) -> Bools:
    """[B, T, T] which new tokens each sees: those of its own chain up to itself, and the trunk.

    Padding sees itself alone, and no token sees it.
    """
    chain_BT, is_trunk_BT = np.full(shape, -1), np.zeros(shape, dtype=bool)
    chain_BT[here_N, new_N], is_trunk_BT[here_N, new_N] = chain_N, append.is_trunk_C[chain_N]
    seen_BTT: Bools = (chain_BT[:, :, None] == chain_BT[:, None, :]) | is_trunk_BT[:, None, :]
    seen_BTT &= np.tri(shape[1], dtype=bool) & (chain_BT >= 0)[:, :, None]
    seen_BTT[:, np.arange(shape[1]), np.arange(shape[1])] = True
    return seen_BTT


@contextlib.contextmanager
def _key_positions(decoder: Any, positions_BK: torch.Tensor) -> Iterator[None]:
    """BLOOM takes no position ids but derives them from a two-dimensional mask; here it gets the keys' positions.

    Its bias depends only on the key, since softmax is invariant to a shift of all keys of a query.
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

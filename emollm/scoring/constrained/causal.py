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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from emollm.core.encoding import EncodedPrompt
from emollm.core.errors import ModelError
from emollm.models.batching import with_least_padding
from emollm.models.device import pass_tokens
from emollm.scoring.constrained.reader import Read, Request, split_like, wanted_log_ps
from emollm.scoring.constrained.treecache import KeyValues, TreeCache, alike, stacked
from emollm.scoring.safely import TokenLimit

_MAX_PREFIXES = 64
_ROOM = 24
"""Initial cache positions for answers per row: enough for most rows, so that few must grow."""
_HEAD_BYTES = {"cpu": 25 << 20, "cuda": 1 << 30}
"""Float32 logits computed at once. On a CPU, 100 MB are allocated from the system every time: the softmax took four
times as long as with 25 MB."""
_TRUNK = 0
"""The chain that all other new tokens of its row attend to."""


class _Place(NamedTuple):
    row: int
    at: int


@dataclass(slots=True)
class _Append:
    """Tokens to append to a row whose next free position is `base`, in chains of consecutive tokens."""

    row: int
    base: int
    tokens: list[int] = field(default_factory=list)
    anchors: list[int] = field(default_factory=list)
    """For each token, the position in the row to which its chain is attached, apart from the trunk of new tokens."""
    depths: list[int] = field(default_factory=list)
    """The distance of a token from its anchor, from 1."""
    chains: list[int] = field(default_factory=list)
    """The chain of each token."""
    wanted_at: list[int] = field(default_factory=list)
    """Tokens after which probabilities of ids are requested, counted from 0."""
    wanted: list[list[int]] = field(default_factory=list)
    """The requested ids for each of these tokens."""
    num_kept: int = 0
    """Number of tokens, from the first, that are kept in the cache."""

    def chain(self, tokens: Sequence[int], anchor: int, *, number: int, above: int = 0) -> int:
        """Append consecutive tokens, with `above` tokens of the trunk before them; returns the number of the first."""
        first, count = len(self.tokens), len(tokens)
        self.tokens += tokens
        self.anchors += [anchor] * count
        self.depths += range(above + 1, above + count + 1)
        self.chains += [number] * count
        return first


class CausalReader:
    """Works with any decoder that takes position ids (LLaMA, OPT, ...), and with BLOOM."""

    def __init__(self, model: Any, *, device: str, limit: TokenLimit) -> None:
        self._decoder = model.get_decoder()
        self._head = model.get_output_embeddings()
        self._dtype = next(model.parameters()).dtype
        self._device = device
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
    def open(self, prompts: Sequence[EncodedPrompt], wanted: Sequence[list[int]]) -> list[Read]:
        # Questions of one post and task share a row; equal suffixes share a branch.
        rows: dict[tuple[tuple[int, ...], tuple[int, ...]], dict[tuple[int, ...], list[int]]] = {}
        for number, prompt in enumerate(prompts):
            branches = rows.setdefault((tuple(prompt.prefix), tuple(prompt.post)), {})
            branches.setdefault(tuple(prompt.suffix), []).append(number)
        appends, asked = [], []
        for row, ((prefix, post), branches) in enumerate(rows.items()):
            append, anchor = _Append(row, base=len(prefix)), len(prefix) - 1
            append.chain(post, anchor, number=_TRUNK)
            for branch, (suffix, numbers) in enumerate(branches.items(), start=_TRUNK + 1):
                append.chain(suffix, anchor, number=branch, above=len(post))
                append.wanted_at.append(len(append.tokens) - 1)
                append.wanted.append(sorted({i for n in numbers for i in wanted[n]}))
                asked.append((row, len(append.wanted) - 1, numbers))
            append.num_kept = len(append.tokens)
            appends.append(append)
        prefixes = [prefix for prefix, _ in rows]
        computed = {prefix: self._prefix(prefix) for prefix in dict.fromkeys(prefixes)}
        self._trees = TreeCache(prefixes, computed, room=max(append.num_kept for append in appends) + _ROOM)
        log_ps, starts = self._forward(appends)
        reads: dict[int, Read] = {}
        for row, end, numbers in asked:
            by_id = dict(zip(appends[row].wanted[end], log_ps[starts[row] + end], strict=True))
            place = _Place(row, appends[row].base + appends[row].wanted_at[end])
            reads.update({n: Read(place, [by_id[i] for i in wanted[n]]) for n in numbers})
        return [reads[n] for n in range(len(prompts))]

    @torch.inference_mode()
    def read(self, requests: Sequence[Request]) -> list[list[Read]]:
        appends: dict[int, _Append] = {}
        firsts: dict[int, int] = {}
        # Kept tokens come first in their row, so that their positions stay valid when the rest is dropped.
        for number in sorted(range(len(requests)), key=lambda n: not requests[n].keep):
            request, row = requests[number], requests[number].parent.row
            append = appends.get(row)
            if append is None:
                append = appends[row] = _Append(row, base=self._trees.used[row])
            first = append.chain(request.tokens, request.parent.at, number=number + _TRUNK + 1)
            append.wanted_at += range(first, len(append.tokens))
            append.wanted += request.wanted
            if request.keep:
                append.num_kept = len(append.tokens)
            firsts[number] = first
        log_ps, starts = self._forward(list(appends.values()))
        start_of = dict(zip(appends, starts, strict=True))
        found = []
        for number, request in enumerate(requests):
            # Every token of a request is asked about, so that a token's number is that of its answer.
            row, first = request.parent.row, firsts[number]
            at, start = appends[row].base + first, start_of[row] + first
            mine = log_ps[start : start + len(request.tokens)]
            found.append([Read(_Place(row, at + t), each) for t, each in enumerate(mine)])
        return found

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

    def _forward(self, appends: Sequence[_Append]) -> tuple[list[list[float]], list[int]]:
        """Run all appends, like lengths together; the log-probabilities of each position asked about, and where those
        of each append begin.
        """
        lengths = [len(append.tokens) for append in appends]
        order: list[int] = []
        flat: list[torch.Tensor] = []
        for batch in with_least_padding(lengths, batch_tokens=self._limit.tokens, pass_tokens=self._pass_tokens):
            order += batch
            flat += self._forward_batch([appends[i] for i in batch])
        # One synchronisation with the device, after all batches.
        found = split_like(torch.cat(flat), [ids for i in order for ids in appends[i].wanted])
        starts, start = [0] * len(appends), 0
        for i in order:
            starts[i] = start
            start += len(appends[i].wanted)
        return found, starts

    def _forward_batch(self, appends: Sequence[_Append]) -> list[torch.Tensor]:
        """The requested log-probabilities, concatenated, on the device."""
        rows = [append.row for append in appends]
        past, longest = max(append.base for append in appends), max(len(append.tokens) for append in appends)
        lengths_B = np.array([len(append.tokens) for append in appends])
        is_token_BT = np.arange(longest) < lengths_B[:, None]

        def filled(values: Iterable[list[int]], padding: int) -> NDArray[np.int64]:
            array_BT = np.full(is_token_BT.shape, padding, dtype=np.int64)
            array_BT[is_token_BT] = np.fromiter(chain.from_iterable(values), np.int64, lengths_B.sum())
            return array_BT

        ids_BT = filled((append.tokens for append in appends), 0)
        anchors_BT = filled((append.anchors for append in appends), 0)
        chains_BT = filled((append.chains for append in appends), -1)
        depth_BT = filled((append.depths for append in appends), 0)
        # Padding attends only to itself, and no token attends to it.
        depth_BT += np.where(is_token_BT, np.take_along_axis(self._trees.depth_BK[rows], anchors_BT, axis=1), 0)
        above_BTT = (chains_BT[:, :, None] == chains_BT[:, None, :]) | (chains_BT == _TRUNK)[:, None, :]
        above_BTT &= np.tri(longest, dtype=bool) & is_token_BT[:, :, None]
        above_BTT[:, np.arange(longest), np.arange(longest)] = True
        old_BTK = self._trees.seen_BKK[np.array(rows)[:, None], anchors_BT, :past] & is_token_BT[:, :, None]
        seen_BTK = np.concatenate([old_BTK, above_BTT], axis=2)
        past_depth_BK = self._trees.depth_BK[rows, :past]
        cache = self._trees.past(rows, self._alike, new=longest)
        hidden_BTD = self._decode(ids_BT, depth_BT, seen_BTK, past_depth_BK, cache)
        self._trees.store(cache, rows, [append.num_kept for append in appends], depth_BT, seen_BTK)
        return self._wanted(hidden_BTD, appends)

    def _wanted(self, hidden_BTD: torch.Tensor, appends: Sequence[_Append]) -> list[torch.Tensor]:
        row_N = [b for b, append in enumerate(appends) for _ in append.wanted_at]
        at_N = [t for append in appends for t in append.wanted_at]
        wanted_N = [ids for append in appends for ids in append.wanted]
        hidden_ND = hidden_BTD[torch.tensor(row_N, device=self._device), torch.tensor(at_N, device=self._device)]
        return [
            wanted_log_ps(self._head(hidden_ND[i : i + self._head_positions]), wanted_N[i : i + self._head_positions])
            for i in range(0, len(wanted_N), self._head_positions)
        ]

    def _decode(
        self, ids_BT: np.ndarray, depth_BT: np.ndarray, seen_BTK: np.ndarray, past_depth_BK: np.ndarray, cache: Any
    ) -> torch.Tensor:
        seen_B1TK = torch.from_numpy(seen_BTK).to(self._device)[:, None]
        # An additive mask, not a boolean one: BLOOM adds it to its attention scores.
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

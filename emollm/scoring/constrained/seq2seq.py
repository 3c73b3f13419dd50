"""Reads with an encoder-decoder: the encoder reads each prompt once, the decoder continues from stored states.

Here answers do not share a row, since T5 and BART derive positions from the cache's length. An answer is short, and
the cross-attention keys and values of the prompt, which would be expensive to copy, are computed once.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

from emollm.core.encoding import EncodedPrompt
from emollm.models.batching import by_length
from emollm.scoring.arrays import Floats
from emollm.scoring.constrained.log_ps import on_host, wanted_log_ps
from emollm.scoring.constrained.ragged import Ints
from emollm.scoring.constrained.reader import Chains, Reads
from emollm.scoring.safely import TokenLimit

_HEAD_POSITIONS = 512
"""Largest number of decoder tokens at once: all of them go through the vocabulary head."""


class _Place(NamedTuple):
    """The numbers of a slot."""

    prompts: int
    """The encoded batch of its prompt, and the row in it."""
    row: int
    answers: int
    """The decoded batch of its past, the row in it, and the number of tokens of the row."""
    answer_row: int
    length: int


class _Request(NamedTuple):
    """A chain to read."""

    place: _Place
    tokens: list[int]
    wanted: list[Ints]
    """The ids whose probabilities are requested after each of `tokens`."""
    is_read_on: bool


class _Prompts(NamedTuple):
    hidden_BTD: torch.Tensor
    mask_BT: torch.Tensor
    cross: list[tuple[torch.Tensor, torch.Tensor]]


class Seq2SeqReader:
    def __init__(self, model: Any, *, pad: int, device: str, limit: TokenLimit) -> None:
        self._model = model
        self._pad = pad
        self._start = model.config.decoder_start_token_id
        self._device = device
        self._limit = limit
        self._prompts: list[_Prompts] = []
        self._answers: list[list[tuple[torch.Tensor, torch.Tensor]]] = []

    @torch.inference_mode()
    def open(self, prompts: Sequence[EncodedPrompt], num_after_C: Ints, after_A: Ints) -> Reads:
        self._prompts, self._answers = [], []
        wanted = np.split(after_A, num_after_C.cumsum()[:-1])
        reads: dict[int, tuple[_Place, Floats]] = {}
        for batch in by_length([len(prompt.ids) for prompt in prompts], batch_tokens=self._limit.tokens):
            longest = len(prompts[batch[0]].ids)
            ids = torch.full((len(batch), longest), self._pad)
            mask = torch.zeros_like(ids)
            for b, i in enumerate(batch):
                ids[b, : len(prompts[i].ids)] = torch.tensor(prompts[i].ids)
                mask[b, : len(prompts[i].ids)] = 1
            mask = mask.to(self._device)
            hidden = self._model.get_encoder()(input_ids=ids.to(self._device), attention_mask=mask).last_hidden_state
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
            start = torch.full((len(batch), 1), self._start, device=self._device)
            logits = self._decode(hidden, mask, start, cache)
            cross = [(layer.keys, layer.values) for layer in cache.cross_attention_cache.layers]
            self._prompts.append(_Prompts(hidden, mask, cross))
            self._answers.append([(layer.keys, layer.values) for layer in cache.self_attention_cache.layers])
            for b, log_ps in enumerate(_log_ps(logits[:, 0], [wanted[i] for i in batch])):
                place = _Place(len(self._prompts) - 1, b, len(self._answers) - 1, b, 1)
                reads[batch[b]] = place, log_ps
        return _joined([reads[i] for i in range(len(prompts))])

    @torch.inference_mode()
    def read(self, chains: Chains) -> Reads:
        requests = _requests(chains)
        # Requests are batched if their prompts are in one tensor, and their pasts, of equal length, in another.
        groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            groups[request.place.prompts, request.place.answers, request.place.length].append(number)
        reads: dict[int, tuple[_Place, Floats]] = {}
        for numbers in groups.values():
            prompt_length = self._prompts[requests[numbers[0]].place.prompts].mask_BT.shape[1]
            most = max(1, min(self._limit.tokens // prompt_length, _HEAD_POSITIONS))
            by_tokens = sorted(numbers, key=lambda n: len(requests[n].tokens))
            for start in range(0, len(by_tokens), most):
                part = by_tokens[start : start + most]
                reads.update(zip(part, self._read_batch([requests[n] for n in part]), strict=True))
        return _joined([reads[n] for n in range(len(requests))])

    def _read_batch(self, requests: Sequence[_Request]) -> list[tuple[_Place, Floats]]:
        """For each request the place of its last token, and the probabilities after its tokens."""
        one = requests[0].place
        prompts, past = self._prompts[one.prompts], self._answers[one.answers]
        rows = torch.tensor([request.place.row for request in requests], device=self._device)
        past_rows = torch.tensor([request.place.answer_row for request in requests], device=self._device)
        cache = EncoderDecoderCache(
            _cache_of([(k[past_rows, :, : one.length], v[past_rows, :, : one.length]) for k, v in past]),
            _cache_of([(k[rows], v[rows]) for k, v in prompts.cross]),
        )
        longest = max(len(request.tokens) for request in requests)
        # Padded on the right: a token does not attend to later ones.
        ids = torch.full((len(requests), longest), self._pad)
        for b, request in enumerate(requests):
            ids[b, : len(request.tokens)] = torch.tensor(request.tokens)
        logits = self._decode(prompts.hidden_BTD[rows], prompts.mask_BT[rows], ids.to(self._device), cache)
        if any(request.is_read_on for request in requests):
            self._answers.append([(layer.keys, layer.values) for layer in cache.self_attention_cache.layers])
        flat = [(b, t) for b, request in enumerate(requests) for t in range(len(request.tokens))]
        at = logits[[b for b, _ in flat], [t for _, t in flat]]
        log_ps = iter(_log_ps(at, [ids for request in requests for ids in request.wanted]))
        here = len(self._answers) - 1
        return [
            (
                _Place(one.prompts, request.place.row, here, b, one.length + len(request.tokens)),
                np.concatenate([next(log_ps) for _ in request.tokens]),
            )
            for b, request in enumerate(requests)
        ]

    def _decode(self, hidden: torch.Tensor, mask: torch.Tensor, ids: torch.Tensor, cache: Any) -> torch.Tensor:
        logits: torch.Tensor = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            attention_mask=mask,
            decoder_input_ids=ids,
            past_key_values=cache,
            use_cache=True,
        ).logits
        return logits


def _requests(chains: Chains) -> list[_Request]:
    ends_T, ends_A = chains.length_C.cumsum()[:-1], chains.num_after_C.cumsum()[:-1]
    each = zip(
        chains.slot_CP.tolist(), np.split(chains.tokens_T, ends_T), np.split(chains.after_A, ends_A),
        chains.is_read_on_C.tolist(), strict=True,
    )  # fmt: skip
    return [
        _Request(_Place(*slot), tokens.tolist(), [*tokens[1:, None], after], is_read_on)
        for slot, tokens, after, is_read_on in each
    ]


def _joined(reads: Sequence[tuple[_Place, Floats]]) -> Reads:
    return Reads(np.array([place for place, _ in reads]), np.concatenate([log_ps for _, log_ps in reads]))


def _log_ps(logits: torch.Tensor, wanted: Sequence[Ints]) -> list[Floats]:
    count_N = np.array([len(ids) for ids in wanted])
    return np.split(on_host(wanted_log_ps(logits, count_N, np.concatenate(wanted))), count_N.cumsum()[:-1])


def _cache_of(layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache

"""Texts to pooled hidden states, from table to table: runs in actors while heads are fitted."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from emollm.core.heads_card import FeatureSpec, Pooling, Prompt
from emollm.core.prompts import Post

POOLINGS: dict[str, tuple[Pooling, ...]] = {
    "decoder": ("last", "mean"),
    "encoder-decoder": ("last", "mean"),
    "encoder": ("first", "mean"),
}
"""Candidate poolings per architecture: a decoder's last token has seen the text; BERT's first token summarises it."""

PROMPTS = {
    "decoder": Prompt(prefix="Tweet:", suffix="\nHow does the writer feel? The writer feels"),
    "encoder-decoder": Prompt(prefix="Tweet:", suffix="\nHow does the writer feel? The writer feels"),
    # An encoder attends to both sides and was not trained to continue a sentence.
    "encoder": Prompt(),
}


def candidate_layers(num_layers: int, *, most: int = 6) -> tuple[int, ...]:
    """Candidate layers, spread over the upper two thirds: lower layers represent words and little more."""
    low = max(1, num_layers // 3)
    return tuple(sorted({round(layer) for layer in np.linspace(low, num_layers, most)}))


def column(feature_spec: FeatureSpec) -> str:
    return f"{feature_spec.pooling}_{feature_spec.layer}"


class ReadPosts:
    """Rows of `index` and the fields of `Post` to `index` and, a column a feature_spec, its state as float32s.

    `adapted` is a model directory whose adapter the base is read with.
    """

    def __init__(
        self, *, base: str, prompt: Prompt, feature_specs: Sequence[FeatureSpec], max_post_tokens: int, device: str,
        num_threads: int, adapted: str | None = None, reports: Any = None, batch_tokens: int | None = None,
        precision: Literal["float32", "bf16"] = "float32",
    ) -> None:  # fmt: skip
        self._base, self._prompt, self._feature_specs = base, prompt, tuple(feature_specs)
        self._adapted = adapted
        self._max_post_tokens = max_post_tokens
        self._device, self._num_threads, self._reports = device, num_threads, reports
        self._batch_tokens, self._precision = batch_tokens, precision

    @functools.cached_property
    def _parts(self) -> tuple[Any, Any, int]:
        # At the first batch and not in the constructor: an actor that dies in its constructor does not report why.
        import torch

        from emollm.models.device import activation_bytes, default_batch_tokens, resolve_device
        from emollm.models.load import LoadedModel, load_base, load_model
        from emollm.models.precision import DTYPES
        from emollm.scoring.heads.backbone import Backbone, PostEncoder

        self._device = resolve_device(self._device)
        if self._device == "cpu":
            torch.set_num_threads(self._num_threads)
        depth = max(feature_spec.layer for feature_spec in self._feature_specs)
        dtype = DTYPES[self._precision]
        if self._adapted:
            base = load_model(self._adapted, dtype=dtype, device=self._device)
        else:
            base = load_base(self._base, dtype=dtype, device=self._device, depth=depth)
        card = base.card.model_copy(update={"max_post_tokens": self._max_post_tokens})
        backbone = Backbone(base.model, card.base.architecture, depth=depth)
        size = self._batch_tokens or default_batch_tokens(self._device, bytes_per_token=activation_bytes(base.model))
        return PostEncoder(LoadedModel(base.model, base.tokenizer, card), self._prompt), backbone, size

    def __call__(self, table: pa.Table) -> pa.Table:
        from emollm.models.batching import with_least_padding
        from emollm.models.device import pass_tokens
        from emollm.scoring.heads.backbone import pooled_states

        encode, backbone, batch_tokens = self._parts
        rows = table.select(list(Post._fields)).to_pylist()
        prompts = encode.posts([Post(**row) for row in rows])
        states = {r: np.zeros((len(prompts), backbone.hidden_size), np.float32) for r in self._feature_specs}
        lengths, worth = [len(prompt) for prompt in prompts], pass_tokens(backbone.lm, self._device)
        for batch in with_least_padding(lengths, batch_tokens=batch_tokens, pass_tokens=worth):
            found = pooled_states(
                backbone, encode.batch([prompts[i] for i in batch], self._device), self._feature_specs
            )
            for feature_spec, pooled in found.items():
                states[feature_spec][batch] = pooled
        if self._reports is not None:
            self._reports.put(len(prompts))
        arrays = {
            column(r): pa.FixedSizeListArray.from_arrays(pa.array(s.reshape(-1)), backbone.hidden_size)
            for r, s in states.items()
        }
        return pa.table({"index": table["index"], **arrays})

"""The loss of instruction tuning: over the answer and its end token, not over the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from emollm.models.device import CPU_BATCH_TOKENS, activation_bytes, default_batch_tokens
from emollm.models.load import LoadedModel, base_of
from emollm.training.batches import (
    IGNORED,
    EncodedRow,
    MicroBatch,
    collate_decoder,
    collate_encoder_decoder,
    cut_by_length,
    cut_by_prompt,
)
from emollm.training.sharing import can_share, collate_tree, is_worth_it

if TYPE_CHECKING:
    from emollm.scoring.scorer import Scorer


class Objective(Protocol):
    """The objective of a run: how rows become micro-batches, and the module whose forward pass sums their loss."""

    module: nn.Module

    def cut(self, batch: Sequence[EncodedRow], micro_batch_size: int) -> list[list[EncodedRow]]:
        """The rows that go through the model together; the same on every rank."""
        ...

    def collate(self, rows: Sequence[EncodedRow]) -> MicroBatch:
        """On the CPU; called on a thread."""
        ...

    def scorer(self) -> Scorer:
        """A scorer with the current model, as at inference."""
        ...


class Answers:
    """Instruction tuning; for heads see `joint.Joint`."""

    def __init__(self, loaded: LoadedModel, device: str) -> None:
        self.module: nn.Module = AnswerLoss(loaded.model)
        self._loaded, self._device = loaded, device
        lm = base_of(loaded.model)
        self._width = lm.config.hidden_size if not loaded.is_encoder_decoder and can_share(lm) else None

    def cut(self, batch: Sequence[EncodedRow], micro_batch_size: int) -> list[list[EncodedRow]]:
        if self._width:
            alike = cut_by_prompt(batch, micro_batch_size)
            if sum(map(self._is_worth_it, alike)) > len(alike) / 2:
                return alike
        return cut_by_length(batch, micro_batch_size)

    def collate(self, rows: Sequence[EncodedRow]) -> MicroBatch:
        return collate_tree(rows) if self._is_worth_it(rows) else self.padded(rows)

    def _is_worth_it(self, rows: Sequence[EncodedRow]) -> bool:
        return self._width is not None and is_worth_it(rows, width=self._width, device=self._device)

    def padded(self, rows: Sequence[EncodedRow]) -> MicroBatch:
        """A row of the batch for each row."""
        pad = self._loaded.tokenizer.pad_token_id
        if self._loaded.is_encoder_decoder:
            start = self._loaded.model.config.decoder_start_token_id
            return collate_encoder_decoder(rows, pad=pad, start=start)
        return collate_decoder(rows, pad=pad)

    def scorer(self) -> Scorer:
        from emollm.scoring.constrained.engine import ConstrainedScorer

        plain = replace(self._loaded, model=base_of(self._loaded.model))
        # Under ZeRO-3 all ranks must do equally many passes, and free memory is not equal.
        is_sharded = hasattr(next(plain.model.parameters()), "ds_id")
        bytes_per_token = activation_bytes(plain.model)
        batch_tokens = (
            CPU_BATCH_TOKENS if is_sharded else default_batch_tokens(self._device, bytes_per_token=bytes_per_token)
        )
        return ConstrainedScorer(plain, device=self._device, batch_tokens=batch_tokens)


class AnswerLoss(nn.Module):
    """A language model whose forward pass gives the summed cross-entropy of the answers.

    The vocabulary head is applied only at labels. Prompts are ten times longer than answers and the head
    is a fifth of a small model, so full logits would waste most of the work. Encoder-decoders do not have this
    problem: their decoder gets only the answer.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, torch.Tensor], labels_BT: torch.Tensor) -> torch.Tensor:
        """Sum over the labelled positions, in nats, computed in float32."""
        chosen_BT = labels_BT != IGNORED
        logits_NV = self._logits(inputs, chosen_BT)
        return nn.functional.cross_entropy(logits_NV.float(), labels_BT[chosen_BT], reduction="sum")

    def _logits(self, inputs: dict[str, torch.Tensor], chosen_BT: torch.Tensor) -> torch.Tensor:
        lm = base_of(self.model)
        if lm.config.is_encoder_decoder:
            logits: torch.Tensor = lm(**inputs).logits[chosen_BT]
            return logits
        hidden_BTD = lm.get_decoder()(**inputs, use_cache=False).last_hidden_state
        chosen: torch.Tensor = lm.get_output_embeddings()(hidden_BTD[chosen_BT])
        return chosen

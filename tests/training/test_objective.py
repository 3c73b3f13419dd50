"""The answer loss equals the plain cross-entropy of transformers, for every architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emollm.models import attach_lora, load_base
from emollm.training.batches import EncodedRow, collate_decoder, collate_encoder_decoder
from emollm.training.objective import AnswerLoss
from tests.tiny import FAMILIES, Family, tiny_model

ROWS = [
    EncodedRow("a", prompt=list(range(300, 340)), answer=[250, 260, 270, 2]),
    EncodedRow("b", prompt=list(range(400, 411)), answer=[280, 2]),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [False, True])
def test_loss_is_that_of_each_row_alone_with_full_logits(tmp_path: Path, family: Family, lora: bool) -> None:
    base = load_base(str(tiny_model(family, tmp_path)))
    model = attach_lora(base.model, rank=2, alpha=4, dropout=0.0) if lora else base.model
    if base.is_encoder_decoder:
        batch = collate_encoder_decoder(ROWS, pad=0, start=model.config.decoder_start_token_id, device="cpu")
    else:
        batch = collate_decoder(ROWS, pad=0, device="cpu")
    loss = AnswerLoss(model.eval())(batch.inputs, batch.labels_BT)

    alone = torch.zeros(())
    for row in ROWS:  # no padding, no positions chosen: the sum of log probabilities, token by token
        if base.is_encoder_decoder:
            decoder_ids = torch.tensor([[model.config.decoder_start_token_id, *row.answer[:-1]]])
            logits = model(input_ids=torch.tensor([row.prompt]), decoder_input_ids=decoder_ids).logits[0]
        else:
            logits = model(input_ids=torch.tensor([row.prompt + row.answer])).logits[0, len(row.prompt) - 1 : -1]
        log_probs = logits.log_softmax(-1)
        alone -= log_probs[torch.arange(len(row.answer)), torch.tensor(row.answer)].sum()
    torch.testing.assert_close(loss, alone, rtol=1e-4, atol=1e-3)

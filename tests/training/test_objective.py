"""The answer loss equals the plain cross-entropy of transformers, for every architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emollm.models.load import attach_lora, load_base
from emollm.training.batches import EncodedRow, collate_decoder, collate_encoder_decoder, cut_by_prompt
from emollm.training.objective import AnswerLoss, Answers
from emollm.training.sharing import can_share, collate_tree, is_worth_it, num_tokens
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
        batch = collate_encoder_decoder(ROWS, pad=0, start=model.config.decoder_start_token_id)
    else:
        batch = collate_decoder(ROWS, pad=0)
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


WORDING = list(range(300, 330))
ALIKE = [
    EncodedRow("a", prompt=[*WORDING, 400, 401, 402], answer=[250, 2]),
    EncodedRow("b", prompt=[*WORDING, 400, 405], answer=[251, 252, 2]),
    EncodedRow("the same post, another answer", prompt=[*WORDING, 400, 405], answer=[251, 260, 2]),
    EncodedRow("a beginning of the others", prompt=WORDING, answer=[270, 2]),
    EncodedRow("unlike the others", prompt=[500, 501], answer=[280, 2]),
]


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("lora", [False, True])
def test_a_tree_of_rows_has_the_loss_and_gradients_of_the_rows(tmp_path: Path, family: Family, lora: bool) -> None:
    model = load_base(str(tiny_model(family, tmp_path))).model
    if lora:
        model = attach_lora(model, rank=2, alpha=4, dropout=0.0)
    learner, (rows,) = AnswerLoss(model.eval()), cut_by_prompt(ALIKE, len(ALIKE))
    tree, padded = collate_tree(rows), collate_decoder(rows, pad=0)
    assert tree.labels_BT.shape == (1, num_tokens(rows)) == (1, 32 + 6 + 4 + 4 + 4)
    gave = []
    for micro in (tree, padded):
        model.zero_grad()
        loss = learner(micro.inputs, micro.labels_BT)
        loss.backward()
        gave.append((loss, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gave[0], gave[1], rtol=1e-4, atol=1e-4)


def test_rows_share_what_pays_and_models_that_can(tmp_path: Path) -> None:
    assert is_worth_it(ALIKE[:4], width=64)
    # Of many rows that share little, attention over the whole tree takes most of a small model's time.
    many = [EncodedRow(str(i), [*WORDING[:20], *range(400 + i, 412 + i)], [2]) for i in range(40)]
    assert is_worth_it(many, width=1024) and not is_worth_it(many, width=64)
    unlike = [EncodedRow(str(i), [i, *WORDING], [2]) for i in range(3)]
    assert not is_worth_it(unlike, width=64)
    llama, bloom = (load_base(str(tiny_model(family, tmp_path / family))) for family in ("llama", "bloom"))
    assert can_share(llama.model)
    assert not can_share(bloom.model)

    answers = Answers(llama, "cpu")
    others = [EncodedRow(row.id, [500, *row.prompt], row.answer) for row in ALIKE]
    mixed = [row for pair in zip(ALIKE[:4], others[:4], strict=True) for row in pair]
    assert {len({row.prompt[0] for row in micro}) for micro in answers.cut(mixed, 4)} == {1}
    assert len(answers.collate(ALIKE[:4]).labels_BT) == 1
    assert len(answers.collate(unlike).labels_BT) == 3

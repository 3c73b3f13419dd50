"""Teacher forcing without cache, trie or batching: the slow truth that scorers are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from emollm.core.prompts import Question, render
from emollm.models.load import LoadedModel, prompt_encoder


@torch.inference_mode()
def log_ps(loaded: LoadedModel, question: Question, answers: Sequence[str], *, batch: int = 128) -> list[float]:
    """Log-probability of each answer string after the question's prompt, end token included."""
    encoder = prompt_encoder(loaded)
    prompt = encoder.prompt(render(question)).ids
    results: list[float] = []
    for start in range(0, len(answers), batch):
        ids = [encoder.answer(text) for text in answers[start : start + batch]]
        longest = max(map(len, ids))
        padded = torch.tensor([i + [0] * (longest - len(i)) for i in ids])
        prompts = torch.tensor([prompt] * len(ids))
        if loaded.is_encoder_decoder:
            first = torch.full((len(ids), 1), loaded.model.config.decoder_start_token_id)
            logits = loaded.model(input_ids=prompts, decoder_input_ids=torch.cat([first, padded[:, :-1]], 1)).logits
        else:
            logits = loaded.model(input_ids=torch.cat([prompts, padded], 1)).logits[:, len(prompt) - 1 : -1]
        chosen = logits.float().log_softmax(-1).gather(-1, padded[..., None])[..., 0]
        results += [float(row[: len(i)].double().sum()) for row, i in zip(chosen, ids, strict=True)]
    return results

"""Model directories to disk: weights or adapter, tokenizer and card, and the proof that they load again."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from emollm.core.bases import BASES
from emollm.core.card import CARD_FILE, write_card
from emollm.core.errors import ModelError
from emollm.core.prompts import questions_for, render
from emollm.models.load import LoadedModel, load_model, prompt_encoder


@torch.no_grad()
def round_adapter(model: Any, dtype: torch.dtype) -> None:
    """Round the adapters' weights to what `dtype` can hold; they keep their own type."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.copy_(parameter.to(dtype))


def save_model(folder: Path, loaded: LoadedModel, *, adapter_dtype: torch.dtype | None = None) -> None:
    """Write weights (or the adapter), tokenizer and card as a model directory; of frozen heads the card alone.

    `adapter_dtype` is what an adapter is stored in; None: the type it has.
    """
    if loaded.card.adapter == "heads":
        write_card(folder, loaded.card)
        return
    base = BASES.get(loaded.card.base.name)
    if loaded.card.adapter == "lora":
        # Else it names the folder of the base on this machine.
        loaded.model.active_peft_config.base_model_name_or_path = loaded.card.base.name
    loaded.model.save_pretrained(folder)
    if adapter_dtype is not None:
        path = folder / "adapter_model.safetensors"
        stored = {name: tensor.to(adapter_dtype) for name, tensor in load_file(path).items()}
        save_file(stored, path, metadata={"format": "pt"})
    if loaded.card.adapter is None or base is None or base.package is None:
        loaded.tokenizer.save_pretrained(folder)
    # peft writes a stock README; the card is affect.json.
    (folder / "README.md").unlink(missing_ok=True)
    write_card(folder, loaded.card)
    # safetensors makes files that nobody else may read; on shared storage others annotate and serve with this model.
    for weights in folder.glob("*.safetensors"):
        weights.chmod(stat.S_IMODE((folder / CARD_FILE).stat().st_mode))


@torch.no_grad()
def probe_logits(model: Any, loaded: LoadedModel) -> torch.Tensor:
    """Logits of `model` on a real prompt of the card: what must be the same after saving and loading.

    On tokens that no training text holds, logits are so large that merging a LoRA in float32 alone moves them by .01;
    on a prompt it moves them by 1e-4.
    """
    question = questions_for("so that is what a quiet evening feels like :)", loaded.card.tasks)[0]
    device = next(model.parameters()).device
    inputs = {"input_ids": torch.tensor([prompt_encoder(loaded).prompt(render(question)).ids], device=device)}
    if loaded.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[loaded.model.config.decoder_start_token_id]], device=device)
    logits: torch.Tensor = model(**inputs).logits
    return logits.to("cpu", torch.float32)


def trained_dtype(model: Any) -> torch.dtype:
    """The type of the model's weights."""
    dtype: torch.dtype = next(model.parameters()).dtype
    return dtype


def tolerance(dtype: torch.dtype, expected: torch.Tensor) -> float:
    """By how much what is computed in another order may differ from `expected`.

    In bf16 a merged adapter is rounded with its weight, and every layer rounds its states.
    """
    return 1e-2 if dtype is torch.float32 else 0.1 * float(expected.abs().max())


def verify_saved(
    folder: Path, loaded: LoadedModel, *, expected: torch.Tensor | None = None, tolerance: float = 1e-2
) -> float:
    """Reload a saved model directory in the type of the model in memory, and compare the logits of both.

    `expected` are its `probe_logits` where they were taken before. Returns the largest difference; raises ModelError
    above `tolerance`.
    """
    if expected is None:
        expected = probe_logits(loaded.model.eval().to("cpu"), loaded)
    again = load_model(str(folder), dtype=trained_dtype(loaded.model))
    difference = float((probe_logits(again.model, loaded) - expected).abs().max())
    if not difference <= tolerance:
        raise ModelError(f"the model saved in {folder} differs from the one trained: logits by {difference:.2g}")
    return difference

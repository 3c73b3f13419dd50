"""A model is saved, merged and verified in the type it was trained in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from emollm.models.load import LoadedModel, attach_lora, load_base, load_model
from emollm.models.save import probe_logits
from emollm.training.options import TrainConfig
from emollm.training.worker import _write
from tests.tiny import tiny_model

QUERY = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(("method", "merge"), [("full", False), ("lora", False), ("lora", True)])
def test_a_model_trained_in_bf16_is_saved_and_verified_in_it(
    tmp_path: Path, sample_data: Path, method: str, merge: bool
) -> None:
    """As a GPU leaves it: its base is stored in float32."""
    base = load_base(str(tiny_model("llama", tmp_path / "base")), dtype=torch.bfloat16)
    model = base.model
    if method == "lora":
        model = attach_lora(model, rank=2, alpha=4, dropout=0.0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.02)
        model.to(torch.bfloat16)
        query = model.get_base_model().get_submodule(QUERY)
        change = query.lora_B.default.weight.float() @ query.lora_A.default.weight.float() * 2
        sum_rounded_once = (query.base_layer.weight.float() + change).to(torch.bfloat16)
    loaded = LoadedModel(
        model, base.tokenizer, base.card.model_copy(update={"adapter": "lora" if method == "lora" else None})
    )
    options = {"data": sample_data, "out": tmp_path / "model", "base": str(tmp_path / "base"), "method": method}
    config = TrainConfig.model_validate({**options, "merge": merge})
    folder = tmp_path / "model"
    folder.mkdir()
    expected = probe_logits(model, loaded)
    assert _write(folder, config, loaded, None) <= 0.1 * float(expected.abs().max())
    for path in folder.glob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(path).values()} == {torch.bfloat16}
    if merge:
        again = load_model(str(folder), dtype=torch.bfloat16).model.get_submodule(QUERY).weight
        torch.testing.assert_close(again, sum_rounded_once, rtol=0, atol=0)


def test_an_adapter_is_stored_in_half_the_space_and_answers_as_the_one_in_memory(
    tmp_path: Path, sample_data: Path
) -> None:
    base = load_base(str(tiny_model("llama", tmp_path / "base")))
    model = attach_lora(base.model, rank=2, alpha=4, dropout=0.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    loaded = LoadedModel(model, base.tokenizer, base.card.model_copy(update={"adapter": "lora"}))
    config = TrainConfig(
        data=sample_data, out=tmp_path / "model", base=str(tmp_path / "base"), adapter_precision="bf16"
    )
    folder = tmp_path / "model"
    folder.mkdir()
    # Calibrated on what is stored: rounding apart, nothing is lost between memory and file.
    assert _write(folder, config, loaded, None) <= 1e-4
    stored = load_file(folder / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}

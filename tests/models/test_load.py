"""Bases and model directories: found, loaded, saved, and refused when they do not fit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from emollm.core.bases import BASES, SERIES
from emollm.core.card import CARD_FILE, card_tasks, read_card
from emollm.core.errors import ModelError
from emollm.core.prompts import Pieces
from emollm.models.load import (
    LoadedModel,
    attach_lora,
    describe_base,
    load_base,
    load_encoder,
    load_model,
    locate_base,
    prompt_encoder,
    weights_fingerprint,
)
from emollm.models.save import save_model, verify_saved
from tests.tiny import ENCODERS, FAMILIES, Encoder, Family, tiny_model


def test_the_series_is_on_registered_bases() -> None:
    assert len(SERIES) == 7
    assert {BASES[model.base].family for model in SERIES.values()} == {"llama", "opt", "bloom", "t5", "bart"}
    assert all(base.licence for base in BASES.values())


def test_a_base_is_a_name_a_folder_or_a_hub_id(tmp_path: Path) -> None:
    assert locate_base("t5-large") == "google-t5/t5-large"
    assert locate_base("some-lab/some-model") == "some-lab/some-model"
    assert locate_base(str(tmp_path)) == str(tmp_path)
    with pytest.raises(ModelError, match=r"llama-2-7b, .*bart-large"):
        locate_base("lama-2-7b")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_saved_model_gives_the_logits_of_the_one_in_memory(tmp_path: Path, family: Family, method: str) -> None:
    base = load_base(str(tiny_model(family, tmp_path / "base")))
    model = base.model
    if method == "lora":
        model = attach_lora(model, rank=2, alpha=4, dropout=0.0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.02)
    card = base.card.model_copy(update={"adapter": "lora" if method == "lora" else None})
    save_model(tmp_path / "model", LoadedModel(model, base.tokenizer, card))
    assert verify_saved(tmp_path / "model", LoadedModel(model, base.tokenizer, card)) < 1e-3
    assert len({path.stat().st_mode for path in (tmp_path / "model").iterdir()}) == 1  # who may read one may read all
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "q_" in n or ".q." in n or "query" in n).add_(0.5)
    with pytest.raises(ModelError, match="differs from the one trained"):
        verify_saved(tmp_path / "model", LoadedModel(model, base.tokenizer, card))


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_on_the_upper_layers_alone(tmp_path: Path, family: Family) -> None:
    base = load_base(str(tiny_model(family, tmp_path / "base")))
    model = attach_lora(base.model, rank=2, alpha=4, dropout=0.0, first_layer=2)
    layers = {int(re.findall(r"\.(\d+)\.", n)[0]) for n, p in model.named_parameters() if p.requires_grad}
    assert layers == {1}
    save_model(tmp_path / "m", LoadedModel(model, base.tokenizer, base.card.model_copy(update={"adapter": "lora"})))
    assert verify_saved(tmp_path / "m", LoadedModel(model, base.tokenizer, base.card)) < 1e-3
    with pytest.raises(ModelError, match="--lora-first-layer 9"):
        attach_lora(load_base(str(tmp_path / "base")).model, rank=2, alpha=4, dropout=0.0, first_layer=9)


def test_an_adapter_is_attached_to_no_other_base(tmp_path: Path) -> None:
    folder = tiny_model("llama", tmp_path / "base")
    base = load_base(str(folder))
    model = attach_lora(base.model, rank=2, alpha=4, dropout=0.0)
    save_model(tmp_path / "m", LoadedModel(model, base.tokenizer, base.card.model_copy(update={"adapter": "lora"})))
    shutil.rmtree(folder)
    tiny_model("llama", folder, seed=1)
    with pytest.raises(ModelError, match="get the base it was trained on"):
        load_model(str(tmp_path / "m"))


def test_an_untrained_base_can_be_asked_by_its_folder(tiny_base: Path) -> None:
    assert {task.name for task in card_tasks(f"base:{tiny_base}")} >= {"EI-reg", "E-c"}
    assert load_model(f"base:{tiny_base}").card.base.name == str(tiny_base)
    with pytest.raises(ModelError, match="unknown base model 'nowhere'"):
        load_model("base:nowhere")


def test_the_fingerprint_sees_weights_and_not_their_storage(tmp_path: Path) -> None:
    folder = str(tiny_model("llama", tmp_path / "base"))
    whole, half = load_base(folder), load_base(folder, dtype=torch.bfloat16)
    assert weights_fingerprint(whole.model) == weights_fingerprint(half.model)
    other = load_base(str(tiny_model("llama", tmp_path / "other", seed=1)))
    assert weights_fingerprint(other.model) != weights_fingerprint(whole.model)


def test_a_folder_without_a_card_is_not_a_model_directory(tmp_path: Path, tiny_base: Path) -> None:
    for ask in (lambda m: load_model(m), card_tasks):
        with pytest.raises(ModelError, match=r"no affect\.json.*emollm train --base"):
            ask(str(tiny_base))
        with pytest.raises(ModelError, match="no model directory"):
            ask(str(tmp_path / "missing"))
    (tmp_path / CARD_FILE).write_text('{"schema_version": 1, "name": 3}')
    with pytest.raises(ModelError, match="not a valid card"):
        read_card(tmp_path)


def test_weights_that_are_missing_or_broken_are_a_clear_error(tmp_path: Path) -> None:
    folder = tiny_model("llama", tmp_path / "base")
    (folder / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(ModelError, match="cannot load"):
        load_base(str(folder))
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")  # a pickle is never read
    with pytest.raises(ModelError, match="cannot load"):
        load_base(str(folder))


CONFIG = {"hidden_size": "x"}, {"num_attention_heads": 0}, {"num_attention_heads": 5}, {"model_type": "vit"}


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        *(("config.json", json.dumps(change)) for change in CONFIG),
        ("config.json", "[]"),
        ("model.safetensors", ""),
        ("model.safetensors", "\0" * 64),
        ("tokenizer.json", "{"),
        ("tokenizer.json", "[]"),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer.json", None),
    ],
)
def test_a_broken_file_of_a_base_is_one_line_that_names_the_base(
    tmp_path: Path, tiny_base: Path, name: str, broken: str | None
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_base, folder)
    changed = folder / name
    if broken is None:
        changed.unlink()
    elif broken.startswith('{"'):
        changed.write_text(json.dumps({**json.loads(changed.read_text()), **json.loads(broken)}))
    else:
        changed.write_text(broken)
    for load in (load_base, *(() if name.startswith("tokenizer") else (describe_base,))):
        with pytest.raises(ModelError, match=rf"^cannot load .*{folder}: .*\w") as raised:
            load(str(folder))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_a_base_without_a_tokenizer_is_refused_where_all_words_would_be_unknown(
    tmp_path: Path, family: Family | Encoder
) -> None:
    folder = tiny_model(family, tmp_path / "base")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"cannot load the tokenizer of .*base has none; copy"):
        load_base(str(folder))


@pytest.fixture
def with_adapter(tmp_path: Path, tiny_base: Path) -> Path:
    base = load_base(str(tiny_base))
    model = attach_lora(base.model, rank=2, alpha=4, dropout=0.0)
    save_model(tmp_path / "m", LoadedModel(model, base.tokenizer, base.card.model_copy(update={"adapter": "lora"})))
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("tokenizer.json", "[]"),
        ("tokenizer.json", None),
        ("tokenizer_config.json", "{"),
        ("adapter_config.json", "{}"),
        ("adapter_config.json", "[]"),
        ("adapter_model.safetensors", "\0" * 64),
        ("adapter_model.safetensors", None),
        (CARD_FILE, "directory"),
    ],
)
def test_a_broken_file_of_a_model_directory_is_one_line_that_names_it(
    with_adapter: Path, name: str, broken: str | None
) -> None:
    changed = with_adapter / name
    changed.unlink()
    if broken == "directory":
        changed.mkdir()
    elif broken is not None:
        changed.write_text(broken)
    for load in (load_model, *((load_encoder,) if name.startswith("tokenizer") else ())):
        with pytest.raises(ModelError, match=str(with_adapter)) as raised:
            load(str(with_adapter))
        assert "\n" not in str(raised.value)


def test_a_model_directory_without_a_tokenizer_has_that_of_its_base(with_adapter: Path, tiny_base: Path) -> None:
    for path in with_adapter.glob("tokenizer*"):
        path.unlink()
    ids = load_encoder(str(with_adapter)).prompt(Pieces("", " how quiet it is", "")).ids
    assert ids == prompt_encoder(load_model(str(with_adapter))).prompt(Pieces("", " how quiet it is", "")).ids
    assert ids == prompt_encoder(load_base(str(tiny_base))).prompt(Pieces("", " how quiet it is", "")).ids


def test_a_hub_that_cannot_be_reached_is_one_line_with_the_way_out() -> None:
    with pytest.raises(ModelError, match=r"^cannot load nobody/none: .*the hub cannot be reached; give a local folder"):
        load_base("nobody/none")


@pytest.mark.parametrize("family", [*FAMILIES, *ENCODERS])
def test_a_base_is_described_from_its_headers_as_when_it_is_loaded(
    tmp_path: Path, family: Family | Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emollm.models import load

    folder = str(tiny_model(family, tmp_path / "base"))
    expected = load_base(folder)
    monkeypatch.setattr(load, "load_base", None)  # no weight is loaded
    info, config = describe_base(folder)
    assert info == expected.card.base and config.model_type == expected.model.config.model_type

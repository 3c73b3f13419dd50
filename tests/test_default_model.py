"""The bundled models: what ships, that each answers, and what it says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import emollm
from emollm.core.bases import BASES, BUNDLED, DEFAULT_MODEL, SHORT_NAMES, model_folder
from emollm.core.card import card_of, card_tasks
from emollm.scoring.heads.weights import load_bank
from emollm.scoring.open import resolve_engine

_MOST_BYTES = 8_000_000
_SEMEVAL = {"EI-reg", "EI-oc", "V-reg", "V-oc", "E-c"}
_AFFECT = _SEMEVAL | {
    "Intensity", "GoEmotions", "GoEmotions-28", "EmoBank-V", "EmoBank-A", "EmoBank-D", "SST", "SST5", "TDT",
}  # fmt: skip
TRAINED = {"minilm-affect": _AFFECT, "smollm2-135m-affect": _AFFECT, "smollm2-135m-heads": _SEMEVAL}


@pytest.mark.parametrize("name", BUNDLED)
def test_it_is_small_and_holds_weights_and_no_text(name: str) -> None:
    folder = model_folder(name)
    files = {p.name for p in folder.iterdir()}
    assert {"README.md", "affect.json", "heads.safetensors", "run.json"} <= files
    assert files <= {
        "README.md", "affect.json", "heads.safetensors", "run.json", "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    assert sum(p.stat().st_size for p in folder.iterdir()) <= _MOST_BYTES
    card = card_of(name)
    assert card is not None and card.heads is not None and card.base.name in BASES and card.name == name
    assert load_bank(folder, card.heads).weight_OF.shape[0] >= 17
    told = "".join(path.read_text() for path in folder.glob("*.json"))
    assert not [word for word in ("/home/", "/work", "/tmp", "/root") if word in told]


@pytest.mark.parametrize("name", BUNDLED)
def test_its_tasks_are_trained_or_derived_and_its_engine_is_heads(name: str) -> None:
    card = card_of(name)
    assert card is not None and card.heads is not None
    origins = card.heads.origins()
    assert {t for t, o in origins.items() if o == "trained"} == TRAINED[name]
    derived = {t for t, o in origins.items() if o == "derived"}
    assert derived == {
        "Intensity", "SST", "SST5", "TDT", "EmoBank-V", "VADER-Amazon", "VADER-Movie", "VADER-NYT", "VADER-Tweets",
        "GoEmotions",
    } - TRAINED[name]  # fmt: skip
    assert {task.name for task in card_tasks(name)} == set(origins)
    assert resolve_engine(name, "auto") == "heads"


def test_short_names_mean_bundled_models_of_the_same_tasks_and_the_default_is_one_of_them() -> None:
    assert SHORT_NAMES.keys() == {"fast", "llm"} and set(SHORT_NAMES.values()) < set(BUNDLED)
    assert {task.name for task in card_tasks("fast")} == {task.name for task in card_tasks("llm")}
    assert DEFAULT_MODEL in BUNDLED and model_folder("runs/mine") == Path("runs/mine")


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLED)
def test_it_tells_joy_from_anger(name: str) -> None:
    texts = ["I am so happy today, best day of my life!", "I am furious, this is disgusting", "so sad, I miss her"]
    frame = emollm.annotate(texts, model=name, progress=False)
    assert frame["error"].isna().all()
    assert frame["ei_reg_joy"].idxmax() == 0 and frame["ei_reg_anger"].idxmax() == 1
    assert frame["ei_reg_sadness"].idxmax() == 2 and frame["v_reg"].idxmax() == 0
    assert "joy" in frame["e_c"][0] and "anger" in frame["e_c"][1] and "sadness" in frame["e_c"][2]


@pytest.mark.parametrize("name", [name for name in BUNDLED if "Intensity" in TRAINED[name]])
def test_an_intensity_is_low_where_the_emotion_is_absent(name: str) -> None:
    texts = ["I am so happy today, best day of my life!", "I am furious, this is disgusting"]
    frame = emollm.annotate(texts, model=name, progress=False)
    assert frame["intensity_anger"][0] < 0.15 < 0.4 < frame["intensity_anger"][1]
    assert frame["intensity_joy"][1] < 0.15 < 0.4 < frame["intensity_joy"][0]

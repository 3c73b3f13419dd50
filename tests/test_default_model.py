"""The bundled default model: what ships, that it answers, and what it says of itself."""

from __future__ import annotations

import json

import pytest

import emollm
from emollm.core.bases import BASES, DEFAULT_MODEL, model_folder
from emollm.core.card import card_of, card_tasks
from emollm.scoring.heads.weights import load_bank
from emollm.scoring.open import resolve_engine

FOLDER = model_folder(DEFAULT_MODEL)


def test_it_is_small_and_holds_weights_and_no_text() -> None:
    assert {p.name for p in FOLDER.iterdir()} == {"README.md", "affect.json", "heads.safetensors", "run.json"}
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 4_000_000
    card = card_of(DEFAULT_MODEL)
    assert card is not None and card.heads is not None and card.base.name in BASES and card.name == DEFAULT_MODEL
    assert load_bank(FOLDER, card.heads).weight_OF.shape[0] >= 17
    told = (FOLDER / "affect.json").read_text() + (FOLDER / "run.json").read_text()
    assert "/home/" not in told and "/work" not in told and "/tmp" not in told


def test_its_tasks_are_trained_or_derived_and_its_engine_is_heads() -> None:
    card = card_of(DEFAULT_MODEL)
    assert card is not None and card.heads is not None
    origins = card.heads.origins()
    assert {t for t, o in origins.items() if o == "trained"} == {"EI-reg", "EI-oc", "V-reg", "V-oc", "E-c"}
    assert {t for t, o in origins.items() if o == "derived"} == {
        "SST", "SST5", "TDT", "EmoBank-V", "VADER-Amazon", "VADER-Movie", "VADER-NYT", "VADER-Tweets", "GoEmotions",
    }  # fmt: skip
    assert {task.name for task in card_tasks(DEFAULT_MODEL)} == set(origins)
    assert resolve_engine(DEFAULT_MODEL, "auto") == "heads"


def test_its_card_tells_the_metrics_that_were_measured() -> None:
    card = card_of(DEFAULT_MODEL)
    assert card is not None and card.heads is not None
    readme = (FOLDER / "README.md").read_text()
    held_out = json.loads((FOLDER / "run.json").read_text())["summary"]["held_out"]
    for task, metric in (("EI-reg", "pearson"), ("V-reg", "pearson"), ("E-c", "jaccard")):
        assert f"{held_out[task][metric]:.3f}"[1:] in readme, task


@pytest.mark.slow
def test_asked_without_a_name_it_tells_joy_from_anger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMOLLM_MODEL", raising=False)
    texts = ["I am so happy today, best day of my life!", "I am furious, this is disgusting", "so sad, I miss her"]
    frame = emollm.annotate(texts, progress=False)
    assert frame["error"].isna().all()
    assert frame["ei_reg_joy"].idxmax() == 0 and frame["ei_reg_anger"].idxmax() == 1
    assert frame["ei_reg_sadness"].idxmax() == 2 and frame["v_reg"].idxmax() == 0
    assert "joy" in frame["e_c"][0] and "anger" in frame["e_c"][1] and "sadness" in frame["e_c"][2]

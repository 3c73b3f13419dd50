"""FeatureSpec hidden states: early exit, padding and pooling, on every kind of backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from emollm.core.errors import ModelError
from emollm.core.heads_card import FeatureSpec, Prompt
from emollm.models.load import LoadedModel, load_base
from emollm.scoring.heads.backbone import Backbone, PostEncoder, named_emoji
from tests.scoring.heads.conftest import BACKBONES, Load
from tests.tiny import Encoder, Family, tiny_model

POSTS = ("Glad.", "the train is late AGAIN and nobody says a word, I could scream", "so so", "what a day :)")
PROMPT = Prompt(prefix="Tweet:", suffix="\nThe writer feels")
READINGS = (
    FeatureSpec(layer=1, pooling="last"),
    FeatureSpec(layer=1, pooling="mean"),
    FeatureSpec(layer=1, pooling="first"),
)


def features(loaded: LoadedModel, backbone: Backbone, posts: tuple[str, ...]) -> np.ndarray:
    encode = PostEncoder(loaded, PROMPT)
    with torch.inference_mode():
        return backbone.features(encode.batch([encode(post) for post in posts], "cpu"), READINGS).numpy()


@pytest.mark.parametrize("family", BACKBONES)
def test_early_exit_gives_the_states_of_a_full_pass_at_that_layer(backbone: Load, family: str) -> None:
    loaded = backbone(family)
    whole = features(loaded, Backbone(loaded.model, loaded.card.base.architecture), POSTS)
    cut = Backbone(loaded.model, loaded.card.base.architecture, depth=1)
    assert len(cut.blocks) == 1
    # Not to the bit: a BLAS may sum in another order where its buffers lie differently.
    np.testing.assert_allclose(features(loaded, cut, POSTS), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", BACKBONES)
def test_a_layer_above_those_that_are_read_is_not_run_and_the_gradients_stay(
    backbone: Load, family: str, checkpointing: bool
) -> None:
    loaded = backbone(family)
    if checkpointing:
        loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    loaded.model.train()
    encode, whole = PostEncoder(loaded, PROMPT), Backbone(loaded.model, loaded.card.base.architecture)
    batch, runs = encode.batch(encode.many(POSTS), "cpu"), []
    whole.blocks[1].register_forward_hook(lambda *_: runs.append(1))

    def gradients(layers: list[int]) -> list[np.ndarray]:
        torch.manual_seed(0)  # of dropout
        loaded.model.zero_grad()
        with torch.enable_grad():
            whole.states(batch, layers)[1].square().sum().backward()
        return [p.grad.numpy().copy() for p in whole.blocks[0].parameters() if p.grad is not None]

    expected = gradients([1, 2])
    assert runs and expected and any(grad.any() for grad in expected)
    runs.clear()
    for mine, theirs in zip(gradients([1]), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    assert not runs


@pytest.mark.parametrize("family", BACKBONES)
def test_the_states_are_those_that_transformers_reports(backbone: Load, family: str) -> None:
    loaded = backbone(family)
    encode, backbone = PostEncoder(loaded, PROMPT), Backbone(loaded.model, loaded.card.base.architecture)
    prompt = encode(POSTS[1])
    with torch.inference_mode():
        theirs = backbone.module(input_ids=torch.tensor([prompt.ids]), output_hidden_states=True).hidden_states[1][0]
        ours = backbone.features(encode.batch([prompt], "cpu"), READINGS)[0]
    start = len(prompt.prefix)
    expected = [theirs[-1], theirs[start : start + len(prompt.post)].mean(0), theirs[0]]
    np.testing.assert_allclose(ours.numpy(), torch.cat(expected).numpy(), atol=1e-5)


@pytest.mark.parametrize("family", BACKBONES)
def test_answers_do_not_depend_on_other_posts_of_the_batch(backbone: Load, family: str) -> None:
    loaded = backbone(family)
    backbone = Backbone(loaded.model, loaded.card.base.architecture)
    together = features(loaded, backbone, POSTS)
    alone = np.concatenate([features(loaded, backbone, (post,)) for post in POSTS])
    np.testing.assert_allclose(together, alone, atol=2e-5)


def test_a_bert_reads_posts_between_its_own_tokens(backbone: Load) -> None:
    loaded = backbone("bert")
    ids = PostEncoder(loaded, Prompt())("so glad").ids
    assert (ids[0], ids[-1]) == (loaded.tokenizer.cls_token_id, loaded.tokenizer.sep_token_id)
    assert loaded.card.base.architecture == "encoder"


def test_a_layer_that_is_not_there_is_refused(backbone: Load) -> None:
    with pytest.raises(ModelError, match="read layer 3, but the backbone has 2 layers"):
        Backbone(backbone("llama").model, "decoder", depth=3)


def test_an_emoji_is_read_as_its_name_and_letters_stay() -> None:
    named = named_emoji("so \U0001f602 \U0001f44d\U0001f3fd caf\u00e9 \u2014 \u4f60\u597d \u2764\ufe0f")
    assert named.split() == [
        "so", "face", "with", "tears", "of", "joy", "thumbs", "up", "sign", "caf\u00e9", "\u2014", "\u4f60\u597d",
        "heavy", "black", "heart",
    ]  # fmt: skip


@pytest.mark.parametrize("family", BACKBONES)
def test_only_the_layers_that_are_read_are_loaded(tmp_path: Path, family: Family | Encoder) -> None:
    folder = str(tiny_model(family, tmp_path))
    whole, cut = load_base(folder), load_base(folder, depth=1, dtype=torch.bfloat16)
    assert cut.card.base == whole.card.base  # the fingerprint is that of the whole model
    architecture, specs = whole.card.base.architecture, [FeatureSpec(layer=1, pooling="mean")]
    one, other = (Backbone(loaded.model, architecture) for loaded in (whole, cut))
    assert (len(one.blocks), len(other.blocks)) == (2, 2 if architecture == "encoder-decoder" else 1)
    encode = PostEncoder(whole, Prompt())
    batch = encode.batch(encode.many(["what a quiet day", "so it goes"]), "cpu")
    with torch.no_grad():
        expected, found = (backbone.features(batch, specs) for backbone in (one, other))
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1 * float(expected.abs().max()))

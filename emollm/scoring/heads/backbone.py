"""Features of posts: pooled hidden states of selected layers of a base model's backbone.

Works with decoders, with the encoder of an encoder-decoder, and with encoders (BERT, RoBERTa, MiniLM). The layers
above the deepest feature layer are dropped, and the vocabulary head is never run.

Shapes: B posts of a batch, T tokens of the longest, D hidden size, F features (feature_specs times D).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from emollm.core.encoding import EncodedPrompt, PromptEncoder
from emollm.core.errors import ModelError
from emollm.core.heads_card import FeatureSpec, Prompt
from emollm.core.prompts import Layout, Pieces, Post, with_surroundings
from emollm.models.load import LoadedModel, base_of, max_tokens


class Batch(NamedTuple):
    """A batch of posts, padded on the right: padding does not change the states of earlier or masked tokens."""

    ids_BT: torch.Tensor
    mask_BT: torch.Tensor
    post_BT: torch.Tensor
    """1 for tokens of the post, over which means are computed."""
    last_B: torch.Tensor
    """Position of each prompt's last token."""


class PostEncoder:
    """Posts to token ids, with the prompt around them."""

    def __init__(self, loaded: LoadedModel, prompt: Prompt) -> None:
        self._prompt = prompt
        self._pad = loaded.tokenizer.pad_token_id
        self._encoder = PromptEncoder(
            loaded.tokenizer,
            Layout(closing="", bos=loaded.card.layout.bos),
            max_post_tokens=loaded.card.max_post_tokens,
            is_encoder_decoder=loaded.card.base.architecture != "decoder",
            max_tokens=max_tokens(loaded.model),
        )

    def __call__(self, text: str) -> EncodedPrompt:
        return self.many([text])[0]

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each post, not cut at the limit."""
        named = self._prompt.emoji == "named"
        return self._encoder.count([named_emoji(text) for text in texts] if named else texts)

    def many(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        return self.posts([Post(text) for text in texts])

    def posts(self, posts: Sequence[Post]) -> list[EncodedPrompt]:
        """The prompts of posts with what stands beside them, of which those pieces are read that the prompt names."""
        return self._encoder.prompts([prompt_pieces(self._prompt, post) for post in posts])

    def batch(self, prompts: Sequence[EncodedPrompt], device: str) -> Batch:
        lengths = np.array([len(prompt) for prompt in prompts])
        starts = np.array([len(prompt.prefix) + prompt.num_before for prompt in prompts])
        ends = np.array([len(prompt.prefix) + len(prompt.post) - prompt.num_behind for prompt in prompts])
        places = np.arange(lengths.max())
        mask = places < lengths[:, None]
        ids = np.full(mask.shape, self._pad, dtype=np.int64)
        ids[mask] = np.fromiter(chain.from_iterable(prompt.ids for prompt in prompts), np.int64, lengths.sum())
        post = (places >= starts[:, None]) & (places < ends[:, None])
        arrays = (ids, mask.astype(np.int64), post.astype(np.int64), lengths - 1)
        return Batch(*(torch.from_numpy(array).to(device) for array in arrays))


def prompt_pieces(prompt: Prompt, post: Post) -> Pieces:
    """The prompt of a post: of what stands beside it, the pieces that `prompt` names."""
    if prompt.emoji == "named":
        post = Post(*map(named_emoji, post))
    context = post.context if "context" in prompt.beside else ""
    target = post.target if "target" in prompt.beside else ""
    if not (context or target):
        return Pieces(prompt.prefix, f" {post.text}", prompt.suffix)
    # Without words of its own before the post, the context would run into it.
    name = prompt.prefix if prompt.prefix or not context else " Text:"
    return with_surroundings(Pieces("", f" {post.text}", prompt.suffix), name, context, target)


def named_emoji(text: str) -> str:
    """The text with each emoji replaced with its Unicode name; skin tones and joiners are removed."""
    return text if text.isascii() else _EMOJI.sub(_name, text)


# Pictographs and symbols, with their joiners and modifiers; letters and punctuation of any script stay.
_EMOJI = re.compile("[\u2190-\u2bff\ufe0f\u200d\U0001f000-\U0001faff]")


def _name(match: re.Match[str]) -> str:
    character = match.group()
    is_symbol = unicodedata.category(character) == "So"
    return f" {unicodedata.name(character, '').lower()} " if is_symbol else " "


class Backbone:
    """The part of a model that computes hidden states; it shares the model's weights."""

    def __init__(self, model: Any, architecture: str, *, depth: int | None = None) -> None:
        """`depth` is the deepest layer that is needed; None: all. The layers above it are dropped from `model`."""
        self.lm = lm = base_of(model)
        self.module: nn.Module = {
            "decoder": lambda: lm.get_decoder(), "encoder-decoder": lambda: lm.get_encoder(), "encoder": lambda: lm,
        }[architecture]()  # fmt: skip
        self.blocks = _blocks(self.module, lm)
        self._is_decoder = architecture == "decoder"
        if depth is not None:
            self._check_depth(depth)
            del self.blocks[depth:]
        self.hidden_size: int = lm.config.hidden_size

    def _check_depth(self, depth: int) -> None:
        if depth > len(self.blocks):
            raise ModelError(f"the heads read layer {depth}, but the backbone has {len(self.blocks)} layers")

    def states(self, batch: Batch, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """The hidden states [B, T, D] after each of these layers. Gradients flow, unless switched off outside."""
        self._check_depth(max(layers))
        # A decoder needs no mask for padding on the right, and is faster without one; the positions of OPT and BLOOM,
        # which are derived from the mask, stay the same.
        inputs = {"input_ids": batch.ids_BT}
        if self._is_decoder:
            inputs["use_cache"] = False  # type: ignore[assignment]
        else:
            inputs["attention_mask"] = batch.mask_BT
        with _caught(self.blocks, layers) as caught, suppress(_Enough):
            self.module(**inputs)
        return {layer: caught[layer] for layer in layers}

    def features(self, batch: Batch, feature_specs: Sequence[FeatureSpec]) -> torch.Tensor:
        """[B, F], float32."""
        states = self.states(batch, sorted({feature_spec.layer for feature_spec in feature_specs}))
        return torch.cat([pool(states[r.layer], r.pooling, batch) for r in feature_specs], dim=1)


def pool(states_BTD: torch.Tensor, pooling: str, batch: Batch) -> torch.Tensor:
    """[B, D], float32."""
    match pooling:
        case "last":
            return states_BTD[torch.arange(len(states_BTD)), batch.last_B].float()
        case "first":
            return states_BTD[:, 0].float()
        case _:
            of_post_BT1 = batch.post_BT[:, :, None].to(states_BTD.dtype)
            # A post with only characters that a tokenizer drops has no token.
            count_B1 = of_post_BT1.float().sum(dim=1).clamp(min=1)
            return (states_BTD * of_post_BT1).float().sum(dim=1) / count_B1


@torch.inference_mode()
def pooled_states(
    backbone: Backbone, batch: Batch, feature_specs: Sequence[FeatureSpec]
) -> Mapping[FeatureSpec, NDArray[np.float32]]:
    """[B, D] for each feature_spec: the candidate features."""
    states = backbone.states(batch, sorted({feature_spec.layer for feature_spec in feature_specs}))
    return {r: pool(states[r.layer], r.pooling, batch).cpu().numpy() for r in feature_specs}


def _blocks(module: nn.Module, lm: Any) -> nn.ModuleList:
    """The list of layers, under any name in the model's family."""
    for candidate in module.modules():
        if isinstance(candidate, nn.ModuleList) and len(candidate) == lm.config.num_hidden_layers:
            return candidate
    raise ModelError(f"{type(lm).__name__} has no list of {lm.config.num_hidden_layers} layers to read heads from")


class _Enough(Exception):  # noqa: N818  it is no error
    """The deepest layer that is read has run."""


@contextmanager
def _caught(blocks: nn.ModuleList, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Collects the outputs of these layers, counted from 1, while the model runs inside the `with` block.

    The model is left by `_Enough` before a layer that none of them needs; not behind the deepest one, inside which
    gradient checkpointing would be interrupted.
    """
    caught: dict[int, torch.Tensor] = {}

    def catch(layer: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            caught[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    def leave(_module: Any, _inputs: Any) -> None:
        raise _Enough

    handles = [blocks[layer - 1].register_forward_hook(catch(layer)) for layer in layers]
    if max(layers) < len(blocks):
        handles.append(blocks[max(layers)].register_forward_pre_hook(leave))
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()

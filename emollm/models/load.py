"""Load base models and model directories, attach LoRA, save and verify."""

from __future__ import annotations

import hashlib
import inspect
import logging
import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

if not torch.cuda.is_available():
    # DeepSpeed, which transformers imports, warns on the terminal that it found no GPU unless told to look for none.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from emollm.core.bases import BASE_PREFIX, BASES, Architecture, model_folder
from emollm.core.card import AffectCard, BaseModelInfo, card_of, read_card
from emollm.core.encoding import PromptEncoder
from emollm.core.errors import ModelError
from emollm.models.embedded import embedded_base
from emollm.models.errors import model_errors
from emollm.models.tokenizer import load_tokenizer, own_tokenizer

# A bar for every file read and written would bury our own.
transformers_logging.disable_progress_bar()
# Two lines for each of its five tries to reach the hub; the error that follows says it once.
logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)

_ADAPTER_FILE = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to be scored or trained, with its tokenizer and card."""

    model: Any
    tokenizer: Any
    card: AffectCard
    folder: Path | None = None
    """The model directory it was loaded from; None of an untrained base."""

    @property
    def is_encoder_decoder(self) -> bool:
        return self.card.base.architecture == "encoder-decoder"


def locate_base(name: str) -> str:
    """Where transformers finds the base `name`: a local folder or a hub id.

    `name` is one of `BASES`, a folder, or a hub id `owner/model`. Raises ModelError listing the choices.
    """
    if name in BASES:
        base = BASES[name]
        return str(embedded_base(name, base.package)) if base.package else base.hub_id
    if Path(name).is_dir():
        return name
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    raise ModelError(f"unknown base model {name!r}; give a folder, a hub id, or one of: {', '.join(BASES)}")


def load_base(
    name: str, *, dtype: torch.dtype = torch.float32, device: str = "cpu", depth: int | None = None
) -> LoadedModel:
    """Load a base model under a fresh card: the project's own layout and tasks, nothing trained.

    With `depth`, only the blocks up to that layer, where that can be done: for heads, which read no other.
    """
    where = locate_base(name)
    # The fingerprint of a base from the hub needs all of its weights: it is loaded once, whole.
    if depth is not None and Path(where).is_dir():
        info, config = describe_base(name)
        if _is_cut(config, depth):
            model, tokenizer = _load_weights(where, name, dtype=dtype, device=device, config=config)
            return LoadedModel(model, tokenizer, AffectCard(name=name, base=info))
    model, tokenizer = _load_weights(where, name, dtype=dtype, device=device)
    info = _base_info(name, architecture_of(model.config), weights_fingerprint(model))
    return LoadedModel(model, tokenizer, AffectCard(name=name, base=info))


def _is_cut(config: Any, depth: int) -> bool:
    """Set the settings of a model to fewer layers, if it is of a kind whose layers are all that depends on them."""
    if config.is_encoder_decoder or config is not config.get_text_config() or depth >= config.num_hidden_layers:
        return False
    config.num_hidden_layers = depth
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:depth]
    return True


def _base_info(name: str, architecture: Architecture, fingerprint: str) -> BaseModelInfo:
    licence = BASES[name].licence if name in BASES else "see the base model"
    return BaseModelInfo(name=name, architecture=architecture, licence=licence, fingerprint=fingerprint)


def load_model(model: str, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> LoadedModel:
    """Load a model directory (LoRA merged in memory), the bundled default model, or an untrained base: a name in
    `BASES`, or `base:` and a folder or hub id. Heads are loaded separately (`heads.bank.load_bank`).

    Raises ModelError if the folder has no valid card, its weights do not load, or its adapter was trained on
    another base.
    """
    card = card_of(model)
    if card is None:
        return load_base(model.removeprefix(BASE_PREFIX), dtype=dtype, device=device)
    folder = model_folder(model)
    if card.adapter is None:
        weights, tokenizer = _load_weights(str(folder), model, dtype=dtype, device=device)
        return LoadedModel(weights, tokenizer, card, folder)

    # An adapter is merged in float32: in bf16, deltas below 2**-9 of a weight would vanish.
    is_heads = card.adapter == "heads"
    depth = card.heads.depth if is_heads and card.heads else None
    base = load_base(card.base.name, dtype=dtype if is_heads else torch.float32, device=device, depth=depth)
    _check_base(model, card, base)
    if is_heads:
        return LoadedModel(base.model, base.tokenizer, card, folder)

    merged = attach_adapter(base, model).merge_and_unload()
    tokenizer = _tokenizer_of(model, card) if own_tokenizer(folder, card) else base.tokenizer
    return LoadedModel(merged.to(dtype).eval(), tokenizer, card, folder)


def _check_base(model: str, card: AffectCard, base: LoadedModel) -> None:
    if base.card.base.fingerprint != card.base.fingerprint:
        raise ModelError(
            f"{model} is made for {card.base.name} with weights {card.base.fingerprint}, "
            f"but {card.base.name} here has {base.card.base.fingerprint}; get the base it was trained on"
        )


def attach_adapter(base: LoadedModel, model: str, *, trainable: bool = False) -> Any:
    """The base's model with the adapters of the model directory `model` (peft), which may be trained further.

    Raises ModelError if they do not load, or were trained on another base.
    """
    from peft import PeftModel

    card = card_of(model)
    assert card is not None and card.adapter == "lora"
    _check_base(model, card, base)
    folder = model_folder(model)
    if not (folder / _ADAPTER_FILE).is_file():
        # peft would look for it on the hub.
        raise ModelError(f"the adapter in {model} does not load: there is no {_ADAPTER_FILE}; copy the folder whole")
    with model_errors(f"the adapter in {model} does not load"), warnings.catch_warnings():
        # peft asks transformers by an old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return PeftModel.from_pretrained(base.model, str(folder), is_trainable=trainable)


def _load_weights(where: str, name: str, *, dtype: torch.dtype, device: str, config: Any = None) -> tuple[Any, Any]:
    """`config` None: the one that lies with the weights; with fewer layers, those that it lacks are not read."""
    with model_errors(f"cannot load {name}"), _without_load_report():
        config = config or AutoConfig.from_pretrained(where)
        auto, options = auto_class(config)
        # safetensors only: a pickle from a stranger runs code.
        model, found = auto.from_pretrained(
            where, config=config, use_safetensors=True, dtype=dtype, output_loading_info=True, **options
        )
    if missing := sorted(found["missing_keys"]):
        raise ModelError(f"cannot load {name}: its files lack the weights {', '.join(missing[:3])}")
    return model.to(device).eval(), load_tokenizer(where, name, architecture_of(config))


@contextmanager
def _without_load_report() -> Iterator[None]:
    """transformers prints a table about weights of the file that the model does not use, such as BERT's pooler."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def auto_class(config: Any) -> tuple[Any, dict[str, Any]]:
    """The transformers class for this configuration, and further arguments for it."""
    architecture = architecture_of(config)
    if architecture == "encoder":
        return AutoModel, {"add_pooling_layer": False} if _can_have_pooler(config) else {}
    return AutoModelForSeq2SeqLM if architecture == "encoder-decoder" else AutoModelForCausalLM, {}


def architecture_of(config: Any) -> Architecture:
    """What kind of model it is, by its settings."""
    if config.is_encoder_decoder:
        return "encoder-decoder"
    # Made to fill gaps: it writes nothing, but heads can read it.
    fills_gaps = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    return "encoder" if fills_gaps else "decoder"


def _can_have_pooler(config: Any) -> bool:
    """Whether the class takes `add_pooling_layer`: BERT's pooler is trained for a task that is not ours."""
    return "add_pooling_layer" in inspect.signature(AutoModel._model_mapping[type(config)].__init__).parameters


def describe_base(name: str) -> tuple[BaseModelInfo, Any]:
    """The card entry of a base model and its settings, from the headers of its files: no weight is loaded.

    Raises ModelError as `load_base` does.
    """
    where = locate_base(name)
    with model_errors(f"cannot load {name}"):
        config = AutoConfig.from_pretrained(where)
        auto, options = auto_class(config)
        with torch.device("meta"):
            model = auto.from_config(config, **options)
        digest = _stored_fingerprint(Path(where), model) if Path(where).is_dir() else None
    if digest is None:
        return load_base(name).card.base, config
    return _base_info(name, architecture_of(config), digest), config


def _stored_fingerprint(folder: Path, model: torch.nn.Module) -> str | None:
    """As `weights_fingerprint`, of the files in a folder; None where their names are not the model's own."""
    stored: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as opened:
            stored.update(dict.fromkeys(opened.keys(), path))
    digest = hashlib.sha256()
    prefix = f"{model.base_model_prefix}."
    for name, parameter in sorted(model.named_parameters()):
        # A base class saves its own weights without the prefix that a class around it gives them.
        found = next((n for n in (name, name.removeprefix(prefix), f"{prefix}{name}") if n in stored), None)
        if found is None:
            return None
        with safe_open(stored[found], "pt") as opened:
            part = opened.get_slice(found)
            shape = tuple(part.get_shape())
            values = part[: -(-32 // math.prod(shape[1:]))].flatten() if shape else opened.get_tensor(found).flatten()
        if shape != tuple(parameter.shape):
            return None
        _take_parameter(digest, name, shape, values)
    return digest.hexdigest()[:16]


def _take_parameter(digest: Any, name: str, shape: tuple[int, ...], values: torch.Tensor) -> None:
    head = values[:32].to("cpu", torch.bfloat16).view(torch.int16)
    digest.update(f"{name}{shape}".encode() + head.numpy().tobytes())


def weights_fingerprint(model: torch.nn.Module) -> str:
    """16 hex digits over the name, shape and first 32 values (as bfloat16) of every parameter.

    Equal for a model however it is stored, sharded or cast; cheap for 13B parameters.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        _take_parameter(digest, name, tuple(parameter.shape), parameter.detach().flatten()[:32])
    return digest.hexdigest()[:16]


def attach_lora(model: Any, *, rank: int, alpha: int, dropout: float, first_layer: int = 1) -> Any:
    """The model with trainable low-rank adapters on all its linear layers but the vocabulary head (peft).

    `first_layer` leaves the layers below it (counted from 1) as they are; the backward pass ends there.
    """
    from peft import LoraConfig, get_peft_model

    task_type = {
        "decoder": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM", "encoder": "FEATURE_EXTRACTION",
    }[architecture_of(model.config)]  # fmt: skip
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none", task_type=task_type,
        target_modules="all-linear" if first_layer == 1 else linears_from(model, first_layer),
    )  # fmt: skip
    return get_peft_model(model, config)


def linears_from(model: torch.nn.Module, first_layer: int) -> list[str]:
    """Names of the linear layers in blocks `first_layer` (counted from 1) and above. Raises ModelError if none."""
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    # The blocks are the first numbered modules on the way to a layer: model.layers.14.mlp.up_proj.
    blocks = {name: re.search(r"\.(\d+)\.", name) for name in names}
    found = [name for name, block in blocks.items() if block and int(block[1]) + 1 >= first_layer]
    if not found:
        raise ModelError(f"--lora-first-layer {first_layer}: the base model has fewer layers")
    return found


def base_of(model: Any) -> Any:
    """The language model itself, with its adapters in it if it has any."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def prompt_encoder(loaded: LoadedModel) -> PromptEncoder:
    """The encoder that the model's card describes: the same for training, scoring and serving."""
    return _encoder(loaded.tokenizer, loaded.card, max_tokens(loaded.model))


def load_encoder(model: str) -> PromptEncoder:
    """The same of a model directory whose weights are elsewhere: reads its card and its tokenizer, or its base's."""
    card = read_card(model_folder(model))
    return _encoder(_tokenizer_of(model, card), card)


def _tokenizer_of(model: str, card: AffectCard) -> Any:
    """Of a model directory, or of its base if it has none of its own."""
    folder = model_folder(model)
    where = str(folder) if own_tokenizer(folder, card) else locate_base(card.base.name)
    return load_tokenizer(where, model, card.base.architecture)


def _encoder(tokenizer: Any, card: AffectCard, most: int | None = None) -> PromptEncoder:
    return PromptEncoder(
        tokenizer,
        card.layout,
        max_post_tokens=card.max_post_tokens,
        is_encoder_decoder=card.base.architecture == "encoder-decoder",
        max_tokens=most,
    )


def max_tokens(model: Any) -> int | None:
    """What the model can read at most; None where its positions have no end (T5, BLOOM), or where it is not loaded."""
    return None if model is None else getattr(model.config.get_text_config(), "max_position_embeddings", None)

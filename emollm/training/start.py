"""Going on from a model directory, `--start-from`: its base, its adapter and the way it reads a post are kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from emollm.core.bases import DEFAULT_BASE, anywhere, model_folder, model_key
from emollm.core.card import AffectCard, card_of
from emollm.core.errors import ConfigError
from emollm.core.options import with_values
from emollm.models.errors import model_errors
from emollm.training.options import TrainConfig


def start_card(config: TrainConfig) -> AffectCard | None:
    """The card of the model that training goes on from; None for a run that begins at its base.

    Raises ConfigError if that model has no adapter, and ModelError if there is no such model.
    """
    if config.start_from is None:
        return None
    card = card_of(config.start_from)
    if card is None or card.adapter != "lora":
        raise ConfigError(
            f"--start-from {config.start_from}: it has no adapter to go on from; name one trained with --method lora"
        )
    return card


def with_start(config: TrainConfig) -> TrainConfig:
    """The options with what the model that training goes on from decides: base, adapter and token limit."""
    card = start_card(config)
    if card is None:
        return config
    assert config.start_from is not None
    if config.base != DEFAULT_BASE and model_key(config.base) != model_key(card.base.name):
        raise ConfigError(f"--start-from {config.start_from} is made for {card.base.name}; --base is {config.base}")
    with model_errors(f"the adapter in {config.start_from} does not load"):
        adapter = json.loads((model_folder(config.start_from) / "adapter_config.json").read_text(encoding="utf-8"))
        rank, alpha = adapter["r"], adapter["lora_alpha"]
    return with_values(
        config,
        start_from=anywhere(config.start_from),
        base=card.base.name,
        method="lora",
        lora_rank=rank,
        lora_alpha=alpha,
        max_post_tokens=card.max_post_tokens,
    )


def copy_adapter(config: TrainConfig, folder: Path) -> None:
    """Put the adapter, and the tokenizer if it has its own, of the model gone on from into a new model directory."""
    assert config.start_from is not None
    from emollm.models.tokenizer import TOKENIZER_FILES

    for pattern in ("adapter_*", *TOKENIZER_FILES):
        for path in sorted(model_folder(config.start_from).glob(pattern)):
            shutil.copyfile(path, folder / path.name)

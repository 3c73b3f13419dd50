"""Going on from a model directory, `--start-from`: its base, its adapter and the way it reads a post are kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from emollm.core.bases import DEFAULT_BASE, anywhere, model_folder
from emollm.core.card import AffectCard, card_of
from emollm.core.errors import ConfigError
from emollm.core.options import with_values
from emollm.training.options import TrainConfig

_KEPT_FILES = ("adapter_*", "tokenizer*")


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
    if config.base not in (DEFAULT_BASE, card.base.name):
        raise ConfigError(f"--start-from {config.start_from} is made for {card.base.name}; --base is {config.base}")
    adapter = json.loads((model_folder(config.start_from) / "adapter_config.json").read_text(encoding="utf-8"))
    return with_values(
        config,
        start_from=anywhere(config.start_from),
        base=card.base.name,
        method="lora",
        lora_rank=adapter["r"],
        lora_alpha=adapter["lora_alpha"],
        max_post_tokens=card.max_post_tokens,
    )


def copy_adapter(config: TrainConfig, folder: Path) -> None:
    """Put the adapter, and the tokenizer if it has its own, of the model gone on from into a new model directory."""
    assert config.start_from is not None
    for pattern in _KEPT_FILES:
        for path in sorted(model_folder(config.start_from).glob(pattern)):
            shutil.copyfile(path, folder / path.name)

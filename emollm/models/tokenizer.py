"""The tokenizer of a base model or of a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from emollm.core.card import AffectCard
from emollm.core.errors import ModelError
from emollm.models.errors import model_errors

TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "merges.txt", "special_tokens_map.json")
"""Patterns of the files of a tokenizer, of any family."""


def own_tokenizer(folder: Path, card: AffectCard) -> bool:
    """Whether a model directory has a tokenizer of its own; else it has its base's.

    One with whole weights always has. Heads and adapters on an embedded base have none.
    """
    return card.adapter is None or _has_files(folder)


def load_tokenizer(where: str, name: str, architecture: str, *, local_files_only: bool = False) -> Any:
    """The tokenizer in a folder or of a hub id, with a token to pad with; `name` is what errors call the model.

    Raises ModelError if it does not load, or cannot end an answer.
    """
    folder = Path(where)
    if folder.is_dir() and not _has_files(folder):
        # transformers makes an empty tokenizer of some families, to which every word is unknown.
        raise ModelError(f"cannot load the tokenizer of {name}: {where} has none; copy its tokenizer files there")
    with model_errors(f"cannot load the tokenizer of {name}"):
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=local_files_only)
    if tokenizer.eos_token_id is None and architecture != "encoder":
        raise ModelError(f"the tokenizer in {where} has no end token; a model cannot learn to stop without one")
    if tokenizer.pad_token_id is None:
        # Padding is masked everywhere, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for pattern in TOKENIZER_FILES for path in folder.glob(pattern))

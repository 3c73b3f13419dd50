"""`affect.json`: what a model directory must record so that every later step asks it in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from emollm.core.bases import BASE_PREFIX, BASES, BUNDLED, SHORT_NAMES, Architecture, model_folder
from emollm.core.calibration import Calibration
from emollm.core.errors import ModelError, did_you_mean
from emollm.core.frozen import Frozen
from emollm.core.heads_card import HeadsCard
from emollm.core.prompts import LAYOUTS, Layout
from emollm.core.tasks import ANY_POST, TASKS, Task, clashing_columns

CARD_FILE = "affect.json"


ASKED = tuple(task for task in TASKS.values() if task.name != ANY_POST)
"""The tasks that a language model can be asked without training; `ANY_POST` needs trained heads."""


class BaseModelInfo(Frozen):
    name: str
    """Registry name, hub id or folder that the weights came from."""
    architecture: Architecture
    licence: str
    fingerprint: str
    """`models.weights_fingerprint` of the base; an adapter is attached to no other."""


class AffectCard(Frozen):
    """The card of a model directory; see ARCHITECTURE.md, "A model directory travels"."""

    schema_version: Literal[1] = 1
    name: str
    base: BaseModelInfo
    adapter: Literal["lora", "heads"] | None = None
    """What the folder adds to the base. lora: adapters. heads: heads only. None: the folder has full weights."""
    layout: Layout = LAYOUTS["emollm"]
    tasks: tuple[Task, ...] = ASKED
    """The tasks it was trained on, with labels in order, ranges and wording."""
    max_post_tokens: int = Field(512, ge=1)
    """A longer post is truncated here and flagged, never dropped."""
    heads: HeadsCard | None = None
    """Heads on hidden layers, if any, for `--engine heads`."""
    calibration: dict[str, Calibration] = Field(default_factory=dict)
    """By engine: maps that `emollm calibrate` fitted on validation rows; `open_scorer` applies them."""
    training: dict[str, Any] = Field(default_factory=dict)
    """How it was trained: rows of each split, options of the run. Empty for an untrained base."""

    @model_validator(mode="after")
    def _heads_belong_to_tasks(self) -> Self:
        if clash := clashing_columns(self.tasks):
            raise ValueError(clash)
        tasks = {task.name: task for task in self.tasks}
        trained = {head.key for head in self.heads.heads if head.derivation is None} if self.heads else set()
        for head in self.heads.heads if self.heads else ():
            if head.task not in tasks or head.key not in tasks[head.task].keys:
                raise ValueError(f"there is a head for {head.task} {head.emotion or ''}, which the card's tasks lack")
            for source in head.sources:
                if source not in trained:
                    raise ValueError(f"{head.key} is derived from {source}, which has no head")
        return self


def read_card(folder: Path) -> AffectCard:
    """The card of a model directory; raises ModelError if there is none or it is not valid."""
    path = folder / CARD_FILE
    try:
        return AffectCard.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} has no {CARD_FILE}, so it is not a model directory of emollm; "
            f"make one: emollm train --base {folder} --data DATA --out DIR"
        ) from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except (ValidationError, UnicodeDecodeError) as error:
        first = str(error).replace("\n", " ")[:300]
        raise ModelError(f"{path} is not a valid card: {first}") from None


def card_tasks(model: str) -> tuple[Task, ...]:
    """The tasks that a model directory, or an untrained base, can be asked; reads no weights.

    `model` is as for `models.load_model`. Raises ModelError if there is no such model directory.
    """
    card = card_of(model)
    return card.tasks if card else ASKED


def card_of(model: str) -> AffectCard | None:
    """The card of a model directory, or of the bundled default model; None for an untrained base, which has no card."""
    if model in BASES or model.startswith(BASE_PREFIX):
        return None
    folder = model_folder(model)
    if not folder.is_dir():
        choices = ", ".join((*SHORT_NAMES, *BUNDLED, *BASES))
        hint = did_you_mean([model], (*SHORT_NAMES, *BUNDLED, *BASES))
        raise ModelError(f"no model directory at {model}; {hint}train one, or name a model or base: {choices}")
    return read_card(folder)


def write_card(folder: Path, card: AffectCard) -> None:
    (folder / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")

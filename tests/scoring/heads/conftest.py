"""Tiny backbones of every kind, and heads for them with random weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from emollm.core.heads_card import FeatureSpec, Head, HeadsCard, Prompt
from emollm.core.tasks import PROFILE, TASKS, Kind, Task
from emollm.models.load import LoadedModel, load_base
from emollm.scoring.heads.derive import derived_heads, with_derived
from emollm.scoring.heads.weights import HeadWeights
from tests.tiny import ENCODERS, FAMILIES, Encoder, Family, tiny_model

torch.set_num_threads(1)

BACKBONES = (*FAMILIES, *ENCODERS)
Load = Callable[[str], LoadedModel]


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """`backbone("bert")`: a fresh copy each time, as early exit cuts layers off."""
    root = tmp_path_factory.mktemp("backbones")

    def load(family: Family | Encoder) -> LoadedModel:
        return load_base(str(tiny_model(family, root / family)))

    return load  # type: ignore[return-value]


def random_heads(
    loaded: LoadedModel, feature_specs: tuple[FeatureSpec, ...], seed: int = 0
) -> tuple[LoadedModel, HeadWeights]:
    """The model under a card with heads for the five tasks of SemEval, and those that follow from them."""
    tasks = tuple(TASKS[name] for name in PROFILE)
    heads, count = [], 0
    for task in tasks:
        for emotion in task.emotions or (None,):
            wide = len(task.labels) or 1
            heads.append(_head(task, emotion, tuple(range(count, count + wide))))
            count += wide
    derived = derived_heads(heads)
    rng = np.random.default_rng(seed)
    size = loaded.model.config.hidden_size * len(feature_specs)
    head_weights = HeadWeights(
        rng.normal(0, 0.3 / size**0.5, (count, size)).astype(np.float32), rng.normal(0.5, 0.1, count).astype(np.float32)
    )
    heads_card = HeadsCard(
        prompt=Prompt(prefix="Tweet:", suffix="\nThe writer feels"),
        feature_specs=feature_specs,
        heads=(*heads, *derived),
    )
    card = loaded.card.model_copy(
        update={"adapter": "heads", "heads": heads_card, "tasks": with_derived(tasks, derived)}
    )
    return LoadedModel(loaded.model, loaded.tokenizer, card), head_weights


def _head(task: Task, emotion: str | None, outputs: tuple[int, ...]) -> Head:
    ones, zeros = (1.0,) * len(outputs), (0.0,) * len(outputs)
    match task.kind:
        case Kind.REGRESSION:
            fitted = {"slope": ones, "offset": zeros, "spread": ((0.2, 0.1), (0.8, 0.2))}
        case Kind.ORDINAL:
            fitted = {"slope": (4.0,), "offset": tuple(float(k) for k in range(len(task.classes) - 1))}
        case _:
            fitted = {"slope": ones, "offset": zeros, "thresholds": (0.5,) * len(outputs)}
    return Head.model_validate(
        {"task": task.name, "emotion": emotion, "origin": "trained", "outputs": outputs, **fitted}
    )

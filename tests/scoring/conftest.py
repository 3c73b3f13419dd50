"""Models shared by the tests of scoring, each made once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from emollm.models.load import LoadedModel, load_base
from tests.tiny import FAMILIES, Family, Spelling, tiny_model

torch.set_num_threads(1)

Load = Callable[..., LoadedModel]


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """`load("llama")`, `load("t5", "metaspace-digits")`: a tiny random model, the same object each time."""
    root = tmp_path_factory.mktemp("tiny")
    loaded: dict[str, LoadedModel] = {}

    def load(family: Family, spelling: Spelling | None = None) -> LoadedModel:
        name = f"{family}-{spelling}"
        if name not in loaded:
            loaded[name] = load_base(str(tiny_model(family, root / name, spelling=spelling)))
        return loaded[name]

    return load


@pytest.fixture(params=FAMILIES)
def tiny(request: pytest.FixtureRequest, load: Load) -> LoadedModel:
    """One tiny model of each family."""
    return load(request.param)

"""Linear layers in eight-bit integers: close to the float ones, and every architecture answers with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from emollm.errors import ConfigError
from emollm.int8 import Int8Linear
from emollm.models import load_base, save_model
from emollm.precision import resolve_precision
from emollm.prompts import Question
from emollm.scoring.scorer import open_scorer
from emollm.tasks import TASKS
from tests.tiny import FAMILIES, Family, tiny_model


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_is_within_a_hundredth_and_an_outlier_harms_its_own_token_alone(bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 64, bias=bias)
    inputs = torch.randn(2, 5, 96)
    inputs[0, 0] = 0.0
    expected, gave = linear(inputs), Int8Linear(linear)(inputs)
    assert gave.shape == expected.shape
    assert (gave - expected).norm() < 0.015 * expected.norm()
    inputs[1, 4, 3] = 1000.0
    torch.testing.assert_close(Int8Linear(linear)(inputs)[0], gave[0], rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_answers(tmp_path: Path, family: Family) -> None:
    base = load_base(str(tiny_model(family, tmp_path / "base")))
    folder = tmp_path / "model"
    folder.mkdir()
    save_model(folder, base)
    questions = [Question(TASKS["V-reg"], "what a day :)"), Question(TASKS["V-oc"], "the train is late")]
    scorers = [open_scorer(str(folder), precision=precision) for precision in ("float32", "int8")]
    number, rank = ([scorer.score(questions)[i].probabilities for scorer in scorers] for i in range(2))
    for exact, rounded in (number, rank):
        assert exact.keys() == rounded.keys()
        assert list(rounded.values()) == pytest.approx(
            list(exact.values()), abs=0.15
        )  # the logits of a tiny model are drawn wide
        assert rounded != exact


def test_it_is_for_cpus() -> None:
    with pytest.raises(ConfigError, match="int8 is for CPUs; on a GPU take bf16"):
        resolve_precision("int8", "cuda")

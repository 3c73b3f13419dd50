"""ZeRO 0, 2 and 3, with offload, full and LoRA, on two processes and on one: the same losses, the same checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from emollm.core.errors import ModelError
from tests.training.ranks import options, run_cases, run_training

pytestmark = pytest.mark.slow

CASES = {
    f"{method}-{stage}-{offload}": {"method": method, "zero_stage": stage, "offload": offload}
    for method, stage, offload in (
        ("full", 0, "none"),
        ("full", 2, "none"),
        ("full", 2, "optimizer"),
        ("full", 3, "all"),
        ("lora", 3, "none"),
        ("lora", 3, "all"),
    )
}
SAVED = {"checkpoint_steps": 2, "num_evaluations": 2, "validation_rows": 10, "metrics_every": 1, "metric_rows": 2}


@pytest.fixture(scope="module")
def on_two(tiny_base: Path, sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case on two processes, four steps, with the checkpoints after two."""
    out = tmp_path_factory.mktemp("sharded")
    cases = [
        (name, json.loads(options(tiny_base, sample_data, **case, **SAVED).model_dump_json(exclude={"cluster"})))
        for name, case in CASES.items()
    ]
    mp.spawn(run_cases, (str(out / "store"), cases, str(out)), nprocs=2)
    return out


@pytest.fixture(scope="module")
def on_one(tiny_base: Path, sample_data: Path, alone: None) -> Any:
    """The same runs on one process without ZeRO: the losses to be met."""
    return {
        method: run_training(options(tiny_base, sample_data, method=method, zero_stage=0, **SAVED), None)
        for method in ("full", "lora")
    }


def saved_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Each weight, flat, of the shards that the two ranks wrote."""
    shards: dict[str, dict[int, torch.Tensor]] = {}
    for rank in range(2):
        for key, shard in load_file(folder / f"part-{rank}-of-2.safetensors").items():
            name, kind, start = key.rsplit(":", 2)
            if kind == "weight":
                shards.setdefault(name, {})[int(start)] = shard
    return {name: torch.cat([mine[start] for start in sorted(mine)]) for name, mine in shards.items()}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_does_and_one_goes_on_from_their_checkpoint(
    tiny_base: Path, sample_data: Path, on_two: Path, on_one: Any, name: str
) -> None:
    expected = on_one[CASES[name]["method"]]
    gave = json.loads((on_two / f"{name}.json").read_text())
    assert gave["losses"] == pytest.approx(expected.losses, rel=1e-4)
    (loss, scores) = gave["evaluations"][0]
    assert loss == pytest.approx(expected.evaluations[0].loss, rel=1e-4)
    assert set(scores) == {"EI-reg", "EI-oc", "V-reg", "V-oc", "E-c"}
    for task, values in expected.evaluations[0].scores.items():
        assert scores[task] == pytest.approx(values, abs=1e-2), task

    # The best weights alone, each rank its shard of them, are those of the state of that step.
    best, state = (saved_weights(on_two / name / f"{kind}-00000002") for kind in ("best", "step"))
    torch.testing.assert_close(best, state, rtol=0, atol=0)

    # One process, at another stage, does the two steps that are left: as if it had done all four.
    other = {0: 3, 2: 0, 3: 2}[CASES[name]["zero_stage"]]
    config = options(tiny_base, sample_data, method=CASES[name]["method"], zero_stage=other, checkpoint_steps=100)
    rest = run_training(config, on_two / name)
    assert rest.resumed_at == 2
    assert rest.losses == pytest.approx(expected.losses[2:], rel=1e-4)


def test_a_checkpoint_of_another_base_is_refused(tiny_base: Path, sample_data: Path, on_two: Path, on_one: Any) -> None:
    with pytest.raises(ModelError, match=r"belongs to a base model with weights .* use the base it was started with"):
        run_training(options(tiny_base, sample_data), on_two / "full-2-none", base="0123456789abcdef")

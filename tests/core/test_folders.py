"""Output folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from emollm.core.errors import DataError
from emollm.core.folders import new_folder, read_run, write_run


def finish(path: Path, content: str, *, overwrite: bool = False) -> None:
    with new_folder(path, overwrite=overwrite) as folder:
        (folder / "a.txt").write_text(content)
        assert not (path / "a.txt").exists() or (path / "a.txt").read_text() != content
        write_run(folder, job="test", config={"x": 1})


def test_a_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    finish(tmp_path / "deep" / "out", "one")
    run = read_run(tmp_path / "deep" / "out")
    assert run is not None
    assert run["config"] == {"x": 1}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_failing_block_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fill_half() -> None:
        with new_folder(out) as folder:
            (folder / "half.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_half()
    assert list(tmp_path.iterdir()) == []
    finish(out, "one")
    with pytest.raises(OSError, match="disk"), new_folder(out, overwrite=True):
        raise OSError("disk full")
    assert (out / "a.txt").read_text() == "one"
    assert list(tmp_path.iterdir()) == [out]


def test_what_is_there_is_replaced_only_when_told_and_only_if_ours(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(out, "one")
    with pytest.raises(DataError, match="--overwrite"):
        finish(out, "two")
    finish(out, "two", overwrite=True)
    assert (out / "a.txt").read_text() == "two"
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="not written by emollm"):
        finish(home, "oops", overwrite=True)
    assert (home / "thesis.tex").read_text() == "years of work"


def test_a_parent_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write under"):
        finish(tmp_path / "file" / "out", "one")

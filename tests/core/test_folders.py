"""Output folders appear whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from emollm.core import folders
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


def test_an_existing_folder_is_replaced_only_with_overwrite_and_only_if_ours(tmp_path: Path) -> None:
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


def test_the_second_of_two_runs_does_not_replace_the_first_and_keeps_its_own_result(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def run_while_another_finishes() -> None:
        with new_folder(out) as folder:
            (folder / "a.txt").write_text("second")
            finish(out, "first")

    for n in (2, 3):
        with pytest.raises(DataError, match=f"written by another run meanwhile; this run's result is in .*out-{n}:"):
            run_while_another_finishes() if n == 2 else second_again(out)
        assert (out / "a.txt").read_text() == "first"
        assert (tmp_path / f"out-{n}" / "a.txt").read_text() == "second"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "out-2", "out-3"]


def second_again(out: Path) -> None:
    first = out.rename(out.with_name("aside"))
    with new_folder(out) as folder:
        (folder / "a.txt").write_text("second")
        first.rename(out)


@pytest.mark.parametrize("at_once", [True, False])
def test_replacing_never_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    out = tmp_path / "out"
    finish(out, "one")
    if not at_once:
        monkeypatch.setattr(folders, "_exchange", lambda *_: False)  # as on a filesystem that cannot
    seen = []
    real = shutil.rmtree

    def look(path: Path, **options: bool) -> None:
        seen.append((out / "a.txt").read_text())
        real(path, **options)

    monkeypatch.setattr(shutil, "rmtree", look)
    finish(out, "two", overwrite=True)
    assert seen[-1] == "two" and (out / "a.txt").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]

    def killed(self: Path, target: Path) -> Path:
        if target == out and not out.exists():
            raise KeyboardInterrupt
        return rename(self, target)

    rename = Path.rename
    monkeypatch.setattr(Path, "rename", killed)
    if at_once:
        finish(out, "three", overwrite=True)
        assert (out / "a.txt").read_text() == "three"
    else:
        with pytest.raises(KeyboardInterrupt):
            finish(out, "three", overwrite=True)
        assert (tmp_path / "out.previous" / "a.txt").read_text() == "two"

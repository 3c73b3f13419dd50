"""Output folders that appear complete or not at all, and the record of the run that wrote them."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emollm.core.errors import DataError


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Fill a temporary folder next to `path`; it is renamed to `path` only if the block succeeds.

    Raises DataError before any work if `path` exists and `overwrite` is off, or its parent cannot be written; and at
    the end if another run has written `path` meanwhile: the result is then kept next to it.
    """
    path = path.absolute()
    check_new(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    except OSError as error:
        raise DataError(f"cannot write under {path.parent}: {error.strerror}") from None
    try:
        partial.chmod(0o777 & ~_umask())  # mkdtemp makes it private; the result is an ordinary folder
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _take_name(partial, path, overwrite=overwrite)


def _take_name(filled: Path, path: Path, *, overwrite: bool) -> None:
    """Rename a folder to `path`; raise DataError, keeping it under another name, if that was taken meanwhile."""
    try:
        filled.rename(path)  # fails if there is a file, or a folder that is not empty
        return
    except OSError:
        if not path.exists():
            raise
    try:
        check_new(path, overwrite=overwrite)
    except DataError:
        kept = next(k for n in itertools.count(2) if not (k := path.with_name(f"{path.name}-{n}")).exists())
        filled.rename(kept)
        raise DataError(
            f"{path} was written by another run meanwhile; this run's result is in {kept}: rename it, or pass "
            "--overwrite next time"
        ) from None
    if not _exchange(filled, path):
        # A kill between the two renames leaves the old folder as `.previous`, and the new one hidden.
        previous = path.with_name(f"{path.name}.previous")
        shutil.rmtree(previous, ignore_errors=True)
        path.rename(previous)
        filled.rename(path)
        filled = previous
    shutil.rmtree(filled)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names atomically; False if the system or the filesystem cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE: linux/fs.h
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def check_new(path: Path, *, overwrite: bool) -> None:
    """Raise DataError if `path` is taken: by anything, or by what `overwrite` must not replace."""
    if path.is_dir() and overwrite and not _is_ours(path):
        raise DataError(f"{path} was not written by emollm, so --overwrite leaves it alone; choose another --out")
    if path.exists() and not (overwrite and path.is_dir()):
        raise DataError(f"{path} exists; choose another --out, or pass --overwrite to replace it")


def _is_ours(path: Path) -> bool:
    return read_run(path) is not None or not any(path.iterdir())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


RUN_FILE = "run.json"
HIDDEN_RUN_FILE = "_run.json"
"""Its name in a folder that is itself a Parquet data set: readers of those skip names with an underscore."""


def write_run(folder: Path, *, job: str, config: Mapping[str, Any], file_name: str = RUN_FILE, **facts: Any) -> None:
    """Write `run.json`, the marker that is written last: options, versions and summary of the run."""
    write_json(folder / file_name, {"job": job, **run_facts(), "config": config, **facts})


def read_run(folder: Path) -> dict[str, Any] | None:
    """What `write_run` wrote, or None where no run has finished."""
    for name in (RUN_FILE, HIDDEN_RUN_FILE):
        with contextlib.suppress(OSError, ValueError):
            return json.loads((folder / name).read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    return None


def run_facts() -> dict[str, Any]:
    """Versions, code revision, command and time."""
    versions = {}
    for package in ("emollm", "ray", "torch", "deepspeed", "transformers", "peft", "pyarrow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "versions": versions,
    }


def git_revision() -> str | None:
    """The commit of the code that runs, with `-dirty` where files differ from it; None outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")

"""The folder of a running training, hidden next to the future model directory, from which a stopped run continues.

.NAME.training/
    run.json            the options: the same command continues the run, another one is refused
    checkpoints/        see checkpoints.py
    tokens/             see row_tokens.py
    start/              see starting_heads.py
    metrics.jsonl       one line per step
    evaluations.jsonl   one line per evaluation
    lock                held by the driver, so that two drivers cannot share a run
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emollm.core.bases import model_key
from emollm.core.digest import file_sha256
from emollm.core.errors import DataError
from emollm.core.folders import write_json
from emollm.training.options import FREE_TO_CHANGE, TrainConfig

METRICS_FILE = "metrics.jsonl"
EVALUATIONS_FILE = "evaluations.jsonl"


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.tokens = path / "tokens"
        """See row_tokens.py."""
        self.start = path / "start"
        """See starting_heads.py."""
        self.metrics = path / METRICS_FILE
        self.evaluations = path / EVALUATIONS_FILE
        self.model = path / "model"
        """The model directory before it is renamed."""
        self.outcome = path / "outcome.json"
        self.error = path / "error.json"
        """A permanent error: a worker that finds this file ends."""

    def has_checkpoint(self) -> bool:
        return any(self.checkpoints.glob("step-*"))

    def cut_back(self, step: int) -> None:
        """Drop the lines of steps after `step`, which will be repeated, and a line that was truncated by a crash."""
        for path in (self.metrics, self.evaluations):
            lines = [line for line in read_lines(path) if line["step"] <= step]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file, up to the first truncated one; empty if there is no file."""
    lines: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError, ValueError):
        for line in path.read_text(encoding="utf-8").splitlines():
            lines.append(json.loads(line))
    return lines


def append_line(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@contextlib.contextmanager
def run_folder(config: TrainConfig) -> Iterator[RunFolder]:
    """The folder of this run, new or left by the same command. Removed at the end, unless the block fails and there
    is a checkpoint to continue from.

    Raises DataError if another process trains into the same folder, or if a run with other options was stopped there
    and `overwrite` is off.
    """
    from filelock import FileLock, Timeout

    out = config.out.absolute()
    run = RunFolder(out.with_name(f".{out.name}.training"))
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run.path / "lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise DataError(f"another process is training {out} now; wait for it, or choose another --out") from None
    except OSError as error:
        raise DataError(f"cannot write under {out.parent}: {error.strerror}") from None
    try:
        _continue_or_start(run, config)
        run.error.unlink(missing_ok=True)
        yield run
    except BaseException:
        if not run.has_checkpoint():
            shutil.rmtree(run.path, ignore_errors=True)
        raise
    else:
        shutil.rmtree(run.path, ignore_errors=True)
    finally:
        lock.release()


def _continue_or_start(run: RunFolder, config: TrainConfig) -> None:
    """Check that an existing run has the same options, or clear it."""
    asked = fingerprint(config)
    record = run.path / "run.json"
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        before = None
    if before is not None and before != asked and run.has_checkpoint():
        different = [name for name in sorted({*before, *asked}) if before.get(name) != asked.get(name)]
        if not config.overwrite:
            was = ", ".join(f"{name} {before.get(name)!r}, not {asked.get(name)!r}" for name in different[:4])
            raise DataError(
                f"{run.path} has a stopped run with {was}; repeat its command to continue it, "
                "pass --overwrite to discard it, or choose another --out"
            )
    if before != asked:
        for path in run.path.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_json(record, asked)


def fingerprint(config: TrainConfig) -> dict[str, Any]:
    """Everything that determines the result: options and data, but not workers and memory options."""
    options = json.loads(config.model_dump_json(exclude=set(FREE_TO_CHANGE)))
    assert config.data is not None
    data = {split: _hash(config.data / f"{split}.parquet") for split in ("train", "validation")}
    models = {name: model_key(options[name]) for name in ("base", "start_from") if options[name]}
    return {**options, **models, "teacher": [model_key(name) for name in config.teacher], "data": data}


def _hash(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except FileNotFoundError:
        return None

"""Checkpoints: the state with which a stopped run continues exactly, with any number of workers and ZeRO stage.

    step-00000120/
        part-0-of-2.safetensors     the first rank's shard of float32 weights and Adam's moments: NAME:KIND:START
        part-1-of-2.safetensors     the second's
        checkpoint.json             written last: where the run stood, shapes, the parts, their sizes and hashes
    best-00000100/                  the same for the weights only, in the type of the forward pass

The snapshot is taken at once, each rank copying what it holds; writing and hashing go on behind the training. What a
step holds, its learning rate and its dropout depend on the seed and the step alone, so no other state is needed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from emollm.core.digest import file_sha256
from emollm.core.errors import ModelError, TrainingError
from emollm.core.folders import write_json
from emollm.training.zero import Shard, read_state, read_weights, write_state, write_weights

MARKER = "checkpoint.json"
Kind = Literal["step", "best"]
"""A state from which to continue, or the final weights."""
_UNFINISHED = ".writing-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The position of a run."""

    step: int = 0
    evaluations: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    """Lowest validation loss so far."""
    since_best: int = 0
    """Number of evaluations after it."""

    def evaluated(self, loss: float) -> Position:
        better = math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss)
        return replace(
            self,
            evaluations=self.evaluations + 1,
            best_step=self.step if better else self.best_step,
            best_loss=loss if better else self.best_loss,
            since_best=0 if better else self.since_best + 1,
        )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    folder: Path
    position: Position
    base: str
    """Fingerprint of the base model's weights."""
    parts: Mapping[str, Mapping[str, Any]]
    shapes: Mapping[str, tuple[int, ...]]
    """Of the parameters."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A snapshot that is being written."""

    kind: Kind
    position: Position
    shapes: dict[str, tuple[int, ...]]
    part: Future[dict[str, Any]]


class Checkpoints:
    """The checkpoints of a run, from the view of one rank. All ranks must call the methods marked collective."""

    def __init__(
        self, folder: Path, *, base: str, keep: int, rank: int, world_size: int, on_note: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._base = base
        self._keep = keep
        self._rank = rank
        self._world_size = world_size
        self._on_note = on_note
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: list[_Pending] = []

    @property
    def is_writing(self) -> bool:
        """Whether this rank's part of a snapshot is still being written."""
        return not all(pending.part.done() for pending in self._pending)

    @property
    def is_pending(self) -> bool:
        """Whether a snapshot awaits `commit`."""
        return bool(self._pending)

    def newest(self) -> Checkpoint | None:
        """The newest intact checkpoint, as checked by rank 0. Collective.

        A truncated or changed one is skipped with a note. Raises ModelError if it belongs to another base model.
        """
        choice: list[Any] = [None]
        if self._rank == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            for leftover in self._folder.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(leftover)
            found = _newest_whole(self._folder, self._on_note)
            choice = [found]
        dist.broadcast_object_list(choice, src=0)
        checkpoint: Checkpoint | None = choice[0]
        if checkpoint is None:
            return None
        if checkpoint.base != self._base:
            raise ModelError(
                f"{checkpoint.folder} belongs to a base model with weights {checkpoint.base}, but the base here "
                f"has {self._base}; use the base it was started with, or remove {self._folder} to start over"
            )
        return checkpoint

    def load(self, engine: Any, checkpoint: Checkpoint) -> None:
        """Load weights and optimizer state into the engine. Collective."""
        write_state(engine, _reader(checkpoint), step=checkpoint.position.step)

    def load_weights(self, engine: Any, step: int) -> None:
        """Load the best weights, those after `step`, into the engine, without optimizer state. Collective."""
        write_weights(engine, _reader(read_checkpoint(self._folder / _name(step, "best"))))

    def save(self, engine: Any, position: Position) -> None:
        """Copy the engine's state and start writing it. Collective; waits for earlier snapshots."""
        self._start("step", position, ((shard, torch.float32) for shard in read_state(engine)))

    def save_best(self, engine: Any, position: Position) -> None:
        """The same for the weights only, for the end of the run. Collective."""
        self._start("best", position, ((shard, None) for shard in read_weights(engine)))

    def _start(self, kind: Kind, position: Position, shards: Iterable[tuple[Shard, torch.dtype | None]]) -> None:
        if any(pending.position != position for pending in self._pending):
            self.commit()
        mine, shapes = {}, {}
        for shard, dtype in shards:
            shapes[shard.name] = shard.shape
            for key, tensor in shard.tensors.items():
                copy = tensor.detach().to("cpu", dtype or tensor.dtype, copy=True)
                mine[f"{shard.name}:{key}:{shard.start}"] = copy.contiguous()
        folder = self._folder / (_UNFINISHED + _name(position.step, kind))
        path = folder / f"part-{self._rank}-of-{self._world_size}.safetensors"
        self._pending.append(_Pending(kind, position, shapes, self._writer.submit(_write_part, path, mine)))

    def commit(self) -> None:
        """Turn pending snapshots into checkpoints after every rank has written its part. Collective.

        Raises TrainingError on every rank if one could not write; earlier checkpoints stay intact.
        """
        waiting, self._pending = self._pending, []
        for pending in waiting:
            self._commit(pending)

    def _commit(self, pending: _Pending) -> None:
        position, name = pending.position, _name(pending.position.step, pending.kind)
        error = pending.part.exception()
        part: Any = f"{type(error).__name__}: {error}" if error else (pending.part.result(), pending.shapes)
        parts: list[Any] = [None] * self._world_size
        dist.all_gather_object(parts, part)
        failed: list[Any] = [next((p for p in parts if isinstance(p, str)), None)]
        if self._rank == 0:
            failed = [failed[0] or self._complete(position, name, parts)]
            if failed[0]:  # the partial checkpoint takes up disk space
                shutil.rmtree(self._folder / (_UNFINISHED + name), ignore_errors=True)
        dist.broadcast_object_list(failed, src=0)
        if failed[0]:
            raise TrainingError(
                f"cannot write the checkpoint of step {position.step} under {self._folder}: {failed[0]}; "
                "free some space, then run the same command again: it continues from the previous checkpoint"
            )

    def _complete(self, position: Position, name: str, written: list[tuple[dict[str, Any], Any]]) -> str | None:
        """Write the marker, rename, and remove old checkpoints; returns the error message, if any."""
        unfinished, finished = self._folder / (_UNFINISHED + name), self._folder / name
        parts = [part for part, _ in written]
        try:
            if missing := [part["file"] for part in parts if not (unfinished / part["file"]).is_file()]:
                return f"{', '.join(missing)} is not there; all nodes must share the folder of --out"
            marker = {
                "position": asdict(position),
                "base": self._base,
                "parts": {part.pop("file"): part for part in parts},
                "shapes": {name: shape for _, shapes in written for name, shape in shapes.items()},
            }
            write_json(unfinished / MARKER, marker)
            shutil.rmtree(finished, ignore_errors=True)
            unfinished.rename(finished)
            self._remove_old(position)
        except OSError as error:
            return f"{type(error).__name__}: {error}"
        return None

    def _remove_old(self, position: Position) -> None:
        """All checkpoints except the newest states and the weights that were best then and are best now."""
        states = finished_folders(self._folder)
        bests = {position.best_step}
        for path in states[-self._keep :]:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                bests.add(read_checkpoint(path).position.best_step)
        kept = {_name(step, "best") for step in bests if step is not None}
        outdated = [path for path in finished_folders(self._folder, "best") if path.name not in kept]
        for path in (*states[: -self._keep], *outdated):
            shutil.rmtree(path)


def finished_folders(folder: Path, kind: Kind = "step") -> list[Path]:
    """Folders of finished checkpoints, oldest first; they may be damaged."""
    return sorted(path for path in folder.glob(f"{kind}-*") if (path / MARKER).is_file())


def read_checkpoint(folder: Path) -> Checkpoint:
    """The content of the marker; raises OSError, ValueError, KeyError or TypeError if it is missing or invalid."""
    marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    shapes = {name: tuple(shape) for name, shape in marker["shapes"].items()}
    return Checkpoint(folder, Position(**marker["position"]), marker["base"], marker["parts"], shapes)


def damage(folder: Path) -> str | None:
    """The damage of a checkpoint, or None if every part exists with its size and hash."""
    try:
        checkpoint = read_checkpoint(folder)
        for name, part in checkpoint.parts.items():
            size = (folder / name).stat().st_size
            if size != part["bytes"]:
                return f"{name} has {size:,} bytes, not {part['bytes']:,}"
            if file_sha256(folder / name) != part["sha256"]:
                return f"{name} has changed since it was written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _newest_whole(folder: Path, on_note: Callable[[str], None]) -> Checkpoint | None:
    for path in reversed(finished_folders(folder)):
        reason = damage(path)
        if reason is None:
            return _without_lost_best(read_checkpoint(path))
        on_note(f"warning: the checkpoint {path} is damaged ({reason}); using the previous one")
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    return None


def _without_lost_best(checkpoint: Checkpoint) -> Checkpoint:
    """The best weights may be damaged as well: then the next evaluation becomes the best."""
    best = checkpoint.position.best_step
    if best is None or damage(checkpoint.folder.with_name(_name(best, "best"))) is None:
        return checkpoint
    return replace(checkpoint, position=replace(checkpoint.position, best_step=None, best_loss=None))


def _write_part(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        raise OSError(str(error)) from None
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _reader(checkpoint: Checkpoint) -> Callable[[str, str], torch.Tensor]:
    """Reads a tensor by parameter name and kind, assembled from its parts."""
    shards: dict[tuple[str, str], list[tuple[int, Any, str]]] = {}
    for file_name in checkpoint.parts:
        file: Any = safe_open(checkpoint.folder / file_name, framework="pt")
        for key in file.keys():  # noqa: SIM118  safe_open is not a mapping
            name, kind, start = key.rsplit(":", 2)
            shards.setdefault((name, kind), []).append((int(start), file, key))

    def read(name: str, kind: str) -> torch.Tensor:
        found = sorted(shards.get((name, kind), []), key=lambda shard: shard[0])
        flat = [file.get_tensor(key) for _, file, key in found]
        shape = checkpoint.shapes.get(name, ())
        if not flat or sum(map(len, flat)) != math.prod(shape):
            raise TrainingError(
                f"{checkpoint.folder} has no {kind} of the parameter {name}, or a part of it alone; was it written by "
                "another version?"
            )
        return torch.cat(flat).reshape(shape)

    return read


def _name(step: int, kind: Kind = "step") -> str:
    return f"{kind}-{step:08}"

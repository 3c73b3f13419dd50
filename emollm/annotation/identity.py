"""What makes two annotation jobs the same: only the same job may continue in an output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import emollm
from emollm.annotation.options import AnnotateConfig
from emollm.core.bases import BASE_PREFIX, model_folder
from emollm.core.tasks import Task
from emollm.data.files.inputs import InputFile

_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16

Identity = dict[str, Any]
"""Named parts, so that a refusal can say which of them differ."""


def identify(
    config: AnnotateConfig, files: Sequence[InputFile], tasks: Sequence[Task], *, engine: str, scorer: str | None
) -> Identity:
    """The parts of a job that decide what its rows hold; not where, how wide or in which portions it runs.

    `engine` is the one that answers, never `auto`; `scorer` names what stands in for an engine, if anything does.
    """
    return {
        "model": model_digest(config.model),
        "tasks": [task.name for task in tasks],
        "wording": _digest([task.model_dump(mode="json") for task in tasks]),
        "engine": scorer or engine,
        "precision": config.known_precision(engine),
        "exact": config.exact,
        "code": emollm.__version__,
        "input": input_digest(files),
        "columns": [config.id_column, config.text_column, *config.carry],
        "max_posts": config.max_posts,
    }


def input_digest(files: Sequence[InputFile]) -> str:
    """Of where the files lie, how large they are and when they were changed; not of what they hold."""
    return _digest([(f.path, f.size, f.mtime_ns) for f in files])


def fingerprint(identity: Identity) -> str:
    return _digest(identity)


def differences(before: Identity, now: Identity) -> str:
    """The parts that differ, in words; values are told where they are short."""
    parts = []
    for name in now:
        if before.get(name) != now[name]:
            told = name in ("tasks", "engine", "precision", "exact", "code", "columns", "max_posts")
            parts.append(f"{name} ({_shown(before.get(name))} then, {_shown(now[name])} now)" if told else name)
    return ", ".join(parts)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def model_digest(model: str) -> str:
    """A digest of a model directory's files, by content, so that a copy is the same model; of other names the name.

    Of files above a megabyte, 16 samples and the size: a change of training changes all weights.
    """
    folder = model_folder(model.removeprefix(BASE_PREFIX))
    if not folder.is_dir():
        return f"name:{model}"
    digest = hashlib.blake2b(digest_size=8)
    # run.json and metrics.jsonl tell of the training and not of the model.
    for file in sorted(p for p in folder.iterdir() if p.is_file() and p.name not in ("run.json", "metrics.jsonl")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        for chunk in _sampled(file, size):
            digest.update(chunk)
    return digest.hexdigest()


def _sampled(file: Path, size: int) -> list[bytes]:
    with file.open("rb") as opened:
        if size <= _SAMPLES * _SAMPLE_BYTES:
            return [opened.read()]
        chunks = []
        for i in range(_SAMPLES):
            opened.seek(i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            chunks.append(opened.read(_SAMPLE_BYTES))
        return chunks


def _digest(data: Any) -> str:
    return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=8).hexdigest()

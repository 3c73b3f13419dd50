"""The digests of a model directory and of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from emollm.core.bases import BASE_PREFIX, model_folder

_SAMPLES = 16
_SAMPLE_BYTES = 2**16
_NO_WEIGHTS = ("run.json", "metrics.jsonl", "evaluations.jsonl", "curves.png", "README.md")
"""Files that describe the training, not the model."""


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex; the file is not held in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_digest(model: str) -> str:
    """16 hex digits over the content of a model directory's files; `name:MODEL` for a base by name.

    Files larger than 1 MiB are sampled at 16 places: more training changes all weights.
    """
    folder = model_folder(model.removeprefix(BASE_PREFIX))
    if not folder.is_dir():
        return f"name:{model}"
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(p for p in folder.iterdir() if p.is_file() and p.name not in _NO_WEIGHTS):
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

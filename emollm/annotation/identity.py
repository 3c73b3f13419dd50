"""The identity of an annotation job: only the same job may continue in an output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import emollm
from emollm.annotation.options import AnnotateConfig
from emollm.core.digest import model_digest
from emollm.core.tasks import Task
from emollm.data.files.inputs import InputFile
from emollm.scoring.columns import OutputColumns
from emollm.scoring.extras import NO_EXTRAS, Extras
from emollm.scoring.open import resolve_engine

SCHEMA_KEY = b"emollm"
"""Of the metadata in a Parquet file's schema."""

Identity = dict[str, Any]
"""Named parts, so that a refusal can say which of them differ."""


def identify(
    config: AnnotateConfig, files: Sequence[InputFile], tasks: Sequence[Task], *, engine: str, scorer: str | None
) -> Identity:
    """The parts of a job that determine the content of its rows; not where, with how many actors or in which blocks.

    `engine` is the resolved engine, never `auto`; `scorer` is the name of the function that replaces it, if any.
    """
    return {
        "model": model_digest(config.model),
        "tasks": [task.name for task in tasks],
        "wording": _digest([task.model_dump(mode="json") for task in tasks]),
        "engine": scorer or engine,
        "precision": config.known_precision(engine),
        "exact": config.exact,
        "extras": {name: value for name, value in config.asked_extras().items() if value},
        "code": emollm.__version__,
        "input": input_digest(files),
        "columns": [config.id_column, config.text_column, *config.carry],
        **({"way": config.way} if any(task.way for task in tasks) else {}),
        **({"beside": list(config.beside)} if any(config.beside) else {}),
        "reading": [config.encoding, config.delimiter, *config.column_names],
        "max_posts": config.max_posts,
        **({"asked": [config.requests.api, *(["one prompt"] if config.one_prompt else [])]} if config.server else {}),
        **({"long": [config.long, config.max_windows]} if config.long != "cut" else {}),
    }


def file_metadata(config: AnnotateConfig, tasks: Sequence[Task]) -> dict[bytes, bytes]:
    """What a single file's schema says of how it was made, as an output folder's files do."""
    about = {
        "model": model_digest(config.model),
        "tasks": [task.name for task in tasks],
        "engine": resolve_engine(config.model, config.engine),
        "code": emollm.__version__,
        "definitions": [task.model_dump(mode="json") for task in tasks],
    }
    return {SCHEMA_KEY: json.dumps(about).encode()}


def input_digest(files: Sequence[InputFile]) -> str:
    """A digest of the files' paths, sizes and times of change, not of their content."""
    return _digest([(f.path, f.size, f.mtime_ns) for f in files])


def fingerprint(identity: Identity) -> str:
    return _digest(identity)


_TOLD = (
    "tasks", "engine", "precision", "exact", "extras", "code", "columns", "reading", "max_posts", "asked", "long",
    "way", "beside",
)  # fmt: skip
"""Parts of the identity whose values are shown if they differ; the others are digests."""


def differences(before: Identity, now: Identity) -> str:
    """The parts that differ, in words; values are included if they are short."""
    parts = []
    for name in now:
        if before.get(name) != now[name]:
            told = name in _TOLD
            parts.append(f"{name} ({_shown(before.get(name))} then, {_shown(now[name])} now)" if told else name)
    return ", ".join(parts)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _digest(data: Any) -> str:
    return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=8).hexdigest()


def output_columns(identity: Identity, extras: Extras = NO_EXTRAS) -> OutputColumns:
    """Which columns the job of this identity writes."""
    return OutputColumns(
        engine=identity["engine"],
        windows=identity.get("long", ("cut",))[0] == "windows",
        notes="beside" in identity,
        extras=extras,
    )

"""Answers by the hash of the request, in one SQLite file per machine, so that nothing is paid for twice.

SQLite can be shared by the processes of a machine; machines that share a folder have separate files.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from platform import node
from typing import Any

from emollm.core.answers import Answer
from emollm.core.errors import ResourceError

_log = logging.getLogger("emollm")

_AT_ONCE = 500
_BUSY_S = 60.0


class AnswerCache:
    """Answers of requests; a request may have several questions. For one thread at a time."""

    def __init__(self, folder: Path) -> None:
        """Raises ResourceError if the folder cannot be written."""
        self._told = False
        path = folder / f"{node() or 'local'}.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Each statement is a transaction of its own, so paid answers are kept after a crash.
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answers BLOB) WITHOUT ROWID")
        except (OSError, sqlite3.Error) as error:
            raise ResourceError(
                f"the cache of answers {path} cannot be written ({error}); name another folder with --requests.cache, "
                "or pass --requests.no-reuse"
            ) from None

    def get(self, keys: Iterable[bytes]) -> dict[bytes, list[Answer]]:
        """The cached answers."""
        found, wanted = {}, list(keys)
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            marks = ",".join("?" * len(part))
            rows = self._db.execute(f"SELECT key, answers FROM answers WHERE key IN ({marks})", part)
            found.update({bytes(key): _unpacked(packed) for key, packed in rows})
        return found

    def put(self, key: bytes, answers: Sequence[Answer]) -> None:
        """Keep them; a disk that is full costs the cache, and no answer."""
        try:
            self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, _packed(answers)))
        except sqlite3.Error as error:
            if not self._told:
                _log.warning("answers are no longer kept in the cache: %s", error)
            self._told = True


def _packed(answers: Sequence[Answer]) -> bytes:
    rows = [{name: v for name, v in asdict(answer).items() if v is not None and v is not False} for answer in answers]
    return zlib.compress(json.dumps(rows).encode())


def _unpacked(packed: bytes) -> list[Answer]:
    rows = json.loads(zlib.decompress(packed))
    return [Answer(**{"value": None, **{name: _as_value(value) for name, value in row.items()}}) for row in rows]


def _as_value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

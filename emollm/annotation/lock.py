"""One run at a time in an output: a file lock of the operating system if available, and always a heartbeat.

The file lock ends with its process, so a run that was killed can be continued at once. Some network filesystems do not
share locks between machines, and object stores have none: there a heartbeat shows that a run is alive, and a heartbeat
older than `STALE_S` that it is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emollm.annotation.output import OutputFolder
from emollm.core.errors import DataError

BEAT_S = 15.0
STALE_S = 90.0
_SETTLE_S = 2.0


class Lock:
    """Held while a run writes; call `check` before a step that must not happen twice."""

    def __init__(self, output: OutputFolder) -> None:
        self._output = output
        self._token = uuid.uuid4().hex
        self._file: int | None = None
        self._has_system_lock = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def take(self) -> None:
        """Raises DataError, naming the holder, if another run holds it."""
        output = self._output
        output.filesystem.create_dir(output.root, recursive=True)
        if output.is_local:
            self._file = self._lock_file(Path(output.lock))
        holder = output.read_json(output.lock)
        if holder and self._is_alive(holder):
            self._let_go()
            raise _refusal(output, holder)
        self._write()
        if not output.is_local:
            # If two runs found it free at the same time, the one that wrote last holds it.
            time.sleep(_SETTLE_S)
            self.check()
        self._thread.start()

    def _is_alive(self, holder: dict[str, Any]) -> bool:
        if self._has_system_lock and holder.get("host") == socket.gethostname():
            return False  # that process is gone, or we would not have its lock
        return time.time() - float(holder.get("beat", 0)) < STALE_S

    def _lock_file(self, path: Path) -> int:
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                raise _refusal(self._output, self._output.read_json(str(path)) or {}) from None
            except OSError:  # a filesystem without locks: the heartbeat has to do
                return file
            # The previous holder may have removed the file after we opened it and before we locked it.
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(file).st_ino:
                    self._has_system_lock = True
                    return file
            os.close(file)

    def check(self) -> None:
        """Raise DataError if another run has taken over because this one paused for longer than `STALE_S`."""
        holder = self._output.read_json(self._output.lock) or {}
        if holder.get("token") != self._token:
            raise _refusal(self._output, holder)

    def _write(self) -> None:
        beat = {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token, "beat": time.time()}
        data = (json.dumps(beat) + "\n").encode()
        if self._file is None:
            self._output.write_bytes(self._output.lock, data)
        else:  # into the file that is locked
            os.pwrite(self._file, data, 0)
            os.ftruncate(self._file, len(data))

    def _beat(self) -> None:
        while not self._done.wait(BEAT_S):
            with contextlib.suppress(OSError, DataError):
                self.check()
                self._write()

    def release(self) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(OSError, DataError):
            self.check()
            self._output.filesystem.delete_file(self._output.lock)
            self._output.remove_if_empty()
        self._let_go()

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


@contextlib.contextmanager
def locked(output: OutputFolder) -> Iterator[Lock]:
    """Hold the output's lock inside the block; raises DataError if another run has it."""
    lock = Lock(output)
    lock.take()
    try:
        yield lock
    finally:
        lock.release()


def _refusal(output: OutputFolder, holder: dict[str, Any]) -> DataError:
    ago = time.time() - float(holder.get("beat", time.time()))
    who = (
        f"process {holder.get('pid')} on {holder.get('host')}, last seen {ago:.0f} s ago" if holder else "its lock says"
    )
    return DataError(
        f"another run is writing {output.location} ({who}); wait for it, stop it, or choose another --out. If that "
        f"machine is gone, run this again in {STALE_S:.0f} s"
    )

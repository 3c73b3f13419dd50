"""Waiting in tests: for what comes, however slow the machine is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def wait_for(what: Callable[[], object], seconds: float = 300) -> None:
    """Until it is true; `seconds` only end a test that would never end."""
    give_up = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < give_up, "it did not come to that"
        time.sleep(0.1)


@contextmanager
def released_after(hold: Path, what: Callable[[], object]) -> Iterator[None]:
    """A file that others wait for is removed as soon as it is true."""

    def release() -> None:
        try:
            wait_for(what)
        finally:
            hold.unlink()

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield
    finally:
        thread.join()

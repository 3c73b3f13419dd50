"""Waiting in tests: for what comes, however slow the machine is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_for(what: Callable[[], T], seconds: float = 300, *, saying: Callable[[], object] = str) -> T:
    """Until it is true, which is then returned; `seconds` only end a test that would never end, `saying` why."""
    give_up = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < give_up, f"it did not come to that {saying()}"
        time.sleep(0.1)
    return found


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

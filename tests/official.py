"""Where the official corpora lie, whose rows are nobody's to copy: tests on them are skipped where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CORPORA = Path(os.environ.get("EMOLLM_CORPORA", Path(__file__).parents[2] / "shared" / "data"))


def corpus(name: str) -> Path:
    """The folder of a corpus; skips the test, and says what to set, where it is not."""
    if not (CORPORA / name).is_dir():
        pytest.skip(f"no {name} in {CORPORA}; set EMOLLM_CORPORA to the folder of the official corpora (docs/data.md)")
    return CORPORA / name

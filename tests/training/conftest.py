"""Fixtures of the tests that train in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch.distributed as dist


@pytest.fixture(scope="session")
def alone() -> Iterator[None]:
    """A process group of one. One for all tests: DeepSpeed keeps the first it meets, whoever destroys it."""
    os.environ["LOCAL_RANK"] = "0"
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    yield
    dist.destroy_process_group()
    del os.environ["LOCAL_RANK"]

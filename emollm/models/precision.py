"""The arithmetic of a model: which is fastest here, and what it means for the weights."""

from __future__ import annotations

import time
from typing import Literal

import torch

Resolved = Literal["float32", "bf16"]
DTYPES: dict[Resolved, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}
"""What weights are loaded as."""


def resolve_precision(precision: str, device: str) -> Resolved:
    """`float32` and `bf16` as asked; `auto`: bf16 where it is faster than float32.

    On a CPU that is measured (20 ms): some announce avx512_bf16 and multiply half as fast with it, others twice.
    In a process group rank 0 decides for all.
    """
    if precision == "auto":
        faster = torch.cuda.is_bf16_supported() if device != "cpu" else _bf16_is_faster_on_cpu()
        return "bf16" if _from_rank_0(faster, device) else "float32"
    assert precision in DTYPES  # the options allow no other
    return precision


def _bf16_is_faster_on_cpu() -> bool:
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(256, 576, dtype=dtype)
        b = torch.randn(576, 1536, dtype=dtype)
        times = []
        for _ in range(5):
            started = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - started)
        seconds[dtype] = min(times)
    # Autocast adds conversions: a small lead does not pay for them.
    return seconds[torch.bfloat16] * 1.2 < seconds[torch.float32]


def _from_rank_0(decision: bool, device: str) -> bool:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return decision
    flag = torch.tensor([int(decision)], device=device)
    torch.distributed.broadcast(flag, src=0)
    return bool(flag.item())

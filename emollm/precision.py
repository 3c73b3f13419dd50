"""Which arithmetic is fastest here: float32 or bfloat16."""

from __future__ import annotations

import time

import torch


def resolve_precision(precision: str, device: str) -> torch.dtype:
    """`float32` and `bf16` as asked; `auto`: bfloat16 where it is the faster of the two.

    On a CPU that is measured (20 ms): some announce avx512_bf16 and multiply half as fast with it, others twice.
    In a process group rank 0 decides for all.
    """
    if precision == "auto":
        faster = torch.cuda.is_bf16_supported() if device != "cpu" else _bf16_is_faster_on_cpu()
        precision = "bf16" if _from_rank_0(faster, device) else "float32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


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

"""The arithmetic of a model: a rule that gives the same answers on every machine, or what is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist

from emollm.models.device import resolve_device

Resolved = Literal["float32", "tf32", "bf16", "fp16"]
DTYPES: dict[Resolved, torch.dtype] = {
    "float32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16,
}  # fmt: skip
"""What weights are loaded as."""


def resolve_precision(
    precision: str, device: str, *, engine: str = "constrained", fitted: Resolved = "float32"
) -> Resolved:
    """The arithmetic that `auto` and `fastest` stand for on a device; any other is returned as it is.

    `auto` is what heads were `fitted` in for `heads` everywhere: bf16 changes 2.5% of the classes and sets of heads
    fitted in float32 (measured on one GPU). Else it is float32 on CPUs, bf16 on GPUs that have it in hardware, fp16 on
    older ones. `fastest` takes bf16 where it multiplies faster than float32, measured on the spot (20 ms on a CPU): the
    same command may give other answers elsewhere. In a process group rank 0 decides for all.
    """
    if precision == "auto":
        if engine == "heads":
            return fitted
        return "float32" if device == "cpu" else _half(device)
    if precision == "fastest":
        faster = _bf16_is_faster_on_cpu() if device == "cpu" else True
        # What was measured on rank 0.
        faster = _agreed(faster, device, lambda flag: dist.broadcast(flag, src=0))
        return _half(device) if faster else "float32"
    assert precision in DTYPES  # the options allow no other
    return precision


def training_precision(precision: str, device: str) -> Resolved:
    """The arithmetic of a training: `auto` is bf16 where every worker's GPU has it in hardware, else float32.

    Never fp16: it needs losses to be scaled, which the loop does not do. Collective where there is a process group.
    """
    if precision == "auto":
        has_bf16 = device != "cpu" and _half(device) == "bf16"
        return "bf16" if every_rank(has_bf16, device) else "float32"
    return resolve_precision(precision, device)


def resolve_here(precision: str, device: str, engine: str, fitted: Resolved) -> Resolved:
    """As `resolve_precision`, with the device that `auto` is in this process."""
    return resolve_precision(precision, resolve_device(device), engine=engine, fitted=fitted)


def set_matmul_precision(precision: Resolved) -> None:
    """TF32 where it was asked for, and nowhere else; for this whole process."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def every_rank(decision: bool, device: str) -> bool:
    """Whether it is so for all."""
    return _agreed(decision, device, lambda flag: dist.all_reduce(flag, op=dist.ReduceOp.MIN))


def _agreed(decision: bool, device: str, agree: Callable[[torch.Tensor], Any]) -> bool:
    """The decision of all ranks, which `agree` writes over each rank's own; without a process group, the own one."""
    if not (dist.is_available() and dist.is_initialized()):
        return decision
    # A group of CPUs, gloo's, has no GPU to reduce on.
    flag = torch.tensor([int(decision)], device="cpu" if dist.get_backend() == "gloo" else device)
    agree(flag)
    return bool(flag.item())


def _half(device: str) -> Resolved:
    if device == "cpu":
        return "bf16"
    # Older cards emulate bf16, at a fraction of the speed of float32.
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


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

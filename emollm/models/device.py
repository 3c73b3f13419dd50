"""Where a model runs, and how many tokens it takes at once there."""

from __future__ import annotations

import sys
from typing import Any

import torch

from emollm.core.errors import ResourceError

CPU_BATCH_TOKENS = 1024
"""2,048 took a tenth longer: it leaves the caches."""
GPU_BATCH_TOKENS = 131_072
"""The default model's backbone did 5,900 posts/s with 16,384, 8,500 with 65,536 and 9,400 with 262,144 (one H200)."""
_SHARE = 0.25
"""Of the free memory of a GPU, what the activations of a batch may take: the rest is for caches and fragmentation."""

_CPU_PASS_TOKENS = 48
"""What a pass costs besides its tokens, in tokens: reading the weights (135M parameters, one core)."""
_GPU_PASS_TOKENS = 10_800
_GPU_PASS_WEIGHTS = 3_980_000
"""On one H200 a pass of SmolLM2-135M, with so many weights per layer, cost 28.5 ms and 2.65 us per token, fitted to the
posts/s above: starting the kernels takes as long as 10,800 tokens. Larger layers take longer per token."""


def resolve_device(device: str = "auto") -> str:
    """`auto`: the GPU that PyTorch sees, else the CPU. Raises ResourceError for a GPU where it sees none."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ResourceError(f"--device {device}: PyTorch {torch.__version__} sees no GPU here; use --device cpu")
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def say_device(device: str) -> None:
    """One line on stderr where `auto` took a GPU."""
    if device != "cpu":
        name = torch.cuda.get_device_name(device)
        print(f"using the GPU ({name}); device='cpu' leaves it alone", file=sys.stderr, flush=True)


def default_batch_tokens(device: str, *, bytes_per_token: int) -> int:
    """Tokens that go through a model at once, padding included: 1,024 on a CPU, elsewhere by the free memory.

    `bytes_per_token` is what a token takes while it is in the model: `activation_bytes`.
    """
    if device == "cpu":
        return CPU_BATCH_TOKENS
    fitting = int(free_bytes(device) * _SHARE) // bytes_per_token
    return max(CPU_BATCH_TOKENS, min(GPU_BATCH_TOKENS, fitting))


def free_bytes(device: str) -> int:
    """Memory of a GPU that is free, what PyTorch holds and does not use included."""
    free, _total = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def pass_tokens(model: Any, device: str) -> int:
    """What a forward pass costs besides its tokens, in tokens: the padding that a further pass is worth."""
    if device == "cpu":
        return _CPU_PASS_TOKENS
    hidden, inner = _widths(model)
    return max(256, min(16_384, _GPU_PASS_TOKENS * _GPU_PASS_WEIGHTS // (hidden * (4 * hidden + 3 * inner))))


def activation_bytes(model: Any) -> int:
    """Bytes that a token takes in a forward pass without gradients: a few hidden and two inner states of one layer."""
    hidden, inner = _widths(model)
    size = next(model.parameters()).element_size()
    # Norms and rotary embeddings go through float32.
    return int(8 * hidden * 4 + 3 * inner * size)


def _widths(model: Any) -> tuple[int, int]:
    """Of hidden and of inner states."""
    config = model.config.get_text_config()
    hidden = int(config.hidden_size)
    return hidden, int(getattr(config, "intermediate_size", None) or getattr(config, "d_ff", None) or 4 * hidden)


def cache_bytes(model: Any) -> int:
    """Bytes that a token takes in the key-value cache of all layers."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * kept * size * next(model.parameters()).element_size())

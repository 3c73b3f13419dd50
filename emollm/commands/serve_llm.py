"""Serve a model directory with vLLM, for --engine server: emollm serve-llm MODEL_DIR"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from emollm.core.bases import model_folder
from emollm.core.card import AffectCard, read_card
from emollm.core.errors import ConfigError, ModelError
from emollm.core.options import Config, ModelRef, read_config

KEY_VARIABLE = "VLLM_API_KEY"
"""The variable from which vLLM reads the key that clients must send."""
_ROOM = 1024
"""Tokens in addition to the post: the longest instruction, and the answer."""
_CPU_BLOCK = 32
"""vLLM's CPU build caches prefixes in blocks of a multiple of this."""


class ServeLlmConfig(Config):
    """Serve a model directory with vLLM: LoRA adapters on their base model, with prefix caching.

    vLLM runs in a separate environment, since it needs an older transformers: `make vllm` creates one for CPUs.
    Arguments after `--` are passed to vLLM.
    """

    model: ModelRef
    """Model directory of a language model: full weights, merged or not, or a LoRA adapter."""
    host: str = "127.0.0.1"
    """Address to listen on. Any address other than loopback needs a key in $VLLM_API_KEY."""
    port: int = Field(8001, ge=1, le=65535)
    """Port to listen on."""
    python: Path | None = None
    """Python of the environment with vLLM. None: emollm/vllm in the user's cache folder, where `make vllm` installs it,
    else the `python` on the path."""
    gpus: int | None = Field(None, ge=0)
    """GPUs for tensor parallelism; 0: the CPU. None: 1 if there is an NVIDIA driver,
    else 0."""
    replicas: int = Field(1, ge=1)
    """Copies of the model behind one address, each with its own GPUs (data parallelism)."""
    max_tokens: int | None = Field(None, ge=64)
    """Longest prompt with its answer. None: the model's limit for a post, and 1,024 more."""
    alternatives: int = Field(20, ge=0)
    """Largest number of log-probabilities per token that requests may ask for."""
    memory_gib: float = Field(2.0, gt=0)
    """On a CPU: memory for the cache of keys and values, GiB."""
    show: bool = False
    """Print vLLM's command and exit."""


def main(argv: Sequence[str]) -> None:
    own, more = (list(argv), []) if "--" not in argv else (argv[: argv.index("--")], argv[argv.index("--") + 1 :])
    config = read_config(ServeLlmConfig, own, prog="serve-llm", bare=("model",))
    command, environment = vllm_command(config, more)
    if config.show:
        told = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
        print(" ".join([*told, shlex.join(command)]))
        return
    if not shutil.which(command[0]):
        raise ConfigError(f"no Python with vLLM at {command[0]}; run make vllm, or name one with --python")
    address = f"http://{config.host}:{config.port}/v1"
    print(
        f"starting vLLM; then: --engine server --server {address} --model {config.model}", file=sys.stderr, flush=True
    )
    os.execvpe(command[0], command, {**os.environ, **environment})


def vllm_command(config: ServeLlmConfig, more: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """The command and its environment variables. Raises ModelError or ConfigError for models that vLLM cannot serve."""
    from emollm.models.embedded import cache_folder

    folder = model_folder(config.model)
    card = read_card(folder)
    _check(config, card)
    made = cache_folder() / "vllm" / "bin" / "python"
    python = str(config.python or (made if made.is_file() else "python"))
    gpus = config.gpus if config.gpus is not None else int(shutil.which("nvidia-smi") is not None)
    command = [python, "-m", "vllm.entrypoints.openai.api_server", *_weights(folder, card)]
    command += ["--host", config.host, "--port", str(config.port)]
    command += ["--max-model-len", str(config.max_tokens or card.max_post_tokens + _ROOM)]
    command += ["--max-logprobs", str(config.alternatives), "--generation-config", "vllm", "--enable-prefix-caching"]
    if config.replicas > 1:
        command += ["--data-parallel-size", str(config.replicas)]
    # No telemetry; the model is a folder, so the hub is not needed.
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    if gpus:
        command += ["--tensor-parallel-size", str(gpus)]
    else:
        command += ["--block-size", str(_CPU_BLOCK)]
        environment["VLLM_CPU_KVCACHE_SPACE"] = f"{config.memory_gib:g}"
    return [*command, *more], environment


def _check(config: ServeLlmConfig, card: AffectCard) -> None:
    if card.base.architecture != "decoder" or card.adapter == "heads" or (card.heads and not card.heads.writes_answers):
        raise ModelError(
            f"{config.model} is not a decoder that generates answers, so vLLM cannot serve it; use `emollm serve`, "
            "or train one with `emollm train --objective generate` on a decoder"
        )
    if config.host not in ("127.0.0.1", "localhost", "::1") and not os.environ.get(KEY_VARIABLE):
        raise ConfigError(
            f"--host {config.host} is open to other machines; set a key in {KEY_VARIABLE}; clients read it from the "
            "variable that --requests.key-variable names"
        )


def _weights(folder: Path, card: AffectCard) -> list[str]:
    """The model under its folder's name; an adapter as a LoRA module of its base, which is served too."""
    name = folder.resolve().name
    if card.adapter is None:
        return ["--model", str(folder.resolve()), "--served-model-name", name]
    from emollm.models.load import locate_base

    rank = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    sizes = (8, 16, 32, 64, 128, 256, 320, 512)
    fitting = next((size for size in sizes if size >= rank), rank)
    base = ["--model", locate_base(card.base.name), "--served-model-name", card.base.name]
    lora = ["--enable-lora", "--max-lora-rank", str(fitting), "--lora-modules", f"{name}={folder.resolve()}"]
    return [*base, *lora]

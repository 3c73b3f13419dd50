"""emollm: open language models fine-tuned to read affect in text."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emollm.api import annotate
    from emollm.core.ask import labels, levels, scale
    from emollm.notebook import explain_card, plot
    from emollm.study.mapping import map_labels

__version__ = "0.1.0"
__all__ = ["__version__", "annotate", "explain_card", "labels", "levels", "map_labels", "plot", "scale"]

_PLACES = {
    "annotate": "emollm.api",
    "labels": "emollm.core.ask",
    "levels": "emollm.core.ask",
    "scale": "emollm.core.ask",
    "explain_card": "emollm.notebook",
    "map_labels": "emollm.study.mapping",
    "plot": "emollm.notebook",
}


def __getattr__(name: str) -> Any:
    # Found when asked for: `import emollm` reads no library.
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

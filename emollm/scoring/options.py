"""The options that say which model is asked, and how; shared by every job that asks one."""

from __future__ import annotations

from typing import Any

from emollm.core.bases import DEFAULT_MODEL
from emollm.core.options import Config
from emollm.scoring.constrained.search import SearchOptions
from emollm.scoring.scorer import Engine, Precision


class ScorerConfig(Config):
    """A model, and how its answers are had."""

    model: str = DEFAULT_MODEL
    """Model directory, the model in the box by name, or an untrained base: its registry name, or base:FOLDER."""
    engine: Engine = "auto"
    """How answers are had from the model. auto: heads where it has some, else constrained."""
    precision: Precision = "auto"
    """Arithmetic of the model. auto: bf16 where it is faster than float32."""
    exact: bool = True
    """With the constrained engine: read ordinal answers to their end. --no-exact reads them as far as they differ: 1.8
    times as fast, probabilities off by .006 on average."""

    def scorer_options(self) -> dict[str, Any]:
        """Keyword arguments of `open_scorer`, the model aside."""
        return {
            "engine": self.engine,
            "precision": self.precision,
            "search": None if self.exact else SearchOptions(exact=False),
        }

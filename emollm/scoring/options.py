"""Options for the model and its inference engine, shared by every job that scores posts."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from emollm.core.bases import DEFAULT_MODEL
from emollm.core.options import Config, ModelRef
from emollm.scoring.constrained.search import SearchOptions
from emollm.scoring.scorer import UNDECIDED, Device, Engine, Precision


class ScorerConfig(Config):
    """A model and its inference engine."""

    model: ModelRef = DEFAULT_MODEL
    """Model directory, the bundled default model by name, or an untrained base: its registry name, or base:FOLDER."""
    engine: Engine = "auto"
    """Inference engine. heads: one forward pass per post. constrained: exact probabilities of the closed answers, by
    trie-constrained scoring. generate: free text, parsed. auto: heads if the model has them, else constrained."""
    device: Device = "auto"
    """Where the model runs. auto: on a GPU if the worker has one, else on the CPU."""
    precision: Precision = "auto"
    """Arithmetic of the model. auto: float32 on CPUs and for heads, else bf16, or fp16 on GPUs without bf16. fastest:
    bf16 where it measures faster than float32, so answers may differ between machines."""
    batch_tokens: int | None = Field(None, ge=64)
    """Tokens per forward pass, padding included. None: 1,024 on a CPU; on a GPU as many as its free memory allows."""
    exact: bool = True
    """For the constrained engine: score ordinal answers to their last token. --no-exact scores them only as far as they
    differ: 1.8 times as fast, probabilities off by .006 on average."""

    def known_precision(self, engine: str) -> str:
        """The precision as far as it is known without a device: a `Precision` to the letter, or `UNDECIDED`."""
        if self.precision == "auto" and engine == "heads":
            return "float32"
        return UNDECIDED if self.precision in ("auto", "fastest") else self.precision

    def scorer_options(self) -> dict[str, Any]:
        """Keyword arguments of `open_scorer`, the model aside."""
        return {
            "engine": self.engine,
            "device": self.device,
            "batch_tokens": self.batch_tokens,
            "precision": self.precision,
            "search": None if self.exact else SearchOptions(exact=False),
        }

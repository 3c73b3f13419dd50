"""The options that say which model is asked, and how; shared by every job that asks one."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from emollm.core.bases import DEFAULT_MODEL
from emollm.core.options import Config, ModelRef
from emollm.scoring.constrained.search import SearchOptions
from emollm.scoring.scorer import UNDECIDED, Device, Engine, Precision


class ScorerConfig(Config):
    """A model, and how its answers are had."""

    model: ModelRef = DEFAULT_MODEL
    """Model directory, the bundled default model by name, or an untrained base: its registry name, or base:FOLDER."""
    engine: Engine = "auto"
    """Inference engine. auto: heads where the model has some, else constrained."""
    device: Device = "auto"
    """Where the model runs. auto: a GPU where one is given to the worker, else the CPU."""
    precision: Precision = "auto"
    """Arithmetic of the model. auto: float32 on CPUs and for heads, else bf16, or fp16 on GPUs without it. fastest:
    bf16 where it is measured to be faster, so that answers may differ from machine to machine."""
    batch_tokens: int | None = Field(None, ge=64)
    """Tokens that go through the model at once, padding included. None: 1,024 on a CPU, by free memory on a GPU."""
    exact: bool = True
    """With the constrained engine: read ordinal answers to their end. --no-exact reads them as far as they differ: 1.8
    times as fast, probabilities off by .006 on average."""

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

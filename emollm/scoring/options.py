"""Options for the model and its inference engine, shared by every job that scores posts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from emollm.core.bases import DEFAULT_MODEL
from emollm.core.conformal import LEVELS
from emollm.core.options import Config, ModelRef
from emollm.core.tasks import Way
from emollm.scoring.constrained.search import SearchOptions
from emollm.scoring.scorer import UNDECIDED, Device, Engine, Precision
from emollm.scoring.server.client import check_urls
from emollm.scoring.server.options import RequestOptions

_ABSTAIN = re.compile(r"(precision=)?(0?\.\d+|1(?:\.0*)?|0)")


class ScorerConfig(Config):
    """A model and its inference engine."""

    model: ModelRef = DEFAULT_MODEL
    """Model directory, the bundled default model by name, or an untrained base: its registry name, or base:FOLDER."""
    engine: Engine = "auto"
    """Inference engine. heads: one forward pass per post. constrained: exact probabilities of the closed answers, by
    trie-constrained scoring. generate: free text, parsed. server: a model behind an OpenAI-compatible server. auto:
    server if --server is given, else heads if the model has them, else constrained."""
    server: tuple[str, ...] = ()
    """Addresses of inference servers up to /v1, comma-separated, such as http://127.0.0.1:8001/v1. They serve --model:
    a model name of the servers, or a model directory that `emollm serve-llm` serves."""
    one_prompt: bool = False
    """For --engine server: ask all questions of a post in one prompt; the reply is one JSON object."""
    requests: RequestOptions = RequestOptions()
    """Options of --engine server."""
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

    @model_validator(mode="before")
    @classmethod
    def _server_is_an_engine(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("server") and given.get("engine", "auto") == "auto":
            return {**given, "engine": "server"}
        return given

    @model_validator(mode="after")
    def _server_options_fit(self) -> Self:
        if self.engine == "server":
            check_urls(self.server)
        elif self.server or self.one_prompt:
            option = "--server" if self.server else "--one-prompt"
            raise ValueError(f"{option} is for --engine server, and the engine is {self.engine}")
        return self

    way: Way = "auto"
    """How tasks given at call time are answered, where they do not say it themselves. constrained: a language model is
    asked in its own prompt. entailment: each label's sentence is scored by a language model, its prior taken off.
    embedding: the label whose sentence is nearest to the post. auto: constrained with a language model, embedding with
    an encoder. docs/ask.md says what each needs and how good it is."""

    def known_precision(self, engine: str) -> str:
        """The precision if it is known without a device, else `UNDECIDED`."""
        if engine == "server":
            return "the server's"
        if self.precision == "auto" and engine == "heads":
            return "float32"
        return UNDECIDED if self.precision in ("auto", "fastest") else self.precision

    def scorer_options(self) -> dict[str, Any]:
        """Keyword arguments of `open_scorer`, without the model."""
        common = {"engine": self.engine, "way": self.way}
        if self.engine == "server":
            return common | {
                "server": self.server,
                "one_prompt": self.one_prompt,
                "requests": self.requests,
            }
        return common | {
            "device": self.device,
            "batch_tokens": self.batch_tokens,
            "precision": self.precision,
            "search": None if self.exact else SearchOptions(exact=False),
        }


class ExtrasConfig(ScorerConfig):
    """A model, its engine, and the additions to its answers."""

    abstain: str | None = None
    """Leave uncertain answers empty. precision=0.8: so that 80% of the others are right, per task, by the thresholds of
    the model's card; 0.6: those below that confidence. The best guess is kept in a column. None: give all answers."""
    second: bool = False
    """Add the second most likely answer: the second class or label, or the set that differs by one label."""
    sets: float | None = None
    """Add the set of classes or labels, or the interval, that contains the truth for this share of posts like those of
    the calibration: 0.5, 0.8, 0.9 or 0.95. None: none."""
    explain: bool = False
    """Add the words whose removal changes each answer most. One forward pass per word: about 25 times the work."""

    @field_validator("abstain")
    @classmethod
    def _abstain_is_understood(cls, text: str | None) -> str | None:
        if text is not None and not _ABSTAIN.fullmatch(text):
            raise ValueError("give precision=0.8, or a confidence such as 0.6")
        return text

    @field_validator("sets")
    @classmethod
    def _level_is_kept(cls, level: float | None) -> float | None:
        if level is not None and f"{level:g}" not in LEVELS:
            raise ValueError(f"choose from: {', '.join(LEVELS)}")
        return level

    def asked_extras(self) -> dict[str, Any]:
        """The options as arguments of `Extras.of`."""
        return {"abstain": self.abstain, "second": self.second, "sets": self.sets, "explain": self.explain}

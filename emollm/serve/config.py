"""The options of the endpoint."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from emollm.scoring.options import ScorerConfig


class ServeConfig(ScorerConfig):
    """Serve a model directory over HTTP with Ray Serve."""

    host: str = "127.0.0.1"
    """Address to listen on. Any other than loopback needs API keys."""
    port: int = Field(8000, ge=1, le=65535)
    """Port to listen on."""
    keys: Path | None = None
    """File of API keys, hashed; `python -m emollm.serve.keys NAME --file FILE` adds one. None: those
    in $EMOLLM_API_KEYS."""
    open_access: bool = False
    """Answer everybody without a key, on any address: only behind something that asks for one itself."""
    replicas: int = Field(1, ge=1)
    """Copies of the model, each with the CPUs or GPUs given."""
    max_replicas: int | None = Field(None, ge=1)
    """Scale up to so many copies under load, and back to `replicas`. None: always `replicas`."""
    cpus_per_replica: float = Field(1.0, gt=0)
    """CPU cores reserved for a copy. On CPU one thread a copy is fastest: add copies, not threads."""
    gpus_per_replica: float | None = Field(None, ge=0)
    """GPUs reserved for each copy. None: 1 where there is a GPU for each, else 0."""
    batch_tokens: int | None = Field(None, ge=64)
    """Tokens of different requests that go through the model together. None: 1,024 on a CPU, 16,384 on a GPU."""
    batch_wait_ms: float = Field(5.0, ge=0)
    """Milliseconds an idle model waits for company after a request has come."""
    max_requests: int = Field(256, ge=1)
    """Requests at work or waiting; one more is answered 429 with Retry-After."""
    deadline_s: float = Field(60.0, gt=0)
    """Seconds after which a request is given up with 504; of a stream, without a further line."""
    max_body_mib: float = Field(4.0, gt=0)
    """A larger request body is refused with 413."""
    log_errors: bool = False
    """Write tracebacks of unexpected errors to the log; they may quote a text."""

    @model_validator(mode="after")
    def _replicas_ascend(self) -> ServeConfig:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is less than replicas {self.replicas}")
        return self

"""The options of the endpoint."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import Field, model_validator

from emollm.scoring.options import ScorerConfig


class ServeConfig(ScorerConfig):
    """Serve a model directory over HTTP with Ray Serve."""

    host: str = "127.0.0.1"
    """Address to listen on. Any address other than loopback needs API keys."""
    port: int = Field(8000, ge=1, le=65535)
    """Port to listen on."""
    keys: Path | None = None
    """File of hashed API keys; `python -m emollm.serve.keys NAME --file FILE` adds one. None: those in
    $EMOLLM_API_KEYS."""
    open_access: bool = False
    """Answer everyone without a key, on any address: only behind a gateway that authenticates."""
    replicas: int = Field(1, ge=1)
    """Replicas of the model, each with the CPUs and GPUs below."""
    max_replicas: int | None = Field(None, ge=1)
    """Scale up to this many replicas under load, and back to --replicas. None: always --replicas."""
    cpus_per_replica: float = Field(1.0, gt=0)
    """CPU cores per replica. On CPUs one thread per replica is fastest: add replicas, not threads."""
    gpus_per_replica: float | None = Field(None, ge=0)
    """GPUs per replica. None: 1 if Ray has a GPU for each, else 0; with `serve run` and `serve deploy` 0."""
    batch_tokens: int | None = Field(None, ge=64)
    """Tokens per batch, across requests. None: 1,024 on a CPU, 16,384 on a GPU."""
    http_replicas: int | None = Field(None, ge=1)
    """HTTP processes, which parse requests and write answers. None: one per 8 replicas on CPUs, one per replica on
    GPUs."""
    batch_wait_ms: float = Field(5.0, ge=0)
    """Milliseconds an idle model waits for further requests before it starts a batch."""
    max_requests: int = Field(256, ge=1)
    """Requests in progress or waiting, shared out over the HTTP processes; further ones get 429 with Retry-After."""
    deadline_s: float = Field(60.0, gt=0)
    """Seconds until a request fails with 504; for a stream, seconds without a new line."""
    max_body_mib: float = Field(4.0, gt=0)
    """Largest request body in MiB; larger ones get 413."""
    log_errors: bool = False
    """Log tracebacks of unexpected errors; they may quote a text."""

    @property
    def num_http_replicas(self) -> int:
        """HTTP processes, decided."""
        copies = max(self.replicas, self.max_replicas or 0)
        return self.http_replicas or (copies if self.gpus_per_replica else math.ceil(copies / 8))

    @model_validator(mode="after")
    def _has_a_model_of_its_own(self) -> ServeConfig:
        if self.engine == "server":
            raise ValueError("--engine server is for annotation and evaluation; the endpoint loads its model itself")
        return self

    @model_validator(mode="after")
    def _replicas_ascend(self) -> ServeConfig:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"--max-replicas {self.max_replicas} is less than --replicas {self.replicas}")
        return self

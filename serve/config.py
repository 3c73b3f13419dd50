"""The options of the endpoint."""

from __future__ import annotations

from pydantic import Field

from emollm.config import Config
from emollm.scoring.scorer import Engine


class ServeConfig(Config):
    """Serve a model directory over HTTP with Ray Serve."""

    model: str
    """Model directory, or a base model by its registry name."""
    engine: Engine = "constrained"
    """How answers are had from the model."""
    host: str = "127.0.0.1"
    """Address to listen on. There is no authentication yet: keep it on loopback."""
    port: int = Field(8000, ge=1, le=65535)
    """Port to listen on."""
    replicas: int = Field(1, ge=1)
    """Copies of the model, each with one CPU or the GPUs given."""
    gpus_per_replica: float = Field(0.0, ge=0)
    """GPUs reserved for a replica."""

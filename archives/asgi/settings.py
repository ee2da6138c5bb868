"""What a server is started with: written by `node`, read and checked by `server`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

DRAIN_S = 30
"""How long requests under way may take when the server ends."""


class Limits(BaseModel):
    """Lines of config.properties that hold for this server, too, under their names there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default_workers_per_model: int = Field(ge=1)
    token_expiration_min: int = Field(ge=1)
    job_queue_size: int = Field(ge=1)
    max_request_size: int = Field(ge=1)


class ServerSettings(BaseModel):
    """One server; ports are of loopback."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inference_port: int
    management_port: int
    metrics_port: int
    store: Path
    models: dict[str, str]
    """Name to serve under -> the archive's file name in `store`."""
    batch_size: int = Field(ge=1)
    max_batch_delay_ms: int = Field(ge=0)
    gpus: int = Field(ge=0)
    limits: Limits


class ArchiveSettings(BaseModel):
    """An archive's model-config.yaml, under TorchServe's names; it overrides the server's plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minWorkers: int | None = Field(default=None, ge=1)
    maxWorkers: int | None = Field(default=None, ge=1)
    batchSize: int | None = Field(default=None, ge=1)
    maxBatchDelay: int | None = Field(default=None, ge=0)
    responseTimeout: float = Field(default=60, gt=0)
    """Seconds for a batch."""
    startupTimeout: float = Field(default=120, gt=0)
    handler: dict[str, object] | None = None
    """Read by the archive's own code (see `handlers.settings`)."""

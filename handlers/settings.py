"""How an archive runs on a node: the settings, validated once when its service starts.

They come from three places, the later one winning: `handler:` in the archive's model-config.yaml;
the environment (`SONODE_HANDLER_ENGINE=eager`), with which an operator sets a node without changing
the archive; and what the caller of `archives.packing.loader.load_archive` gives.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import joblib
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

PREFIX = "SONODE_HANDLER_"

EngineName = Literal["eager", "compile", "openvino", "openvino-fp32", "cuda"]
EngineChoice = Literal["auto", "eager", "compile", "openvino", "openvino-fp32", "cuda"]


class SettingsError(ValueError):
    """An unknown setting, or an invalid value."""


class Settings(BaseModel):
    """The settings of one service."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: EngineChoice = "auto"
    """How the forward pass runs (see `handlers.engines.base`)."""
    fallback: tuple[EngineName, ...] = ()
    """Engines to try in order, where the one before is not available or does not reproduce the
    golden examples. Empty by default: another engine has another speed and other digits."""
    threads: Annotated[int, Field(ge=1)] = Field(default_factory=joblib.cpu_count)
    """Cores for decoding and, on the CPU, for the forward pass. Default: those of the process,
    within its affinity and its container's CPU quota."""

    @field_validator("fallback", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Names with commas between them, as the environment holds them."""
        return [name for name in value.split(",") if name] if isinstance(value, str) else value


def read(
    archive: Mapping[str, Any] | None,
    caller: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings of the archive's `handler:` section, overridden by the environment and the caller.

    Raises SettingsError: an unknown key or an invalid value, in one line.
    """
    node = {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(PREFIX)
    }
    try:
        return Settings(**(dict(archive or {}) | node | dict(caller or {})))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise SettingsError(
            f"setting {name}: {first['msg']}; valid settings are {', '.join(Settings.model_fields)}"
        ) from None

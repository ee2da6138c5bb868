"""How the gateway meets its clients: the settings, and limits that it takes from TorchServe."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from archives.torchserve.node import CONFIG
from sonode.defaults import CLIENT_AT_ONCE, CLIENT_RATE, GATEWAY_PORT


class GatewaySettings(BaseModel):
    """What `sonode gateway` and `sonode serve` take of the gateway."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", pattern=r"^[A-Za-z0-9.:\[\]*-]+$")
    """Address to listen on; `0.0.0.0` for all, an IPv6 address with or without brackets."""
    port: int = Field(default=GATEWAY_PORT, ge=1, le=65535)
    nginx: Path | None = None
    """Another nginx than that of the extra `gateway`."""
    certificate: Path | None = None
    """PEM, with its chain; together with its key: TLS."""
    certificate_key: Path | None = None
    rate: int = Field(default=CLIENT_RATE, ge=1)
    """Requests a second of each client, and as many at once beyond them."""
    at_once: int = Field(default=CLIENT_AT_ONCE, ge=1)
    """Requests of each client under way; their bodies are in memory, up to four times."""

    @model_validator(mode="after")
    def _both_or_none(self) -> GatewaySettings:
        if (self.certificate is None) != (self.certificate_key is None):
            raise ValueError("--certificate, --certificate-key: give both or neither")
        return self

    @property
    def listen(self) -> str:
        """As nginx has it."""
        bare = self.host.count(":") > 1 and not self.host.startswith("[")
        return f"[{self.host}]:{self.port}" if bare else f"{self.host}:{self.port}"

    @property
    def address(self) -> str:
        """As a socket has it."""
        return "0.0.0.0" if self.host == "*" else self.host.strip("[]")

    @property
    def max_body_bytes(self) -> int:
        """What TorchServe takes."""
        return torchserve_number("max_request_size")


def torchserve_number(key: str) -> int:
    """A number of config.properties."""
    found = re.search(rf"^{key}=(\d+)$", CONFIG.read_text(), re.MULTILINE)
    assert found
    return int(found[1])

"""Defaults that several commands share, each once; `config.properties` has the same ports."""

from __future__ import annotations

from pathlib import Path

BOOTSTRAP_DRAWS = 2000
"""Draws of whole patients for each interval."""

INFERENCE_PORT, MANAGEMENT_PORT, METRICS_PORT = 8080, 8081, 8082
"""Of a server, on loopback."""
GATEWAY_PORT = 8443
STATE = Path("runs") / "rollout"
"""The folder that the gateway and the rollout commands share."""

"""Defaults of options that several places need; `config.properties` has the ports, too."""

from __future__ import annotations

from pathlib import Path

BOOTSTRAP_DRAWS = 2000
"""Draws of whole patients for each interval."""
SHARD_ROWS = 1024
"""Rows of a result file."""
FETCH_THREADS, MEMORY_MB, ROW_SECONDS = 8, 512, 60.0
"""Of the batch: objects fetched at once, megabytes of images in memory, time to decode one."""

INFERENCE_PORT, MANAGEMENT_PORT, METRICS_PORT = 8080, 8081, 8082
"""Of a server, on loopback."""
GATEWAY_PORT = 8443
READER_PORT = 8600
CLIENT_RATE, CLIENT_AT_ONCE = 100, 64
"""Requests a second, and under way, that the gateway lets each client have."""
STATE = Path("runs") / "rollout"
"""The folder that the gateway and the rollout commands share."""

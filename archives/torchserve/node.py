"""A node that runs TorchServe."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from archives.torchserve.java import HOST, environment, worker_failure
from archives.torchserve.server_node import ServerNode
from sonode.console import UserError

FOLDER = Path(__file__).resolve().parent
CONFIG = FOLDER.parents[1] / "config.properties"
METRICS_CONFIG = FOLDER / "metrics.yaml"
LOG_CONFIG = FOLDER / "log4j2.xml"
SOCKET_PATH_MAX = 103  # bytes of a Unix socket's path: 103 on macOS, 107 on Linux


class TorchServeNode(ServerNode):
    """A TorchServe of its own."""

    server = "TorchServe"
    log = "ts_log.log"
    apis = (*ServerNode.apis, "grpc-inference", "grpc-management")

    def _prepare(self) -> None:
        # Workers are reached through sockets in the temporary folder.
        if len(os.fsencode(self._temp / ".ts.sock.65535")) > SOCKET_PATH_MAX:
            raise UserError(
                f"run folder {self.run_dir} is too long for the workers' sockets: choose a "
                f"shorter path (at most {SOCKET_PATH_MAX - len('/tmp/.ts.sock.65535')} bytes)"
            )
        super()._prepare()

    def _configure(self) -> Sequence[str]:
        lines = {f"{api}_address": f"http://{HOST}:{self._ports[api]}" for api in ServerNode.apis}
        lines["grpc_inference_port"] = str(self._ports["grpc-inference"])
        lines["grpc_management_port"] = str(self._ports["grpc-management"])
        lines["metrics_config"] = str(METRICS_CONFIG)
        lines["default_workers_per_model"] = str(self.plan.workers)
        lines["models"] = json.dumps({name: self._batching(name) for name in self.models})
        config = self.run_dir / "config.properties"
        own = "".join(f"{key}={value}\n" for key, value in (lines | self._settings).items())
        # Of two lines with one key Java takes the later.
        config.write_text(f"{CONFIG.read_text()}\n# This node:\n{own}")

        command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"]
        command += ["--ts-config", str(config), "--model-store", str(self.store)]
        command += ["--log-config", str(LOG_CONFIG)]
        if self.models:
            command += ["--models", *(f"{name}={file}" for name, file in self.models.items())]
        return command

    def _environment(self) -> dict[str, str]:
        return environment(self._temp)

    def _batching(self, name: str) -> dict[str, dict[str, int]]:
        return {
            self._version(name): {
                "batchSize": self.plan.batch_size,
                "maxBatchDelay": self.plan.max_batch_delay_ms,
            }
        }

    def _failure(self) -> str | None:
        ours = [f"{name}_{self._version(name)}" for name in self.models]
        return worker_failure(list(self._console), ours)

"""A node that runs the second server."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from pydantic import ValidationError

from archives.asgi.settings import DRAIN_S, Limits, ServerSettings
from archives.torchserve.node import CONFIG
from archives.torchserve.server_node import ServerNode
from archives.torchserve.worker_plan import count_gpus
from sonode import traces
from sonode.console import UserError
from sonode.files.settings import faults_of

NEEDED = ("starlette", "uvicorn", "uvloop", "multipart")


class AsgiNode(ServerNode):
    """The second server, started as TorchServe is: the same folders, ports, tokens and models."""

    server = "the server"
    log = "server_log.log"
    poll_s = 0.05
    stop_timeout_s = DRAIN_S + 10.0

    def _prepare(self) -> None:
        if missing := [name for name in NEEDED if find_spec(name) is None]:
            raise UserError(
                f"--server asgi: {', '.join(missing)} not installed; run `pip install -e '.[asgi]'`"
            )
        traces.asked()  # or refused, before anything is written
        self._limits = read_limits(self._settings, self.plan.workers)
        super()._prepare()

    def _configure(self) -> Sequence[str]:
        settings = ServerSettings(
            inference_port=self._ports["inference"],
            management_port=self._ports["management"],
            metrics_port=self._ports["metrics"],
            store=self.store,
            models=self.models,
            batch_size=self.plan.batch_size,
            max_batch_delay_ms=self.plan.max_batch_delay_ms,
            gpus=count_gpus(),
            limits=self._limits,
        )
        config = self.run_dir / "server.json"
        config.write_text(settings.model_dump_json(indent=1) + "\n")
        return [sys.executable, "-m", "archives.asgi.server", str(config)]

    def _environment(self) -> dict[str, str]:
        # Of PYTHONPATH only this checkout: an archive's own modules come before it.
        return {**os.environ, "PYTHONPATH": str(CONFIG.parent), "TMPDIR": str(self._temp)}

    def _failure(self) -> str | None:
        return None  # it ends, and says why


def read_limits(given: Mapping[str, str], workers: int) -> Limits:
    """Those lines of config.properties that are this server's, too; `given` ones override them.

    Raises UserError for one that is unknown or invalid.
    """
    lines = (line.partition("=") for line in CONFIG.read_text().splitlines())
    shared = {key: value for key, _, value in lines if key in Limits.model_fields}
    shared["default_workers_per_model"] = str(workers)
    try:
        return Limits.model_validate(shared | dict(given))
    except ValidationError as error:
        raise UserError(
            f"setting {faults_of(error)[0]}; valid settings are {', '.join(Limits.model_fields)}"
        ) from None

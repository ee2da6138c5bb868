"""The inference API of this server as an application of Ray Serve: see deploy/ray-serve.yaml.

Ray Serve answers HTTP and starts replicas; in each the same app stands before the same worker
processes. It has no tokens, no gateway and no rollouts: docs/deploy.md says what that means.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from archives.asgi.api.app import inference, log_fault
from archives.asgi.metrics import Metrics
from archives.asgi.models import Models
from archives.asgi.node import read_limits
from archives.asgi.settings import ServerSettings
from archives.packing.members import check
from archives.torchserve.worker_plan import count_gpus, plan
from sonode.console import UserError
from sonode.files.settings import faults_of

if TYPE_CHECKING:
    from ray.serve import Application


class Arguments(BaseModel):
    """`args` of the application."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    archive: Path
    """On each machine of the cluster."""
    workers: int = Field(default=1, ge=1)
    """Processes of each replica; they share the GPUs that Ray gives it."""


def application(args: dict[str, Any]) -> Application:
    """What `import_path` names; called by Ray before it ends the replicas that answer now.

    Raises UserError: other `args` than Arguments, or no archive, or a damaged one.
    """
    try:
        given = Arguments.model_validate(args)  # Ray does it where no annotation is postponed
    except ValidationError as error:
        raise UserError(f"args: {faults_of(error)[0]}") from None
    check(given.archive)

    from ray import serve

    def app() -> ASGIApp:  # it goes to the replica, and the app is made there
        return replica(given)

    made: Any = serve.deployment(name="sonode")(serve.ingress(app)())
    bound: Application = made.bind()
    return bound


def replica(args: Arguments) -> ASGIApp:
    """One replica's app, whose start loads the archive and whose end ends the workers."""
    logger = logging.getLogger("sonode")
    logger.handlers = [logging.StreamHandler()]  # Ray keeps what a replica writes
    logger.setLevel(logging.INFO)
    logger.propagate = False
    planned = plan()
    settings = ServerSettings(
        inference_port=0,  # Ray has it
        management_port=0,
        metrics_port=0,
        store=args.archive.parent,
        models={},
        batch_size=planned.batch_size,
        max_batch_delay_ms=planned.max_batch_delay_ms,
        gpus=count_gpus(),
        limits=read_limits({}, args.workers),
    )
    folder = tempfile.TemporaryDirectory(prefix="sonode-ray-")
    (Path(folder.name) / "tmp").mkdir()
    models = Models(settings, Metrics(), Path(folder.name) / "server.json")

    @asynccontextmanager
    async def loaded(_: Starlette) -> AsyncIterator[None]:
        with folder:
            try:
                await models.register(args.archive.name)
                yield
            finally:
                await models.stop()

    answering = inference(models, settings.limits.max_request_size)
    answering.router.lifespan_context = loaded

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await answering(scope, receive, send)
        except Exception as fault:
            if scope["type"] == "lifespan":
                raise
            log_fault(fault)  # Ray would log its text

    return app

"""What the management and metrics ports answer: of TorchServe's API what nodes are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from archives.asgi.api.app import NO_CACHE, exactly
from archives.asgi.api.tokens import Tokens
from archives.asgi.metrics import Metrics
from archives.asgi.models import Models
from archives.asgi.refused import Refused
from sonode.files.settings import faults_of

if TYPE_CHECKING:
    from archives.torchserve.key_file import Kind

AtLeastOne = Annotated[int | None, Field(ge=1)]


class Registration(BaseModel):
    """The parameters of POST /models; what is left out is the archive's or the server's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    model_name: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = None
    initial_workers: AtLeastOne = None
    batch_size: AtLeastOne = None
    max_batch_delay: Annotated[int | None, Field(ge=0)] = None
    """Milliseconds."""
    synchronous: Literal["true"] = "true"
    """There is no other way: the answer comes when all workers are ready."""


class Management:
    """The management API."""

    def __init__(self, models: Models, tokens: Tokens) -> None:
        self._models, self._tokens = models, tokens

    async def every(self, _: Request) -> Response:
        """All default versions."""
        found = [self._models.find(name, None) for name in self._models.by_name]
        listed = [{"modelName": it.model, "modelUrl": it.file} for it in found]
        return said({"models": listed})

    async def register(self, request: Request) -> Response:
        """Load a version."""
        try:
            given = Registration(**request.query_params)
        except ValidationError as error:
            text = f"parameter {faults_of(error)[0]}"
            raise Refused(400, "BadRequestException", text) from None
        made = await self._models.register(
            given.url,
            given.model_name,
            workers=given.initial_workers,
            batch_size=given.batch_size,
            max_batch_delay_ms=given.max_batch_delay,
        )
        workers = f"registered with {made.plan.workers} initial workers"
        return said({"status": f'Model "{made.model}" Version: {made.version} {workers}'})

    async def describe(self, request: Request) -> Response:
        """The default version, a version, or all."""
        name, version = request.path_params["model"], request.path_params.get("version")
        if version != "all":
            return said([self._models.find(name, version).described()])
        self._models.find(name, None)
        return said([it.described() for it in self._models.by_name[name].versions.values()])

    async def unregister(self, request: Request) -> Response:
        """Take a version off."""
        name, version = request.path_params["model"], request.path_params.get("version")
        await self._models.unregister(name, version)
        return said({"status": f'Model "{name}" unregistered'})

    async def set_default(self, request: Request) -> Response:
        """Answer with this version from now on."""
        name, version = request.path_params["model"], request.path_params["version"]
        self._models.set_default(name, version)
        return said({"status": f'Default version of model "{name}" is now {version}'})

    async def renew(self, request: Request) -> Response:
        """A new token of an API, into the key file."""
        kinds: dict[str, Kind] = {"inference": "inference", "management": "management"}
        kind = kinds.get(request.query_params.get("type", ""))
        if kind is None:
            raise Refused(400, "InvalidKeyException", "type: inference or management")
        self._tokens.renew(kind)
        return said({"status": "the token is renewed: read it from the key file"})


def said(body: object) -> Response:
    """A success."""
    return JSONResponse(body, 200, NO_CACHE)


def management(models: Models, tokens: Tokens) -> Starlette:
    """The app of the management port, without its token."""
    api = Management(models, tokens)
    return exactly(
        [
            Route("/token", api.renew, methods=["GET"]),
            Route("/models", api.every, methods=["GET"]),
            Route("/models", api.register, methods=["POST"]),
            Route("/models/{model}", api.describe, methods=["GET"]),
            Route("/models/{model}", api.unregister, methods=["DELETE"]),
            Route("/models/{model}/{version}", api.describe, methods=["GET"]),
            Route("/models/{model}/{version}", api.unregister, methods=["DELETE"]),
            Route("/models/{model}/{version}/set-default", api.set_default, methods=["PUT"]),
        ]
    )


def metrics_page(metrics: Metrics) -> Starlette:
    """The app of the metrics port."""

    async def page(_: Request) -> Response:
        return PlainTextResponse(metrics.text())

    return exactly([Route("/metrics", page, methods=["GET"])])

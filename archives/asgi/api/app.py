"""What is answered on the inference port: /predictions, /explanations, /ping."""

from __future__ import annotations

import json
import logging
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from archives.asgi.api import bodies
from archives.asgi.api.tokens import Tokens
from archives.asgi.metrics import Metrics
from archives.asgi.models import Models
from archives.asgi.open_inference.endpoints import OpenInference
from archives.asgi.refused import Refused
from archives.asgi.workers.versions import Version
from archives.asgi.workers.worker_process import Answer, Asked

if TYPE_CHECKING:
    from archives.torchserve.key_file import Kind

# As TorchServe's: an answer about a patient is kept by no cache.
NO_CACHE = {
    "pragma": "no-cache",
    "cache-control": "no-cache; no-store, must-revalidate, private",
    "expires": "Thu, 01 Jan 1970 00:00:00 UTC",
}
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD")
SENT = ["POST", "PUT"]  # curl -T puts
PATHS = ("predictions", "explanations", "ping", "models", "token", "metrics", "v2")

access_log = logging.getLogger("sonode.access")
logger = logging.getLogger("sonode.server")


def refusal(error: Refused) -> Response:
    """In TorchServe's form."""
    body = {"code": error.status, "type": error.kind, "message": error.message}
    return JSONResponse(body, error.status, NO_CACHE)


async def on_refused(_: Request, error: Exception) -> Response:
    """For Starlette."""
    assert isinstance(error, Refused)
    return refusal(error)


async def on_http(_: Request, error: Exception) -> Response:
    """Unknown paths and methods."""
    assert isinstance(error, HTTPException)
    if error.status_code == 413:
        return Response(status_code=413)
    if error.status_code == 405:
        kind, message = "MethodNotAllowedException", "Requested method is not allowed"
    else:
        kind, message = "ResourceNotFoundException", "Requested resource is not found"
    answer = refusal(Refused(error.status_code, kind, message))
    answer.headers.update(error.headers or {})  # a 405 names the methods that are taken
    return answer


async def on_left(_: Request, __: Exception) -> Response:
    """Nobody gets it; the log has the status."""
    return Response(status_code=499)


async def on_fault(_: Request, __: Exception) -> Response:
    """A fault of the server's own."""
    text = "internal error: see logs/server_log.log"
    return refusal(Refused(500, "InternalServerException", text))


HANDLERS = {
    Refused: on_refused,
    HTTPException: on_http,
    bodies.ClientLeft: on_left,
    Exception: on_fault,
}


def log_fault(error: Exception) -> None:
    """Without its text, which may be the client's."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    logger.error("%s in %s, line %s", type(error).__name__, where.name, where.lineno)


class Guarded:
    """An API behind its token: counts and logs each call, and lets no fault out.

    `kind_of` says which key a path asks for; None: none.
    """

    def __init__(
        self, app: ASGIApp, tokens: Tokens, kind_of: Callable[[str], Kind | None], metrics: Metrics
    ) -> None:
        self._app, self._tokens, self._kind_of, self._metrics = app, tokens, kind_of, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call."""
        began, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = dict(scope["headers"])
        kind = self._kind_of(scope["path"])
        try:
            given = headers.get(b"authorization", b"").decode("latin-1")
            if kind is None or self._tokens.allows(kind, given):
                await self._app(scope, receive, sending)
            else:
                text = "Token Authorization failed. Token either incorrect, expired, or not given"
                refused = refusal(Refused(400, "InvalidKeyException", text))
                await refused(scope, receive, sending)
        except Exception as error:  # which `on_fault` has answered
            log_fault(error)
        if 200 <= status < 600:
            self._metrics.add(f"Requests{status // 100}XX", 1, "Host")
        method = scope["method"] if scope["method"] in METHODS else "?"
        first = scope["path"].removeprefix("/").partition("/")[0]
        path = first if first in PATHS else ""
        spent_ms = 1000 * (time.monotonic() - began)
        access_log.info("call: %s /%s %d %d", method, path, status, spent_ms)


class Inference:
    """The inference API."""

    def __init__(self, models: Models, max_request_size: int) -> None:
        self._models, self._max_request_size = models, max_request_size

    async def predict(self, request: Request) -> Response:
        """Answer an image."""
        return await self._answer(request, {})

    async def explain(self, request: Request) -> Response:
        """Answer an image with heat maps; TorchServe's mark says so to the handler."""
        return await self._answer(request, {"explain": "True"})

    async def ping(self, _: Request) -> Response:
        """Whether each model has a worker."""
        healthy = self._models.healthy
        body = {"status": "Healthy" if healthy else "Unhealthy"}
        return JSONResponse(body, 200 if healthy else 500, NO_CACHE)

    async def _answer(self, request: Request, marks: dict[str, str]) -> Response:
        body = await self.body(request)
        # Not before: until a slow body is here its version may have been replaced.
        version = request.path_params.get("version")
        found = self._models.find(request.path_params["model"], version)
        # One that is sent twice is both of its values, so the handler refuses two RoIs.
        headers = {
            name: ", ".join(request.headers.getlist(name))
            for name in request.headers
            if name != "authorization"
        }
        get = headers.get
        try:
            fields = bodies.fields(body, get("content-type", ""), get("content-encoding", ""))
        except bodies.Malformed as error:
            return malformed(str(error))
        answer = await self.score(found, fields, version or "default", headers | marks)
        return Response(answer.body, answer.status, answer.headers)

    async def body(self, request: Request) -> bytes:
        """A request's body. Raises Refused where it is too large or does not come."""
        try:
            return await bodies.read(request.receive, self._max_request_size)
        except bodies.TooLarge:
            raise HTTPException(413) from None
        except TimeoutError:
            raise Refused(408, "RequestTimeoutException", "the body did not arrive") from None

    async def score(
        self,
        version: Version,
        fields: dict[str, bytes],
        label: str,
        headers: dict[str, str],
    ) -> Answer:
        """A version's answer, with all headers that it has. Raises Refused."""
        id_ = str(uuid.uuid4())
        answer = await version.score(Asked(id_, fields, headers), label)
        return replace(answer, headers=answer.headers | NO_CACHE | {"x-request-id": id_})


def malformed(message: str) -> Response:
    """The handler's own 400, for what no handler gets to see (see `handlers.responses`)."""
    body = {"code": "malformed_request", "message": message, "field": "body", "stage": "preprocess"}
    text = json.dumps(body)
    headers = {"X-Sonode-Code": "malformed_request", "X-Sonode-Error": quote(text)}
    return JSONResponse(body, 400, headers | NO_CACHE | {"x-request-id": str(uuid.uuid4())})


def inference(models: Models, max_request_size: int) -> Starlette:
    """The app of the inference port, without its token."""
    api = Inference(models, max_request_size)
    routes = [
        Route(f"{path}{slash}", answer, methods=SENT)
        for slash in ("", "/")  # as TorchServe takes them
        for model in ("{model}", "{model}/{version}")
        for path, answer in (
            (f"/predictions/{model}", api.predict),
            (f"/explanations/{model}", api.explain),
        )
    ]
    routes.append(Route("/ping", api.ping, methods=["GET"]))
    return exactly([*routes, *OpenInference(models, api.body, api.score).routes()])


def exactly(routes: Sequence[Route]) -> Starlette:
    """An app that answers these paths, and redirects from none that is almost one of them."""
    app = Starlette(routes=routes, exception_handlers=HANDLERS)
    app.router.redirect_slashes = False
    return app

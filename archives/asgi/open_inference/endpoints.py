"""The protocol's endpoints, for Starlette."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from archives.asgi.models import Models
from archives.asgi.open_inference.forms import (
    JSON_SIZE,
    MALFORMED,
    PICTURES,
    failed,
    malformed,
    parse,
    respond,
)
from archives.asgi.refused import Refused
from archives.asgi.workers.versions import Version
from archives.asgi.workers.worker_process import Answer

Body = Callable[[Request], Coroutine[Any, Any, bytes]]
Score = Callable[[Version, dict[str, bytes], str, dict[str, str]], Coroutine[Any, Any, Answer]]
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class OpenInference:
    """The endpoints. `body` reads a request's body, `score` asks a version."""

    def __init__(self, models: Models, body: Body, score: Score) -> None:
        self._models, self._body, self._score = models, body, score

    async def server(self, _: Request) -> Response:
        """What it is."""
        return JSONResponse(
            {"name": "sonode", "version": "1", "extensions": ["binary_tensor_data"]}
        )

    async def live(self, _: Request) -> Response:
        """It answers, so it lives."""
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        """Whether each model has a worker."""
        healthy = self._models.healthy
        return JSONResponse({"ready": healthy}, 200 if healthy else 400)

    async def model_ready(self, request: Request) -> Response:
        """Whether the version has a worker."""
        found = self._find(request)
        body = {"name": found.model, "ready": found.ready}
        return JSONResponse(body, 200 if found.ready else 400)

    async def model(self, request: Request) -> Response:
        """Its inputs and outputs; those of heat maps are there where they are asked for."""
        found = self._find(request)
        tensors = [{"name": "answer", "datatype": "BYTES", "shape": [1]}]
        for head in found.heads:
            for name, datatype in (
                *(("probability", "FP64"), ("label", "BYTES")),
                *((picture, "BYTES") for picture in PICTURES.values()),
            ):
                tensors.append({"name": f"{head}.{name}", "datatype": datatype, "shape": [1]})
        return JSONResponse(
            {
                "name": found.model,
                "versions": list(self._models.by_name[found.model].versions),
                "platform": "sonode",
                "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}],
                "outputs": tensors,
            }
        )

    async def infer(self, request: Request) -> Response:
        """Score an image."""
        body = await self._body(request)
        found = self._find(request)  # not before: see `app.Inference`
        if any(name in request.headers for name in ("x-roi", "x-frame", "x-explain")):
            raise malformed("X-Roi, X-Frame and X-Explain: send them as parameters")
        asked, fields = parse(body, request.headers.get(JSON_SIZE))
        if asked.model_name not in (None, found.model):
            raise malformed("model_name: another one than in the path")
        label = request.path_params.get("version", "default")
        trace = {"traceparent": request.headers.get("traceparent", "")}
        answer = await self._score(found, fields, label, trace)
        if answer.status != 200:
            said = json.loads(answer.body)
            return failed(answer.status, said["code"], said["message"], answer.headers)
        return respond(found, asked, answer, answer.headers["x-request-id"])

    def routes(self) -> list[Route]:
        """For Starlette."""
        found = [
            Route("/v2", of(self.server), methods=["GET"]),
            Route("/v2/health/live", of(self.live), methods=["GET"]),
            Route("/v2/health/ready", of(self.ready), methods=["GET"]),
        ]
        for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            found.append(Route(base, of(self.model), methods=["GET"]))
            found.append(Route(f"{base}/ready", of(self.model_ready), methods=["GET"]))
            found.append(Route(f"{base}/infer", of(self.infer), methods=["POST"]))
        return found

    def _find(self, request: Request) -> Version:
        path = request.path_params
        return self._models.find(path["model"], path.get("version"))


def of(endpoint: Handler) -> Handler:
    """The endpoint with refusals in the protocol's form."""

    async def answering(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refused as error:
            if error.kind == MALFORMED:
                return failed(error.status, MALFORMED, error.message)
            return JSONResponse({"error": error.message}, error.status)

    return answering

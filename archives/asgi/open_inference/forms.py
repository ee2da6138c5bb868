"""The protocol's requests and answers.

A request has one image, since the server makes the batches: a tensor `image` of the shape [1] and
the datatype BYTES, as base64 in JSON. `roi`, `explain` and `frame` are parameters, with the values
of `handlers.requests`. Outputs are `answer` (JSON, as of /predictions) and, for each head,
`HEAD.probability`, `HEAD.label`, and where they are asked for `HEAD.heatmap` and
`HEAD.full_frame_heatmap` (PNG).
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.responses import JSONResponse, Response

from archives.asgi.refused import Refused
from archives.asgi.workers.versions import Version
from archives.asgi.workers.worker_process import Answer

MALFORMED = "malformed_request"
JSON_SIZE = "inference-header-content-length"
LENGTH = struct.Struct("<I")
PICTURES = {"png": "heatmap", "full_frame_png": "full_frame_heatmap"}

T = TypeVar("T")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few_keys(cls, given: object) -> object:
        """A million unknown ones would be a million errors, while all other clients wait."""
        if isinstance(given, dict) and len(given) > len(cls.model_fields):
            raise ValueError("unknown keys")
        return given


_One = Annotated[list[T], Field(max_length=1)]  # of each: else the whole list is looked at first


class TensorParameters(_Strict):
    """Of the input."""

    binary_data_size: int | None = Field(default=None, ge=0)
    content_type: Literal["base64"] = "base64"


class Tensor(_Strict):
    """The input."""

    name: Literal["image"]
    shape: list[Literal[1]] = Field(min_length=1, max_length=2)
    datatype: Literal["BYTES"]
    parameters: TensorParameters = TensorParameters()
    data: _One[str] | _One[tuple[str]] = []


class OutputParameters(_Strict):
    """Of an output that is asked for."""

    binary_data: bool = False


class Output(_Strict):
    """An output that is asked for; all are where none is."""

    name: str
    parameters: OutputParameters = OutputParameters()


class Parameters(_Strict):
    """Of the request."""

    roi: str | None = None
    explain: str | None = None
    frame: int | None = Field(default=None, strict=True)
    binary_data_output: bool = False


class InferRequest(_Strict):
    """The JSON of a request."""

    id: str = ""
    model_name: str | None = None
    """KServe's client repeats the path's."""
    parameters: Parameters = Parameters()
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[Output] = Field(default=[], max_length=100)


def parse(body: bytes, json_size: str | None) -> tuple[InferRequest, dict[str, bytes]]:
    """A request and its row. Raises Refused (400); its text quotes nothing of the request."""
    try:
        size = len(body) if json_size is None else int(json_size)
        if not 0 <= size <= len(body):
            raise ValueError("its JSON is not as long as it says")
        request = InferRequest.model_validate_json(body[:size])
        (tensor,) = request.inputs
        rest = body[size:]
        if tensor.parameters.binary_data_size is not None:
            (length,) = LENGTH.unpack(rest[: LENGTH.size])
            image = rest[LENGTH.size :]
            if (
                tensor.data
                or len(image) != length
                or len(rest) != tensor.parameters.binary_data_size
            ):
                raise ValueError("inputs.0: its bytes are not as many as it says")
        else:
            (data,) = tensor.data
            if rest:
                raise ValueError("inputs.0: bytes beside data")
            image = base64.b64decode(data if isinstance(data, str) else data[0], validate=True)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        named = first["loc"] if first["type"] != "extra_forbidden" else ()
        raise malformed(f"{'.'.join(map(str, named)) or 'body'}: {first['msg']}") from None
    except (binascii.Error, ValueError, IndexError, struct.error):
        text = "inputs.0: send one element, as base64 in data, or as binary data with its length"
        raise malformed(text) from None
    given = request.parameters.model_dump(exclude_none=True, exclude={"binary_data_output"})
    return request, {"image": image} | {key: str(it).encode() for key, it in given.items()}


def malformed(message: str) -> Refused:
    """The 400 of a request that is not of the protocol."""
    return Refused(400, MALFORMED, message)


def failed(status: int, code: str, message: str, headers: Mapping[str, str] = {}) -> Response:
    """A row's failure in the protocol's form, which the gateway has from a header."""
    body = {"error": f"{code}: {message}"}
    told = {"X-Sonode-Code": code, "X-Sonode-Error": quote(json.dumps(body))}
    return JSONResponse(body, status, {**headers, **told})


def outputs_of(body: bytes) -> dict[str, tuple[str, object]]:
    """Name -> datatype and value, of a handler's answer."""
    found: dict[str, tuple[str, object]] = {"answer": ("BYTES", body)}
    answer = json.loads(body)
    for head, score in answer["heads"].items():
        found[f"{head}.probability"] = ("FP64", score["probability"])
        found[f"{head}.label"] = ("BYTES", score["label"].encode())
    for head, heatmap in answer["heatmaps"].items():
        for key, name in PICTURES.items():
            if key in heatmap:
                found[f"{head}.{name}"] = ("BYTES", base64.b64decode(heatmap[key]))
    return found


def respond(version: Version, request: InferRequest, answer: Answer, id_: str) -> Response:
    """The answer in the protocol's form. Raises Refused (400) for an output that is not there."""
    there = outputs_of(answer.body)
    all_binary = request.parameters.binary_data_output
    asked = {it.name: it.parameters.binary_data for it in request.outputs}
    if unknown := asked.keys() - there.keys():
        raise malformed(f"outputs: {len(unknown)} unknown; there are {', '.join(there)}")
    outputs, blobs = [], []
    for name, binary in (asked or dict.fromkeys(there, False)).items():
        datatype, value = there[name]
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [1]}
        if binary or all_binary:
            blob = (
                LENGTH.pack(len(value)) + value
                if isinstance(value, bytes)
                else struct.pack("<d", value)
            )
            tensor["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        elif isinstance(value, bytes) and "heatmap" in name.rpartition(".")[2]:
            tensor["parameters"] = {"content_type": "base64"}
            tensor["data"] = [base64.b64encode(value).decode()]
        else:
            tensor["data"] = [value.decode() if isinstance(value, bytes) else value]
        outputs.append(tensor)
    said = {"model_name": version.model, "model_version": version.version, "id": request.id or id_}
    text = json.dumps(said | {"outputs": outputs}).encode()
    kind = {"content-type": "application/json"}
    if blobs:
        kind = {"content-type": "application/octet-stream", JSON_SIZE: str(len(text))}
    return Response(b"".join([text, *blobs]), 200, answer.headers | kind)

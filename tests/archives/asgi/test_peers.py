"""Clients of Triton and KServe ask by the Open Inference Protocol; each has its own environment."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archives.asgi.node import AsgiNode
from archives.packing.members import file_sha256
from archives.state.journal import Release
from tests.archives.asgi.open_inference.test_endpoints import behind_gateway
from tests.archives.serving.test_serve import bearer
from tests.conftest import encode
from tests.loopback import LOOPBACK
from tests.servers import ONE_WORKER

pytestmark = pytest.mark.live

PNG = encode(np.random.default_rng(2).integers(0, 256, (80, 120), dtype=np.uint8))
TRITON = """
import base64, json, sys
import numpy as np
import tritonclient.http as triton

address, token, way = sys.argv[1:]
png = sys.stdin.buffer.read()
headers = {"Authorization": f"Bearer {token}"}
client = triton.InferenceServerClient(address)
told = {
    "ready": client.is_server_ready(headers) and client.is_model_ready("tiny", headers=headers),
}
if way == "node":
    told["metadata"] = client.get_model_metadata("tiny", headers=headers)
try:
    client.infer("tiny", [triton.InferInput("image", [1], "FP32")], headers=dict(headers))
except triton.InferenceServerException as error:
    told["refused"] = error.message()
for binary in (True, False):
    image = triton.InferInput("image", [1], "BYTES")
    data = png if binary else base64.b64encode(png).decode()  # its JSON has text alone
    image.set_data_from_numpy(np.array([data], dtype=object), binary_data=binary)
    names = ("answer", "malignancy.probability", "malignancy.label", "malignancy.heatmap")
    outputs = [triton.InferRequestedOutput(it, binary_data=binary) for it in names]
    parameters = {"roi": "5,5,60,60", "explain": "gradcam:malignancy"}
    asked = {"outputs": outputs, "parameters": parameters}
    found = client.infer("tiny", [image], headers=dict(headers), **asked)  # it writes into them
    heatmap = found.as_numpy("malignancy.heatmap")[0]
    told[str(binary)] = {
        "answer": json.loads(found.as_numpy("answer")[0]),
        "probability": float(found.as_numpy("malignancy.probability")[0]),
        "heatmap": base64.b64encode(heatmap).decode() if binary else str(heatmap),
    }
print(json.dumps(told))
"""
KSERVE = """
import asyncio, base64, json, sys
import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

address, token, way = sys.argv[1:]
png = sys.stdin.buffer.read()

async def main():
    headers, url = {"Authorization": f"Bearer {token}"}, f"http://{address}"
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    ready = await client.is_server_ready(url, headers)
    told = {"ready": ready and await client.is_model_ready(url, "tiny", headers)}
    for binary in (True, False, None):
        image = InferInput("image" if binary is not None else "other", [1], "BYTES")
        data = png if binary else base64.b64encode(png)
        image.set_data_from_numpy(np.array([data], dtype=object), binary_data=bool(binary))
        parameters = {"roi": "5,5,60,60", "explain": "gradcam:malignancy"}
        request = InferRequest("tiny", [image], parameters=parameters)
        try:
            answer = await client.infer(url, request, "tiny", dict(headers))
        except httpx.HTTPStatusError as error:
            told["refused"] = str(error)
            continue
        found = {it.name: it.as_numpy()[0] for it in answer.outputs}
        told[str(binary)] = {
            "answer": json.loads(found["answer"]),
            "probability": float(found["malignancy.probability"]),
            "heatmap": found["malignancy.heatmap"],
        }
    print(json.dumps(told))

asyncio.run(main())
"""
PEERS = {"TRITON": TRITON, "KSERVE": KSERVE}


@pytest.fixture(scope="module")
def node(archive_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgiNode]:
    run_dir = tmp_path_factory.mktemp("node")
    models = {"tiny": archive_path.name}
    with AsgiNode(archive_path.parent, models, run_dir, settings=ONE_WORKER) as started:
        yield started


@pytest.mark.parametrize("way", ["node", "gateway"])
@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_gets_what_predictions_answers(
    peer: str, way: str, archive_path: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    python = os.environ.get(f"SONODE_TEST_{peer}")
    if not python:
        pytest.skip(f"SONODE_TEST_{peer} names no Python with that client: see .ci/run")
    node: AsgiNode = request.getfixturevalue("node")
    headers = bearer(node.token()) | {"x-roi": "5,5,60,60", "x-explain": "gradcam:malignancy"}
    url = f"{node.inference_url}/predictions/tiny"
    plain: dict[str, Any] = LOOPBACK.post(url, content=PNG, headers=headers, timeout=60).json()
    with ExitStack() as running:
        address, token = node.inference_url.removeprefix("http://"), node.token()
        if way == "gateway":
            first = Release("1.0", archive_path.name, file_sha256(archive_path))
            before = behind_gateway(node, first, tmp_path)
            gateway = running.enter_context(before)
            address, token = f"127.0.0.1:{gateway.port}", gateway.token
        command = [python, "-c", PEERS[peer], address, token, way]
        done = subprocess.run(command, input=PNG, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    told = json.loads(done.stdout)
    assert told["ready"]
    if (peer, way) == ("TRITON", "node"):
        assert told["metadata"]["name"] == "tiny"
    assert told["refused"].startswith("malformed_request: ")
    for binary in ("True", "False"):
        assert told[binary]["probability"] == plain["heads"]["malignancy"]["probability"]
        assert told[binary]["answer"]["heads"] == plain["heads"]
        assert told[binary]["heatmap"] == plain["heatmaps"]["malignancy"]["png"]

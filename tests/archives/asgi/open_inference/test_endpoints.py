"""The Open Inference Protocol: the same scores in another form, by requests as specified."""

import base64
import json
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from archives.asgi.node import AsgiNode
from archives.asgi.open_inference.forms import parse
from archives.asgi.refused import Refused
from archives.packing.members import file_sha256
from archives.serving.serve_with_gateway import settings_of
from archives.state.journal import Release
from tests.archives.behind import Behind, behind
from tests.archives.serving.test_serve import bearer
from tests.conftest import encode
from tests.loopback import LOOPBACK
from tests.servers import ONE_WORKER

pytestmark = pytest.mark.live

PNG = encode(np.random.default_rng(1).integers(0, 256, (80, 120), dtype=np.uint8))
ROI = "5,5,60,60"
HEADS = ("malignancy", "alnm")


@pytest.fixture(scope="module")
def node(archive_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgiNode]:
    run_dir = tmp_path_factory.mktemp("node")
    models = {"tiny": archive_path.name}
    with AsgiNode(archive_path.parent, models, run_dir, settings=ONE_WORKER) as started:
        yield started


@pytest.fixture(scope="module")
def plain(node: AsgiNode) -> dict[str, Any]:
    """The answer of /predictions to the same image."""
    headers = bearer(node.token()) | {"x-roi": ROI, "x-explain": "gradcam:alnm"}
    url = f"{node.inference_url}/predictions/tiny"
    answer = LOOPBACK.post(url, content=PNG, headers=headers, timeout=60)
    return dict(answer.json())


def ask(node: AsgiNode, path: str, content: bytes = b"", **headers: str) -> httpx.Response:
    method = "POST" if content else "GET"
    given = bearer(node.token()) | headers
    url = node.inference_url + path
    return LOOPBACK.request(method, url, content=content, headers=given, timeout=60)


def tensor(**more: object) -> dict[str, object]:
    data = [base64.b64encode(PNG).decode()]
    return {"name": "image", "shape": [1], "datatype": "BYTES", "data": data} | more


def infer(node: AsgiNode, **facts: object) -> httpx.Response:
    body = json.dumps({"inputs": [tensor()]} | facts).encode()
    return ask(node, "/v2/models/tiny/infer", body)


def test_health_and_what_the_model_takes_and_gives(node: AsgiNode) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/tiny/ready"):
        assert ask(node, path).status_code == 200, path
    assert ask(node, "/v2").json()["extensions"] == ["binary_tensor_data"]
    for path in ("/v2/models/tiny", "/v2/models/tiny/versions/1.0"):
        told = ask(node, path).json()
        assert (told["name"], told["versions"], told["platform"]) == ("tiny", ["1.0"], "sonode")
        assert told["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [1]}]
        assert {it["name"] for it in told["outputs"]} >= {f"{it}.probability" for it in HEADS}
    for path in ("/v2/models/no", "/v2/models/tiny/versions/9/ready", "/v2/models/no/ready"):
        answer = ask(node, path)
        assert (answer.status_code, set(answer.json())) == (404, {"error"})


def test_without_a_token_there_is_no_answer(node: AsgiNode) -> None:
    answer = LOOPBACK.get(f"{node.inference_url}/v2/health/live")
    assert answer.status_code == 400


def test_json_gives_the_same_scores(node: AsgiNode, plain: dict[str, Any]) -> None:
    parameters = {"roi": ROI, "explain": "gradcam:alnm"}
    answer = infer(node, id="7", model_name="tiny", parameters=parameters)
    told = answer.json()
    assert answer.headers["x-sonode-code"] == "ok"
    assert (told["id"], told["model_name"], told["model_version"]) == ("7", "tiny", "1.0")
    outputs = {it["name"]: it for it in told["outputs"]}
    assert json.loads(outputs["answer"]["data"][0]) == plain
    for head in HEADS:
        score = plain["heads"][head]
        assert outputs[f"{head}.probability"]["data"] == [score["probability"]]
        assert outputs[f"{head}.label"]["data"] == [score["label"]]
    assert outputs["alnm.heatmap"]["data"] == [plain["heatmaps"]["alnm"]["png"]]
    assert "malignancy.heatmap" not in outputs
    assert {tuple(it["shape"]) for it in told["outputs"]} == {(1,)}


def test_binary_tensors_give_the_same_scores(node: AsgiNode, plain: dict[str, Any]) -> None:
    element = struct.pack("<I", len(PNG)) + PNG
    own = tensor(parameters={"binary_data_size": len(element)})
    del own["data"]
    parameters = {"roi": ROI, "explain": "gradcam:alnm", "binary_data_output": True}
    head = json.dumps({"inputs": [own], "parameters": parameters}).encode()
    size = {"Inference-Header-Content-Length": str(len(head))}
    answer = ask(node, "/v2/models/tiny/versions/1.0/infer", head + element, **size)
    length = int(answer.headers["inference-header-content-length"])
    told, rest = json.loads(answer.content[:length]), answer.content[length:]
    found = {}
    for output in told["outputs"]:
        size_of = output["parameters"]["binary_data_size"]
        found[output["name"]], rest = rest[:size_of], rest[size_of:]
    assert rest == b""
    score = plain["heads"]["alnm"]
    assert struct.unpack("<d", found["alnm.probability"]) == (score["probability"],)
    png = base64.b64decode(plain["heatmaps"]["alnm"]["png"])
    assert found["alnm.heatmap"] == struct.pack("<I", len(png)) + png


def test_only_the_outputs_that_are_asked_for(node: AsgiNode) -> None:
    asked = [{"name": "alnm.label"}]
    told = infer(node, outputs=asked).json()
    assert [it["name"] for it in told["outputs"]] == ["alnm.label"]
    assert infer(node, outputs=[{"name": "alnm.heatmap"}]).status_code == 400


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({"parameters": {"roi": "5,5,600,60"}}, 422),
        ({"parameters": {"roi": "5,5,x,60"}}, 400),
        ({"parameters": {"DOE^JANE": 1}}, 400),
        ({"parameters": {"frame": True}}, 400),
        ({"inputs": [tensor(data=[["DOE^JANE", "DOE^JOHN"]])]}, 400),
        ({"model_name": "tiny", "inputs": []}, 400),
        ({"model_name": "DOE^JANE"}, 400),
        ({"inputs": [tensor(), tensor()]}, 400),
        ({"inputs": [tensor(name="DOE^JANE")]}, 400),
        ({"inputs": [tensor(shape=[2])]}, 400),
        ({"inputs": [tensor(datatype="UINT8")]}, 400),
        ({"inputs": [tensor(data=["DOE^JANE"])]}, 400),
        ({"inputs": [tensor(data=[])]}, 400),
        ({"inputs": [tensor(parameters={"binary_data_size": 9})]}, 400),
        ({"inputs": [tensor(data=[base64.b64encode(b"GIF89a").decode()])]}, 415),
    ],
)
def test_what_is_wrong_is_refused_and_not_quoted(
    node: AsgiNode, facts: dict[str, object], status: int
) -> None:
    answer = infer(node, **facts)
    assert (answer.status_code, set(answer.json())) == (status, {"error"}), answer.text
    assert "DOE" not in answer.text


MANY = 50_000


@pytest.mark.parametrize(
    "facts",
    [
        {"inputs": [tensor(data=[1] * MANY)]},
        {"outputs": [{"name": "answer"}] * MANY},
        {"parameters": {f"DOE{number}": 1 for number in range(MANY)}},
        {f"DOE{number}": 1 for number in range(MANY)},
    ],
)
def test_what_is_wrong_many_times_is_looked_at_once(facts: dict[str, object]) -> None:
    """An error for each one took GiB of memory, and seconds in which nobody else was answered."""
    body = json.dumps({"inputs": [tensor()]} | facts).encode()
    tracemalloc.start()
    try:
        with pytest.raises(Refused) as caught:
            parse(body, None)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "DOE" not in str(caught.value)
    assert most < 20 * len(body)


def test_headers_of_the_other_api_and_bytes_that_contradict(node: AsgiNode) -> None:
    path, facts = "/v2/models/tiny/infer", json.dumps({"inputs": [tensor()]}).encode()
    assert ask(node, path, facts).status_code == 200
    assert ask(node, path, facts, **{"X-Roi": "5,5,60,60"}).status_code == 400
    for size in (-5, 2 * len(facts)):
        header = {"Inference-Header-Content-Length": str(size)}
        assert ask(node, path, facts, **header).status_code == 400
    header = {"Inference-Header-Content-Length": str(len(facts))}
    assert ask(node, path, facts + PNG, **header).status_code == 400


def test_a_body_that_is_no_json(node: AsgiNode) -> None:
    for body in (b"{", b"[]", PNG):
        answer = ask(node, "/v2/models/tiny/infer", body)
        assert (answer.status_code, set(answer.json())) == (400, {"error"})


# --- through the gateway


@pytest.fixture(scope="module")
def gateway(
    node: AsgiNode, archive_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Behind]:
    first = Release("1.0", archive_path.name, file_sha256(archive_path))
    with behind_gateway(node, first, tmp_path_factory.mktemp("g")) as running:
        yield running


@contextmanager
def behind_gateway(node: AsgiNode, first: Release, state: Path) -> Iterator[Behind]:
    """A gateway before the node, which serves `tiny`."""
    facts = {"model": "tiny", "stable": vars(first), "serves": [vars(first)]}
    with behind([settings_of(node)], state, **facts) as running:
        yield running


def through(
    gateway: Behind, path: str, content: bytes = b"", token: str | None = None, **headers: str
) -> httpx.Response:
    url = f"http://127.0.0.1:{gateway.port}{path}"
    given = bearer(gateway.token if token is None else token) | headers
    return gateway.client.request("POST" if content else "GET", url, content=content, headers=given)


def test_the_gateway_gives_the_same_answer_with_its_own_headers(
    gateway: Behind, plain: dict[str, Any]
) -> None:
    parameters = {"roi": ROI, "explain": "gradcam:alnm"}
    body = json.dumps({"inputs": [tensor()], "parameters": parameters}).encode()
    answer = through(gateway, "/v2/models/tiny/infer", body, **{"X-Study-Id": "s"})
    assert answer.status_code == 200
    assert answer.headers["X-Model-Version"] == "1.0"
    said = {it["name"]: it["data"][0] for it in answer.json()["outputs"]}
    assert json.loads(said["answer"]) == plain
    (row,) = gateway.of(answer, "attempts")
    assert (row["code"], row["version"], bool(row["study"])) == ("ok", "1.0", True)
    assert row["scores"].startswith("malignancy=")


def test_binary_tensors_pass_the_gateway(gateway: Behind) -> None:
    data = struct.pack("<I", len(PNG)) + PNG
    image = tensor(parameters={"binary_data_size": len(data)})
    del image["data"]
    asked = {"inputs": [image], "parameters": {"binary_data_output": True}}
    head = json.dumps(asked).encode()
    size = {"inference-header-content-length": str(len(head))}
    answer = through(gateway, "/v2/models/tiny/infer", head + data, **size)
    assert answer.status_code == 200
    told = json.loads(answer.content[: int(answer.headers["inference-header-content-length"])])
    assert told["model_name"] == "tiny"


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        ({"inputs": []}, 400, "malformed_request: inputs: "),
        ({"inputs": [], "parameters": {"patient": "DOE"}}, 400, "malformed_request: "),
        ({"parameters": {"roi": "5,5,600,60"}}, 422, "invalid_roi: roi: "),
        ({"parameters": {"roi": "5,5,x,60"}}, 400, "malformed_request: roi: "),
    ],
)
def test_a_failure_has_the_protocols_form_behind_the_gateway_too(
    gateway: Behind, facts: dict[str, Any], status: int, words: str
) -> None:
    body = json.dumps({"inputs": [tensor()]} | facts).encode()
    answer = through(gateway, "/v2/models/tiny/infer", body)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert answer.json()["error"].startswith(words)
    assert "DOE" not in answer.text


def test_what_the_gateway_refuses_itself(gateway: Behind) -> None:
    unknown = "not_found: no such path, or no such model"
    stranger = "unauthorized: no client's token; send the header Authorization: Bearer TOKEN"
    for path, content, token, status, said in (
        ("/v2/models/tiny/infer", b"{}", "wrong", 401, stranger),
        ("/v2/models/tiny/infer", b"", None, 405, "method_not_allowed: refused by the gateway"),
        ("/v2/models/other/infer", b"{}", None, 404, unknown),
        ("/v2/models/tiny/versions/1.0/infer", b"{}", None, 404, unknown),
        ("/v2/models/tiny/predictions", b"{}", None, 404, unknown),
        ("/v2/models/tiny/ready", b"", "wrong", 401, stranger),
    ):
        answer = through(gateway, path, content, token)
        assert (answer.status_code, answer.json()) == (status, {"error": said}), path
    for path in ("/infer", "/predictions/infer", "/predictions/tiny?x=/infer"):  # not of it
        assert through(gateway, path, b"{}", "wrong").json().keys() == {"code", "message", "field"}


def test_health_and_readiness_at_the_gateway(gateway: Behind) -> None:
    for path, said in (
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/tiny/ready", {"name": "tiny", "ready": True}),
    ):
        answer = through(gateway, path)
        assert (answer.status_code, answer.json()) == (200, said)

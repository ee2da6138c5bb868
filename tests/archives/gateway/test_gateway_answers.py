"""What of a node's answer reaches a client, and what is told of one that breaks off."""

import http.client
import json
from pathlib import Path

import httpx
import pytest

from archives.gateway import logs
from tests.archives.behind import V1, V2, Behind
from tests.archives.standin import Call, Handler, StandIn

pytestmark = pytest.mark.live

WHOLE = json.dumps({"heat map": "x" * 300_000}).encode()


def sending(status: int, head: dict[str, str], body: bytes):
    """A node that sends so much, and hangs up; version 1.0 is as ever."""

    def behave(node: StandIn, handler: Handler, call: Call) -> bool:
        if call.version == "1.0":
            return False
        handler.send_response(status)
        for key, value in (
            {"X-Sonode-Code": "ok", "Content-Type": "application/json"} | head
        ).items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True
        return True

    return behave


LENGTH = {"Content-Length": str(len(WHOLE))}


@pytest.fixture(scope="module")
def second(gateway: Behind) -> Behind:
    """2.0 answers all."""
    gateway.journal(stable=V2, candidate=None, serves=[V1, V2])
    return gateway


@pytest.mark.parametrize(
    ("status", "head", "body"),
    [
        (200, LENGTH, WHOLE[:-1]),
        (200, LENGTH, WHOLE[:10]),
        (200, LENGTH, b""),
        (422, LENGTH | {"X-Sonode-Code": "invalid_roi"}, WHOLE[:-1]),
    ],
)
def test_an_answer_that_breaks_off_is_logged_as_none(
    second: Behind, nodes: list[StandIn], status: int, head: dict[str, str], body: bytes
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", second.port, timeout=60)
    behave = sending(status, head, body)
    with nodes[0].behaving(behave), nodes[1].behaving(behave):
        token = {"Authorization": f"Bearer {second.token}", "X-Study-Id": "s"}
        connection.request("POST", "/predictions/m", b"pixels", token)
        answer = connection.getresponse()
        with pytest.raises(http.client.IncompleteRead):
            answer.read()
        connection.close()
    told = httpx.Response(status, headers=answer.getheaders())
    (row,) = second.of(told, "requests")
    (attempt,) = second.of(told, "attempts")
    for it in (row, attempt):
        assert (it["status"], it["code"]) == (502, "node_unreachable")
        assert not logs.is_signed_failure(it)


def test_whole_answers_are_logged_as_they_are(second: Behind, nodes: list[StandIn]) -> None:
    behave = sending(200, LENGTH, WHOLE)
    with nodes[0].behaving(behave), nodes[1].behaving(behave):
        answer = second.ask("s")
        assert answer.content == WHOLE
        assert second.of(answer, "requests")[0]["status"] == 200
        assert second.of(answer, "attempts")[0]["status"] == 200
    refused = sending(422, LENGTH | {"X-Sonode-Code": "invalid_roi"}, WHOLE)
    with nodes[0].behaving(refused), nodes[1].behaving(refused):
        answer = second.ask("s")
    (row,) = second.of(answer, "requests")
    assert (row["status"], row["code"]) == (422, "invalid_roi")


def test_a_client_that_leaves_in_the_middle_is_no_failure_of_the_node(
    second: Behind, nodes: list[StandIn]
) -> None:
    many = WHOLE * 30  # more than lies in buffers on the way
    behave = sending(200, {"Content-Length": str(len(many))}, many)
    connection = http.client.HTTPConnection("127.0.0.1", second.port, timeout=60)
    with nodes[0].behaving(behave), nodes[1].behaving(behave):
        token = {"Authorization": f"Bearer {second.token}", "X-Study-Id": "s"}
        connection.request("POST", "/predictions/m", b"pixels", token)
        answer = connection.getresponse()
        connection.sock.close()  # type: ignore[union-attr]
        answer.close()
        told = httpx.Response(200, headers=answer.getheaders())
        assert {it["status"] for it in second.of(told, "requests")} <= {200, 499}
        assert {it["status"] for it in second.of(told, "attempts")} <= {200, 499}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 401, 403, 407])
def test_a_node_sends_clients_nowhere_and_asks_them_for_nothing(
    second: Behind, nodes: list[StandIn], status: int
) -> None:
    head = {"Location": "http://example.org/", "WWW-Authenticate": "Basic", "Content-Length": "2"}
    behave = sending(status, head, b"{}")
    with nodes[0].behaving(behave), nodes[1].behaving(behave):
        answer = second.ask("s")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "10"
    assert not {"Location", "WWW-Authenticate"} & {name.title() for name in answer.headers}
    assert {it["status"] for it in second.of(answer, "attempts", 2)} == {503}


def test_of_an_answers_head_goes_on_what_is_named(second: Behind, nodes: list[StandIn]) -> None:
    head = {
        "Set-Cookie": "a=b",
        "Location": "/elsewhere",
        "Refresh": "0; url=/elsewhere",
        "Access-Control-Allow-Origin": "*",
        "X-Accel-Redirect": "/health",
        "X-Sonode-Scores": "malignancy=0.250000",
        "Cache-Control": "no-cache",
        "Content-Length": "2",
    }
    behave = sending(200, head, b"{}")
    with nodes[0].behaving(behave), nodes[1].behaving(behave):
        answer = second.ask("s")
    assert answer.content == b"{}"
    assert {name.lower() for name in answer.headers} == {
        *("content-type", "content-length", "cache-control", "x-sonode-code", "x-sonode-scores"),
        *("x-model-version", "x-request-id", "server", "date", "connection"),
    }


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x00",
        b"",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nX-Sonode-Code: ok\r\n\r\n{}",
    ],
)
def test_what_does_not_say_how_long_it_is_is_no_answer(
    second: Behind, nodes: list[StandIn], raw: bytes
) -> None:
    def behave(node: StandIn, handler: Handler, call: Call) -> bool:
        handler.wfile.write(raw)
        handler.close_connection = True
        return True

    with nodes[0].behaving(behave):
        assert {second.ask("s").json()["node"] for _ in range(2)} == {"b"}
    with nodes[0].behaving(behave), nodes[1].behaving(behave):
        answer = second.ask("s")
    assert (answer.status_code, answer.json()["code"]) == (502, "node_unreachable")
    told = [*second.of(answer, "requests"), *second.of(answer, "attempts", 2)]
    assert [(it["status"], it["code"]) for it in told] == [(502, "node_unreachable")] * 3


def kept(folder: Path) -> int:
    """Connections from hop to hop, at the sockets of the nodes a and b; Linux tells them."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return sum(
        line[5] == "03"
        and line[-1].startswith(str(folder))
        and line[-1][-7:] in ("/a.sock", "/b.sock")
        for line in lines[1:]
    )


def test_no_connection_from_hop_to_hop_is_kept_until_the_other_end_may_close_it(
    second: Behind,
) -> None:
    """Two that an ending nginx closes at once, to either node, would be a 502."""
    for _ in range(10):
        assert second.ask("s").status_code == 200
    folder = second.state / "gateway"
    assert kept(folder) > 0
    second.wait(lambda: kept(folder) == 0, 20)  # nginx's own time would be 60 s

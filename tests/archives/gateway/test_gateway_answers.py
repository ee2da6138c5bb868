"""What of a node's answer reaches a client, and what is told of one that breaks off."""

import http.client
import json
from contextlib import nullcontext

import httpx
import pytest

from archives.gateway import logs as gateway_logs
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
CHUNKED = {"Transfer-Encoding": "chunked"}


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
        (200, CHUNKED, b"5\r\nhello\r\n"),  # without the last chunk
        (200, {}, WHOLE[:-1]),
    ],
)
def test_an_answer_that_breaks_off_is_told_as_none(
    second: Behind, nodes: list[StandIn], status: int, head: dict[str, str], body: bytes
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", second.port, timeout=60)
    behave = sending(status, head, body)
    with nodes[0].behaving(behave), nodes[1].behaving(behave):
        token = {"Authorization": f"Bearer {second.token}", "X-Study-Id": "s"}
        connection.request("POST", "/predictions/m", b"pixels", token)
        answer = connection.getresponse()
        # Without a length nothing tells a client that an answer ends too early.
        with pytest.raises(http.client.IncompleteRead) if head else nullcontext():
            answer.read()
        connection.close()
    told = httpx.Response(status, headers=answer.getheaders())
    (row,) = second.of(told, "requests")
    (attempt,) = second.of(told, "attempts")
    for it in (row, attempt):
        assert (it["status"], it["code"]) == (502, "node_unreachable")
        assert not gateway_logs.is_signed_failure(it)


def test_whole_answers_are_told_as_they_are(second: Behind, nodes: list[StandIn]) -> None:
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

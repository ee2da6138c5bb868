"""A gateway before nodes of both servers: what one of them does not speak blames no version."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from archives.gateway import logs
from archives.rollout import traffic_permit
from tests.archives.behind import V1, V2, Behind, behind
from tests.archives.standin import Call, Handler, StandIn
from tests.loopback import LOOPBACK

pytestmark = pytest.mark.live
INFER = "/v2/models/m/infer"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[StandIn]]:
    """The first as TorchServe, the second as the second server."""
    folder = tmp_path_factory.mktemp("n")
    both = [StandIn(folder, name, versions={"1.0": 1, "2.0": 1}) for name in ("a", "b")]
    both[0].speaks_open_inference = False
    for node in both:
        node.start()
    yield both
    for node in both:
        node.stop()


def ready(gateway: Behind) -> int:
    url = f"http://127.0.0.1:{gateway.port}/v2/health/ready"
    return gateway.client.get(url).status_code


def check_refused(gateway: Behind, answer: httpx.Response, status: int) -> None:
    """By the gateway itself, in words: no version has to do with it."""
    assert answer.status_code == status
    assert "no node that can answer speaks" in answer.json()["error"]
    assert answer.headers.get("Retry-After") == {503: "10", 404: None}[status]
    assert "X-Model-Version" not in answer.headers
    (row,) = gateway.of(answer, "requests")
    assert not logs.was_tried(row)


def test_open_inference_goes_to_the_nodes_that_speak_it(
    gateway: Behind, nodes: list[StandIn]
) -> None:
    traffic_permit.grant(gateway.state)
    for step in ({"shadow_percent": 100.0}, {"shadow_percent": 0.0, "percent": 50.0}):
        gateway.journal(rollout="r", serves=[V1, V2], **step)
        answers = [gateway.ask(f"study {number}", path=INFER) for number in range(12)]
        assert {it.json()["node"] for it in answers} == {"b"}
        mirrored = 2 if "percent" not in step else 1
        for answer in answers:
            attempts = gateway.of(answer, "attempts", mirrored)
            assert {(it["node"], it["status"]) for it in attempts} == {("b", 200)}
            assert gateway.of(answer, "requests")[0]["tries"] == 1
    assert {it.headers["X-Model-Version"] for it in answers} == {"1.0", "2.0"}
    assert {gateway.ask(f"study {n}").json()["node"] for n in range(12)} == {"a", "b"}
    assert not [call for call in nodes[0].calls if call.path.startswith("/v2/")]


def test_a_version_that_no_such_node_has_is_not_asked(
    gateway: Behind, nodes: list[StandIn]
) -> None:
    """Neither by clients, nor by a mirror, nor for what the old one has failed."""

    def fail(node: StandIn, handler: Handler, call: Call) -> bool:
        body = {"code": "inference_failed", "message": "its own"}
        handler.answer(500, body, {"X-Sonode-Code": "inference_failed"})
        return True

    traffic_permit.grant(gateway.state)
    nodes[1].versions["2.0"] = 0  # it has no worker there
    try:
        gateway.journal(rollout="r", serves=[V1, V2], percent=100.0)
        gateway.wait(lambda: {gateway.ask("s").json()["node"] for _ in range(4)} == {"a"})
        check_refused(gateway, gateway.ask("s", path=INFER), 503)
        assert gateway.ask(path=INFER).json()["version"] == "1.0"  # without a study
        with nodes[1].behaving(fail):
            (row,) = gateway.of(gateway.ask(path=INFER), "requests")
        assert (row["statuses"], row["replay"]) == ("500, 500", "")
        gateway.journal(rollout="r", percent=0.0, shadow_percent=100.0)
        mirrored = [gateway.ask(path=path) for path in ("/predictions/m", INFER, "/predictions/m")]
        counts = [2, 1, 2]
        rows = [gateway.of(it, "attempts", n) for it, n in zip(mirrored, counts, strict=True)]
        assert [len(it) for it in rows] == counts
    finally:
        nodes[1].versions["2.0"] = 1
        gateway.journal(percent=0.0, shadow_percent=0.0)


def test_where_none_speaks_it_the_gateway_says_so(gateway: Behind, nodes: list[StandIn]) -> None:
    assert ready(gateway) == 200
    nodes[1].stop()
    gateway.wait(lambda: gateway.applied()["nodes"]["b"] == "does not answer")
    gateway.wait(lambda: ready(gateway) == 400)
    check_refused(gateway, gateway.ask(path=INFER), 503)  # it may come back
    assert gateway.ask().json()["node"] == "a"
    nodes[1].speaks_open_inference = False
    nodes[1].start(anew=True)
    gateway.wait(lambda: gateway.applied()["nodes"]["b"] == "up")
    gateway.wait(lambda: gateway.ask(path=INFER).status_code != 503)
    check_refused(gateway, gateway.ask(path=INFER), 404)
    url = f"http://127.0.0.1:{gateway.port}"
    assert LOOPBACK.get(f"{url}/health").status_code == 200
    headers = {"Authorization": f"Bearer {gateway.token}"}
    told = LOOPBACK.get(f"{url}/v2/models/m/ready", headers=headers)
    assert (ready(gateway), told.status_code) == (400, 400)
    nodes[1].stop()
    nodes[1].speaks_open_inference = True
    nodes[1].start(anew=True)
    gateway.wait(lambda: ready(gateway) == 200)
    assert gateway.ask(path=INFER).status_code == 200


@pytest.mark.parametrize("live", [302, 400, 403, 500, 503])
def test_a_node_that_says_neither_yes_nor_no_answers_predictions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, live: int
) -> None:
    node = StandIn(tmp_path / "n", "c", live=live)
    node.start()
    try:
        with behind([node.settings()], tmp_path / "g") as gateway:
            gateway.wait(lambda: gateway.applied()["nodes"] == {"c": "up"})
            assert gateway.ask().json()["node"] == "c"
            check_refused(gateway, gateway.ask(path=INFER), 503)
            assert "node c: its /v2/health/live answers neither" in caplog.text
            node.live = 200
            gateway.wait(lambda: gateway.ask(path=INFER).status_code == 200)
    finally:
        node.stop()


def test_a_gateway_that_starts_while_the_only_speaker_is_away_does_not_say_never(
    tmp_path: Path,
) -> None:
    here, away = StandIn(tmp_path / "n", "a"), StandIn(tmp_path / "n", "b")
    here.speaks_open_inference = False
    for node in (here, away):
        node.start()
    away.stop()
    try:
        with behind([here.settings(), away.settings()], tmp_path / "g") as gateway:
            gateway.wait(lambda: gateway.applied()["nodes"]["a"] == "up")
            check_refused(gateway, gateway.ask(path=INFER), 503)
            away.start(anew=True)
            gateway.wait(lambda: gateway.ask(path=INFER).status_code == 200)
            away.stop()
    finally:
        here.stop()

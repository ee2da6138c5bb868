"""A live nginx as gateway before stand-ins: who may ask, what goes on, which version answers."""

import hashlib
import hmac
import http.client
import json
import math
import re
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from archives.gateway.configuration.render import render
from archives.gateway.configuration.settings import GatewaySettings
from archives.gateway.nginx.nginx import SOCKET_PATH_MAX, Nginx
from archives.gateway.supervisor import Supervisor, only_one
from archives.judging.reports.ab_report import measures
from archives.serving.predict import client_name
from archives.state import tokens_and_keys
from archives.state.journal import Desired
from archives.torchserve.java import claim_ports
from sonode.console import UserError
from tests.archives.behind import V1, V2, Behind, behind, load, start_journal
from tests.archives.standin import Call, Handler, StandIn
from tests.loopback import LOOPBACK

pytestmark = pytest.mark.live
HERE = Path(__file__).parents[2]
LIMIT = 33_554_432


@pytest.fixture
def free(tmp_path: Path) -> Iterator[StandIn]:
    """A node that no other gateway has."""
    node = StandIn(tmp_path / "free", "a", versions={"1.0": 1, "2.0": 1})
    node.start()
    yield node
    node.stop()


def calls(nodes: list[StandIn]) -> list[Call]:
    return [call for node in nodes for call in node.calls]


# --- who may ask, and what


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("POST", path, 404) for path in ("/", "/models", "/predictions", "/predictions/other")),
        *(
            ("POST", path, 404)
            for path in ("/predictions/m/1.0", "/predictions/m/", "/invocations")
        ),
        *(("POST", path, 404) for path in ("/refused", "/shadow", "/wfpredict/m", "/v2/models/m")),
        *(
            ("GET", path, 404)
            for path in ("/ping", "/models/m", "/metrics", "/token", "/api-description")
        ),
        ("DELETE", "/models/m/1.0", 404),
        ("GET", "/predictions/m", 405),
        ("PUT", "/predictions/m", 405),
        ("POST", "/health", 405),
        ("POST", "/client", 405),
        ("POST", "//v2/health/live", 405),
        ("POST", "/predictions/%6d/..%2fx", 404),
    ],
)
def test_nothing_else_is_reachable(
    gateway: Behind, nodes: list[StandIn], method: str, path: str, status: int
) -> None:
    before = len(calls(nodes))
    answer = gateway.client.request(
        method,
        f"http://127.0.0.1:{gateway.port}{path}",
        headers={"Authorization": f"Bearer {gateway.token}"},
    )
    assert answer.status_code == status
    assert "X-Model-Version" not in answer.headers  # no version has answered
    reads = path in ("/health", "/client", "//v2/health/live")
    allowed = ("GET, HEAD" if reads else "POST") if status == 405 else None
    assert answer.headers.get("Allow") == allowed
    assert len(calls(nodes)) == before


def test_both_apis_and_health(gateway: Behind, nodes: list[StandIn]) -> None:
    for api in ("predictions", "explanations"):
        answer = gateway.ask(path=f"/{api}/m")
        assert answer.json()["version"] == answer.headers["X-Model-Version"] == "1.0"
    paths = {call.path for call in calls(nodes)}
    assert {"/predictions/m/1.0", "/explanations/m/1.0"} <= paths
    health = f"http://127.0.0.1:{gateway.port}/health"
    answer = gateway.client.get(health)  # without a token
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert "X-Model-Version" not in answer.headers  # no version has answered
    answer = gateway.client.get(health, headers={"If-Match": '"x"'})
    assert (answer.status_code, answer.json()["code"]) == (412, "bad_request")


def test_a_client_is_told_its_name(gateway: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{gateway.port}"
    monkeypatch.setenv("SONODE_TOKEN", gateway.token)
    assert client_name(url, None) == "clinic"
    monkeypatch.setenv("SONODE_TOKEN", "x")
    with pytest.raises(UserError, match="the token is refused"):
        client_name(url, None)
    with pytest.raises(UserError, match="no server answers"):
        client_name("http://127.0.0.1:9", None)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Basic {}", "Bearer {}x", "{}", "Bearer x {}"]
)
def test_no_token_no_answer(gateway: Behind, nodes: list[StandIn], header: str | None) -> None:
    before = len(calls(nodes))
    headers = {} if header is None else {"Authorization": header.format(gateway.token)}
    url = f"http://127.0.0.1:{gateway.port}/predictions/m"
    answer = gateway.client.post(url, content=b"x", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "X-Model-Version" not in answer.headers
    assert len(calls(nodes)) == before


def test_a_client_comes_and_goes_while_the_gateway_runs(gateway: Behind) -> None:
    token = tokens_and_keys.add_client(gateway.state, "archive")
    bearer = {"Authorization": f"Bearer {token}"}
    assert gateway.ask(headers=bearer).status_code == 200
    assert gateway.ask().status_code == 200
    again = tokens_and_keys.add_client(gateway.state, "archive")
    assert gateway.ask(headers=bearer).status_code == 401
    assert gateway.ask(headers={"Authorization": f"Bearer {again}"}).status_code == 200
    tokens_and_keys.remove_client(gateway.state, "archive")
    assert gateway.ask(headers={"Authorization": f"Bearer {again}"}).status_code == 401
    path = gateway.state / "clients.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert gateway.token not in path.read_text()


def test_without_the_list_of_clients_nobody_is_let_in_or_called_unknown(
    gateway: Behind,
) -> None:
    path = gateway.state / "clients.json"
    aside = path.rename(path.with_suffix(".aside"))
    try:
        assert gateway.ask().status_code == 503
        for damaged in ("{", "[]", "null", '"x"', '{"clinic": 1}', '{"clinic": null, "pacs": "0"}'):
            path.write_text(damaged)
            assert gateway.ask().status_code == 503, damaged
    finally:
        aside.rename(path)
    assert gateway.ask().status_code == 200


@pytest.mark.parametrize(
    ("request_line", "header", "status"),
    [
        ("POST /predictions/m HTTP/1.1", "Transfer-Encoding: gzip", 501),
        ("POST /predictions/m HTTP/3.0", "X-None: 1", 505),
    ],
)
def test_what_nginx_does_not_speak_is_refused_like_all_else(
    gateway: Behind, request_line: str, header: str, status: int
) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(f"{request_line}\r\nHost: x\r\n{header}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["code"]) == (status, "bad_request")


@pytest.mark.parametrize(("base", "field"), [("/v2/models/m/", "error"), ("/predictions/", "code")])
def test_a_path_that_is_too_long_is_refused_in_the_form_of_its_protocol(
    gateway: Behind, base: str, field: str
) -> None:
    answer = gateway.ask(path=base + "x" * 9000)
    assert (answer.status_code, field in answer.json()) == (414, True)


def test_bodies_up_to_the_limit_of_torchserve(gateway: Behind, nodes: list[StandIn]) -> None:
    assert gateway.ask(content=bytes(LIMIT)).status_code == 200
    assert max(len(call.body) for call in calls(nodes)) == LIMIT
    answer = gateway.ask(content=bytes(LIMIT + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
    assert "X-Model-Version" not in answer.headers


def test_what_goes_on_to_torchserve(gateway: Behind, nodes: list[StandIn]) -> None:
    headers = {
        "X-Roi": "1,2,3,4",
        "X-Explain": "gradcam",
        "X-Frame": "0",
        "Content-Type": "image/png",
        "Content-Encoding": "gzip",
    }
    noise = {"Cookie": "a=b", "X-Request-Id-Prefix": "DOE", "describe": "True"}
    noise |= {"X-Request-Id": "DOE", "X-Sonode-Study": "DOE", "traceparent": "DOE"}
    answer = gateway.ask("DOE-JANE", headers=headers | noise)
    call = max(calls(nodes), key=lambda it: it.headers.get("x-roi", ""))
    got = {name: value for name, value in call.headers.items() if name.startswith(("x-", "con"))}
    assert got == {name.lower(): value for name, value in headers.items()} | {"content-length": "6"}
    assert set(call.headers) == set(got) | {"host", "authorization", "traceparent"}
    its_own = answer.headers["X-Request-Id"]
    assert call.headers["traceparent"] == f"00-{its_own}-{its_own[:16]}-01"
    # Of the answer everything but TorchServe's own id, which the log has.
    assert answer.headers["X-Sonode-Scores"] == "malignancy=0.250000"
    assert answer.headers["X-Request-Id"] != "its-own"
    assert gateway.of(answer, "attempts")[0]["node_id"] == "its-own"


def test_an_encoded_form_is_refused_since_torchserve_cannot_read_it(
    gateway: Behind, nodes: list[StandIn]
) -> None:
    form = "multipart/form-data; boundary=b"
    for kind, coding in ((form, None), (form, "identity"), ("image/png", "gzip")):
        headers = {"Content-Type": kind} | ({"Content-Encoding": coding} if coding else {})
        assert gateway.ask(headers=headers).status_code == 200
    before = len(calls(nodes))
    answer = gateway.ask(headers={"Content-Type": form, "Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_encoding")
    assert "raw bytes or JSON by gzip" in answer.json()["message"]
    assert len(calls(nodes)) == before


# --- what is written


def test_a_client_that_leaves_its_socket_open_does_not_make_a_version_slow(
    gateway: Behind, nodes: list[StandIn]
) -> None:
    head = f"POST /predictions/m HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.token}\r\n"
    for node in nodes:
        node.delay_s = {"1.0": 0.05}
    try:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as connection:
            # More than it announces: nginx answers, and lingers for what is left.
            connection.sendall(f"{head}Connection: close\r\nContent-Length: 1\r\n\r\nxyz".encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200
            mine = answer.headers["X-Request-Id"]
            gateway.wait(lambda: [it for it in gateway.lines("requests") if it["id"] == mine])
    finally:
        for node in nodes:
            node.delay_s = {}
    (row,) = (it for it in gateway.lines("requests") if it["id"] == mine)
    told = measures([row])["ms"]["p50"]["value"]
    assert told >= 50
    assert row["ms"] - told > 1900  # lingering_timeout is 2 s


def test_logs_hold_a_keyed_hash_and_nothing_of_the_client(gateway: Behind) -> None:
    answer = gateway.ask("DOE-JANE-1970", params={"patient": "DOE"}, headers={"Referer": "DOE"})
    gateway.client.get(f"http://127.0.0.1:{gateway.port}/DOE/JANE", headers={"Host": "doe"})
    (request,) = gateway.of(answer, "requests")
    (attempt,) = gateway.of(answer, "attempts")
    key = (gateway.state / "key").read_bytes()
    assert stat.S_IMODE((gateway.state / "key").stat().st_mode) == 0o600
    hashed = hmac.new(key, b"DOE-JANE-1970", hashlib.sha256).hexdigest()
    assert request["study"] == attempt["study"] == hashed
    assert {**request, "t": 0, "ms": 0, "bytes": 0} == {
        **{"t": 0, "id": answer.headers["X-Request-Id"], "client": "clinic", "study": hashed},
        **{"arm": "stable", "version": "1.0", "status": 200, "code": "ok"},
        **{"ms": 0, "bytes": 0, "tries": 1, "statuses": "200", "waited": request["waited"]},
        **{"replay": "", "parent": "", "seq": 1},
    }
    assert 0 <= float(request["waited"]) <= 0.001 + request["ms"] / 1000
    assert {**attempt, "t": 0, "ms": 0, "node": ""} == {
        **{"t": 0, "id": answer.headers["X-Request-Id"], "arm": "stable", "version": "1.0"},
        **{"node": "", "status": 200, "code": "ok", "ms": 0, "scores": "malignancy=0.250000"},
        **{"labels": "malignancy=benign", "study": hashed, "node_id": "its-own"},
        **{"client": "clinic", "seq": 1},
    }
    for path in (gateway.state / "gateway").rglob("*"):
        if path.is_file():
            text = path.read_text(errors="replace")
            assert "DOE" not in text and "doe" not in text, path


def test_rotation_loses_no_line(gateway: Behind) -> None:
    assert gateway.supervisor
    logs = [gateway.state / "gateway" / f"{name}.jsonl" for name in ("requests", "attempts")]
    gateway.of(gateway.ask(), "requests")  # and those before it are there
    before = len(gateway.lines("requests"))
    with load(gateway) as told:
        for _ in range(3):
            # nginx makes them anew a moment after a rotation
            gateway.wait(lambda: all(log.exists() and log.stat().st_size for log in logs))
            gateway.wait(lambda: gateway.ask().status_code == 200)
            before += 1
            moved = gateway.supervisor.nginx.rotate(limit=0)
            assert {it.name.partition("-")[0] for it in moved} >= {"attempts", "requests"}
    assert set(told) == {"200"}
    gateway.wait(lambda: len(gateway.lines("requests")) == before + told["200"])
    assert len(list((gateway.state / "gateway").glob("requests-*.jsonl"))) == 3
    assert list((gateway.state / "gateway").glob("error-*.log"))  # nginx's own, at each change


# --- which version answers


def by_study(gateway: Behind, studies: int) -> dict[int, str]:
    return {n: gateway.ask(f"study {n}").headers["X-Model-Version"] for n in range(studies)}


def test_a_study_stays_on_its_side_and_sides_nest(gateway: Behind) -> None:
    studies, moved = 100, {}
    for percent in (10.0, 30.0, 60.0):
        gateway.journal(percent=percent)
        sides = by_study(gateway, studies)
        assert by_study(gateway, 20) == {n: sides[n] for n in range(20)}
        moved[percent] = {n for n, version in sides.items() if version == "2.0"}
        spread = math.sqrt(studies * percent / 100 * (1 - percent / 100))
        assert abs(len(moved[percent]) - studies * percent / 100) <= 4.5 * spread
        assert gateway.ask().headers["X-Model-Version"] == "1.0"  # without a study
    assert moved[10.0] < moved[30.0] < moved[60.0]
    gateway.journal(percent=60.0, salt="another")
    other = {n for n, version in by_study(gateway, studies).items() if version == "2.0"}
    assert 0.35 < len(other & moved[60.0]) / len(moved[60.0]) < 0.85
    gateway.journal(percent=100.0)
    assert set(by_study(gateway, 20).values()) == {"2.0"}
    gateway.journal(percent=0.0, salt="s")
    assert set(by_study(gateway, 20).values()) == {"1.0"}


def test_an_error_names_the_version_of_its_side(gateway: Behind, nodes: list[StandIn]) -> None:
    def refuse(node: StandIn, handler: Handler, call: Call) -> bool:
        handler.answer(422, {"code": "invalid_roi"}, {"X-Sonode-Code": "invalid_roi"})
        return True

    gateway.journal(percent=100.0)
    with nodes[0].behaving(refuse), nodes[1].behaving(refuse):
        answer = gateway.ask("study 1")
    gateway.journal(percent=0.0)
    assert (answer.status_code, answer.json()) == (422, {"code": "invalid_roi"})
    assert answer.headers["X-Model-Version"] == "2.0"
    (line,) = gateway.of(answer, "requests")
    assert (line["arm"], line["code"], line["tries"]) == ("candidate", "invalid_roi", 1)


def test_a_shadow_is_not_waited_for(gateway: Behind, nodes: list[StandIn]) -> None:
    released = threading.Event()

    def hang(node: StandIn, handler: Handler, call: Call) -> bool:
        if call.version == "2.0":
            assert released.wait(60)
        return False

    gateway.journal(shadow_percent=100.0)
    with nodes[0].behaving(hang), nodes[1].behaving(hang):
        try:
            # One connection that is kept: were the shadow waited for, the second would not come.
            answers = [gateway.ask(f"study {n}") for n in range(2)]  # within its budget
            assert not released.is_set()
        finally:
            released.set()
        pairs = [gateway.of(answer, "attempts", 2) for answer in answers]
    gateway.journal(shadow_percent=0.0)
    for answer, pair in zip(answers, pairs, strict=True):
        assert answer.headers["X-Model-Version"] == "1.0"
        assert [(it["arm"], it["version"]) for it in pair] == [("stable", "1.0"), ("shadow", "2.0")]
        assert pair[0]["study"] == pair[1]["study"] != ""
    assert [gateway.of(answer, "requests")[0]["tries"] for answer in answers] == [1] * 2


INFER = "/v2/models/m/infer"


def test_the_open_inference_protocol_is_mirrored_and_split_alike(
    gateway: Behind, nodes: list[StandIn]
) -> None:
    gateway.journal(shadow_percent=100.0)
    before = len(calls(nodes))
    answer = gateway.ask("s", path=INFER)
    pair = gateway.of(answer, "attempts", 2)
    assert {(it["arm"], it["version"]) for it in pair} == {("stable", "1.0"), ("shadow", "2.0")}
    paths = {f"/v2/models/m/versions/{version}/infer" for version in ("1.0", "2.0")}
    assert {call.path for call in calls(nodes)} & paths == paths
    assert len(calls(nodes)) == before + 2
    gateway.journal(shadow_percent=0.0, percent=50.0)
    studies = [f"study {number}" for number in range(30)]
    told = [gateway.ask(it, path=INFER).headers["X-Model-Version"] for it in studies]
    assert told == [gateway.ask(it).headers["X-Model-Version"] for it in studies]
    assert set(told) == {"1.0", "2.0"}
    gateway.journal(percent=0.0)


def test_a_share_of_the_requests_is_mirrored(gateway: Behind) -> None:
    gateway.journal(shadow_percent=30.0)
    mine = {gateway.ask().headers["X-Request-Id"] for _ in range(120)}
    gateway.journal(shadow_percent=0.0)
    lines = [line for line in gateway.lines("attempts") if line["id"] in mine]
    shadows = sum(line["arm"] == "shadow" for line in lines)
    assert sum(line["arm"] == "stable" for line in lines) == 120
    assert abs(shadows - 36) <= 4.5 * math.sqrt(120 * 0.3 * 0.7)


def test_a_shadow_that_fails_is_seen_in_the_log_only(gateway: Behind, nodes: list[StandIn]) -> None:
    def fail(node: StandIn, handler: Handler, call: Call) -> bool:
        if call.version == "2.0":
            handler.answer(507, {"code": 507})
        return call.version == "2.0"

    gateway.journal(shadow_percent=100.0)
    with nodes[0].behaving(fail), nodes[1].behaving(fail):
        answer = gateway.ask()
        stable, shadow = sorted(gateway.of(answer, "attempts", 2), key=lambda it: it["version"])
    gateway.journal(shadow_percent=0.0)
    assert (answer.status_code, stable["status"]) == (200, 200)
    assert (shadow["arm"], shadow["status"], shadow["code"]) == ("shadow", 503, "unavailable")


def test_an_answer_whose_head_is_too_long_is_not_called_ok(
    gateway: Behind, nodes: list[StandIn]
) -> None:
    def answer(node: StandIn, handler: Handler, call: Call) -> bool:
        # It says ok, and then more than nginx takes.
        handler.answer(200, {}, {"X-Sonode-Code": "ok", "X-Long": "x" * 20_000})
        handler.close_connection = True
        return True

    with nodes[0].behaving(answer), nodes[1].behaving(answer):
        found = gateway.ask()
    assert (found.status_code, found.json()["code"]) == (502, "node_unreachable")
    codes = {it["code"] for it in gateway.of(found, "attempts", 2)}
    assert codes == {"node_unreachable"}


# --- the operator


def test_a_second_gateway_is_refused(tmp_path: Path) -> None:
    with (
        only_one(tmp_path),
        pytest.raises(UserError, match=r"--state .*gateway"),
        only_one(tmp_path),
    ):
        pass


def test_without_a_client_nobody_may_ask_until_there_is_one(
    free: StandIn, short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = claim_ports({"gateway": None})["gateway"]
    start_journal(short_path)
    with Supervisor([free.settings()], short_path, GatewaySettings(port=port)):
        assert "NO TOKENS yet" in capsys.readouterr().out
        gateway = Behind(short_path, port, "of nobody")
        assert gateway.ask().status_code == 401
        gateway.token = tokens_and_keys.add_client(short_path, "clinic")
        assert gateway.ask().status_code == 200
        gateway.client.close()


def key_of_a_start(state: Path) -> bytes:
    tokens_and_keys.prepare(state)
    return tokens_and_keys.study_key(state)


def test_clients_and_keys_made_at_the_same_moment_are_all_kept(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        starts = [pool.submit(key_of_a_start, tmp_path) for _ in range(4)]
        tokens = list(pool.map(partial(tokens_and_keys.add_client, tmp_path), names))
        keys = {start.result() for start in starts}
    assert keys == {tokens_and_keys.study_key(tmp_path)}
    assert len(set(tokens)) == 16
    assert sorted(tokens_and_keys.clients(tmp_path)) == sorted(names)


def test_secrets_that_others_can_read_are_refused(tmp_path: Path) -> None:
    tokens_and_keys.add_client(tmp_path, "clinic")
    (tmp_path / "clients.json").chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        tokens_and_keys.clients(tmp_path)


def test_names_of_clients(tmp_path: Path) -> None:
    for name in ("", "a b", "-x", 'x"', "ä"):
        with pytest.raises(UserError, match="use letters"):
            tokens_and_keys.add_client(tmp_path, name)
    with pytest.raises(UserError, match="no such client; there is none"):
        tokens_and_keys.remove_client(tmp_path / "typo", "clinic")
    assert not (tmp_path / "typo").exists()


def test_one_client_does_not_use_up_the_rate_of_another(free: StandIn, tmp_path: Path) -> None:
    with behind([free.settings()], tmp_path, rate=1, candidate=V2, serves=[V1, V2]) as slow:
        other = {"Authorization": f"Bearer {tokens_and_keys.add_client(tmp_path, 'other')}"}
        answers = [slow.ask() for _ in range(40)]
        assert slow.ask(headers=other).status_code == 200
    assert answers[0].status_code == 200
    refused = {answer.json()["code"] for answer in answers if answer.status_code == 429}
    assert refused == {"too_many_requests"}


def test_one_client_does_not_hold_all_of_the_memory(free: StandIn, tmp_path: Path) -> None:
    released = threading.Event()

    def hang(node: StandIn, handler: Handler, call: Call) -> bool:
        return not released.wait(60)

    serves = {"candidate": V2, "serves": [V1, V2]}
    with behind([free.settings()], tmp_path, at_once=2, **serves) as slow:
        other = tokens_and_keys.add_client(tmp_path, "other")
        before = len(free.calls)
        with free.behaving(hang), ThreadPoolExecutor(6) as pool:
            try:
                asked = [pool.submit(slow.ask) for _ in range(5)]  # two in each of two workers
                slow.wait(  # each is refused or held
                    lambda: sum(it.done() for it in asked) + len(free.calls) - before == len(asked)
                )
                held = [it for it in asked if not it.done()]
                others = pool.submit(slow.ask, headers={"Authorization": f"Bearer {other}"})
                slow.wait(lambda: len(free.calls) == before + len(held) + 1)
            finally:
                released.set()
            assert [it.result().status_code for it in (*held, others)] == [200] * (len(held) + 1)
        assert slow.ask().status_code == 200
    assert 2 <= len(held) <= 4
    for refused in set(asked) - set(held):
        found = refused.result()
        assert (found.status_code, found.json()["code"]) == (429, "too_many_requests")


def test_tls(free: StandIn, tmp_path: Path) -> None:
    port = claim_ports({"gateway": None})["gateway"]
    token = tokens_and_keys.add_client(tmp_path, "clinic")
    start_journal(tmp_path, candidate=V2, serves=[V1, V2])
    settings = GatewaySettings(
        port=port,
        certificate=HERE / "localhost.pem",
        certificate_key=HERE / "localhost-key.pem",
    )
    trusted = ssl.create_default_context(cafile=str(HERE / "localhost.pem"))
    with (
        Supervisor([free.settings()], tmp_path, settings),
        httpx.Client(verify=trusted, trust_env=False) as client,
    ):
        url = f"https://localhost:{port}/predictions/m"
        answer = client.post(url, headers={"Authorization": f"Bearer {token}"}, content=b"x")
        plain = client.get(f"http://localhost:{port}/health")
    assert answer.status_code == 200
    assert (plain.status_code, plain.json()["code"]) == (400, "bad_request")


def test_a_gateway_before_its_first_deployment(nodes: list[StandIn], tmp_path: Path) -> None:
    port = claim_ports({"gateway": None})["gateway"]
    tokens_and_keys.add_client(tmp_path, "clinic")
    with Supervisor([nodes[0].settings()], tmp_path, GatewaySettings(port=port)):
        base = f"http://127.0.0.1:{port}"
        assert LOOPBACK.get(f"{base}/health").status_code == 503
        assert LOOPBACK.post(f"{base}/predictions/m").status_code == 404


def test_a_state_folder_that_nginx_cannot_work_in(nodes: list[StandIn], tmp_path: Path) -> None:
    settings = GatewaySettings(port=claim_ports({"gateway": None})["gateway"])
    linked = tmp_path / "a;b"  # its own folder lies elsewhere; the configuration names this one
    (linked / "gateway").mkdir(parents=True)
    (tmp_path / "c d").mkdir()
    (tmp_path / "good").mkdir()
    (tmp_path / "c d" / "gateway").symlink_to(tmp_path / "good")
    for state, said in [
        (tmp_path / "a b", "choose a path of letters"),
        (tmp_path / "a,b", "choose a path of letters"),
        (linked, "choose a path of letters"),
        (tmp_path / "c d", "choose a path of letters"),
        (tmp_path / ("x" * 90), "choose a shorter path"),
    ]:
        with pytest.raises(UserError, match=said):
            Supervisor([nodes[0].settings()], state, settings).__enter__()


def test_a_port_in_use(nodes: list[StandIn], gateway: Behind, tmp_path: Path) -> None:
    tokens_and_keys.add_client(tmp_path, "clinic")
    # nginx would share the port of another gateway of this user (SO_REUSEPORT) without a word.
    for taken in (nodes[0].port, gateway.port):
        settings = GatewaySettings(port=taken)
        with pytest.raises(UserError, match=rf"port {taken} .*give another --gateway-port"):
            Supervisor([nodes[1].settings()], tmp_path, settings).__enter__()


@pytest.mark.parametrize(
    ("node", "longest"), [("a", "_conf.sock"), ("a-long-name", "a-long-name.sock")]
)
def test_a_state_folder_too_long_for_a_socket(short_path: Path, node: str, longest: str) -> None:
    room = SOCKET_PATH_MAX - len(f"{short_path}//gateway/s1000/{longest}")
    fits, too_long = (Nginx(short_path / ("x" * it) / "gateway", 1) for it in (room, room + 1))
    fits.check_folder([node])
    with pytest.raises(UserError, match="is too long for the sockets of nginx: choose a shorter"):
        too_long.check_folder([node])


ON_TRIAL = Desired(model="m", stable=V1, candidate=V2)


@pytest.mark.parametrize(
    ("desired", "ready", "barred", "asked"),
    [
        # A node with other bytes is not asked, even if no other one can answer.
        (Desired(model="m", stable=V1), {"stable": []}, ["a"], ["b", "b"]),
        (Desired(model="m", stable=V1), {"stable": []}, ["a", "b"], ["_nobody"]),
        # Nobody is known to have the candidate: it was just registered. One that is away has not.
        (ON_TRIAL, {"stable": ["a"], "candidate": []}, [], ["a", "a"]),
        (ON_TRIAL, {"stable": ["a", "b"], "candidate": ["b"]}, [], ["b", "b"]),
        (ON_TRIAL, {"stable": [], "candidate": []}, [], ["a", "b"]),
    ],
)
def test_which_nodes_are_asked_where_none_is_known_to_be_ready(
    tmp_path: Path,
    nodes: list[StandIn],
    desired: Desired,
    ready: dict[str, list[str]],
    barred: list[str],
    asked: list[str],
) -> None:
    text, _ = render(
        *(desired, [node.settings() for node in nodes], ready, barred),
        *({}, {}, GatewaySettings(port=1), None, tmp_path, Path("/s")),
    )
    arm = "candidate" if desired.candidate else "stable"
    upstream = text.partition(f"upstream {arm} {{")[2].partition("}")[0]
    assert re.findall(r"unix:/s/(.*)\.sock", upstream) == asked

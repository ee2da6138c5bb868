"""Nodes that fail, tokens that change, processes that are killed: what clients notice of it."""

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import yaml

from archives.nodes.watch import Watch
from archives.state.journal import Journal
from archives.state.tokens_and_keys import add_client
from archives.torchserve.java import claim_ports
from handlers.responses import Outcome, headers
from sonode.command_line import MOMENT_S
from tests.archives.behind import V1, V2, Behind, behind, load, start_journal
from tests.archives.standin import Call, Handler, StandIn
from tests.processes import assert_no_process_about

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[StandIn]]:
    both = [StandIn(tmp_path / "n", name) for name in ("a", "b")]
    for node in both:
        node.start()
    yield both
    for node in both:
        node.stop()


@pytest.fixture
def gateway(nodes: list[StandIn], tmp_path: Path) -> Iterator[Behind]:
    with behind([node.settings() for node in nodes], tmp_path / "g") as running:
        yield running


# --- another node answers


def reset(node: StandIn, handler: Handler, call: Call) -> None:
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True
    handler.connection.close()


def test_what_one_node_cannot_the_other_does(gateway: Behind, nodes: list[StandIn]) -> None:
    for status in (500, 503, 507, 404, "reset"):

        def fail(node: StandIn, handler: Handler, call: Call, status: int | str = status) -> bool:
            if isinstance(status, str):
                reset(node, handler, call)
            else:
                handler.answer(status, {"code": status})
            return True

        with nodes[0].behaving(fail):
            answers = [gateway.ask(content=b"the whole body") for _ in range(4)]
        assert [answer.json()["node"] for answer in answers] == ["b"] * 4, status
        retried = [it for it in answers if gateway.of(it, "requests")[0]["tries"] == 2]
        assert len(retried) == 2  # in turn: every other request met `a` first
        for answer in retried:
            first, second = gateway.of(answer, "attempts", 2)
            assert (first["node"], second["node"], second["status"]) == ("a", "b", 200)
            assert first["status"] == {404: 503, 507: 503, "reset": 502}.get(status, status)
    assert {call.body for call in nodes[1].calls} == {b"the whole body"}


def test_where_all_fail_the_client_gets_an_error(gateway: Behind, nodes: list[StandIn]) -> None:
    def fail(node: StandIn, handler: Handler, call: Call) -> bool:
        handler.answer(507, {"code": 507})
        return True

    with nodes[0].behaving(fail), nodes[1].behaving(fail):
        answer = gateway.ask()
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "10"
    assert len(gateway.of(answer, "attempts", 2)) == 2
    assert gateway.ask().status_code == 200  # failures are not held against a node


@pytest.mark.parametrize(("status", "asked"), [(400, 1), (500, 2)])
def test_what_the_handler_refuses_is_not_asked_elsewhere(
    gateway: Behind, nodes: list[StandIn], status: int, asked: int
) -> None:
    def refuse(node: StandIn, handler: Handler, call: Call) -> bool:
        handler.answer(*refused)
        return True

    body = {"code": "missing_image", "message": "kein Bild – „leer“", "field": "image"}
    told = headers(Outcome(status, body))
    refused = (status, body, told)
    with nodes[0].behaving(refuse), nodes[1].behaving(refuse):
        answer = gateway.ask()
    assert (answer.status_code, answer.json()) == (status, body)
    assert "X-Sonode-Error" not in answer.headers
    attempts = gateway.of(answer, "attempts", asked)
    assert {(it["status"], it["code"]) for it in attempts} == {(status, "missing_image")}
    assert [len(node.calls) for node in nodes].count(0) == 2 - asked  # each once, if at all
    assert sum(len(node.calls) for node in nodes) == asked


def test_a_form_that_torchserve_cannot_take_apart_is_the_clients_fault(
    gateway: Behind, nodes: list[StandIn]
) -> None:
    def fail(node: StandIn, handler: Handler, call: Call) -> bool:
        handler.answer(500, {"code": 500, "message": "ErrorDataDecoderException: secret"})
        return True

    with nodes[0].behaving(fail), nodes[1].behaving(fail):
        answer = gateway.ask(headers={"Content-Type": "multipart/form-data; boundary=x"})
        ours = gateway.ask(headers={"Content-Type": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "secret" not in answer.text
    (attempt,) = gateway.of(answer, "attempts")  # not tried elsewhere, and held against nobody
    assert (attempt["status"], attempt["code"]) == (400, "bad_request")
    assert (ours.status_code, ours.json()["code"]) == (500, "node_failed")
    assert "secret" not in ours.text


def test_one_node_alone_is_asked_twice(nodes: list[StandIn], tmp_path: Path) -> None:
    def fail_once(node: StandIn, handler: Handler, call: Call) -> bool:
        if len(node.calls) % 2:
            handler.answer(507, {"code": 507})
        return bool(len(node.calls) % 2)

    with behind([nodes[0].settings()], tmp_path / "one") as one:
        with nodes[0].behaving(fail_once):
            assert [one.ask().status_code for _ in range(3)] == [200] * 3
        assert len(nodes[0].calls) == 6


# --- tokens


def test_the_gateway_renews_a_token_that_is_running_out(
    nodes: list[StandIn], tmp_path: Path
) -> None:
    node = nodes[0]
    with behind([node.settings()], tmp_path / "one") as one, load(one) as told:
        for _ in range(3):
            node.renew("inference", "management", lifetime=timedelta(minutes=9))
            old = node.tokens["inference"]
            one.wait(lambda old=old: node.tokens["inference"] != old)  # type: ignore[misc]
            time.sleep(0.5)
    assert told["200"] == sum(told.values())


def test_without_the_supervisor_nodes_own_renewals_are_found(
    gateway: Behind, nodes: list[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watch, "_pass_token_on", lambda watch: None)  # away for an hour
    time.sleep(0.5)  # what it had begun
    for node in nodes:
        node.renew("inference", "management")  # as `sonode serve` does before they end
    assert [gateway.ask().status_code for _ in range(4)] == [200] * 4


def test_a_node_that_takes_no_token_at_all(
    nodes: list[StandIn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with behind([nodes[0].settings()], tmp_path / "one") as one:
        monkeypatch.setattr(nodes[0], "renew", lambda *_: None)  # says yes, and changes nothing
        nodes[0].tokens["inference"] = "known to nobody"
        answer = one.ask()
        assert answer.status_code == 400
        (line,) = one.of(answer, "attempts")
        assert (line["status"], line["code"]) == (400, "bad_request")


# --- nodes that go and come


def test_a_node_comes_back_with_exactly_what_the_journal_says(
    gateway: Behind, nodes: list[StandIn]
) -> None:
    gone, other = nodes
    gone.store.joinpath(V2.file).write_bytes(b"")
    other.store.joinpath(V2.file).write_bytes(b"")
    release = {"version": "2.0", "file": V2.file, "sha256": EMPTY}
    with load(gateway) as told:
        gone.stop()
        gateway.wait(lambda: gateway.applied()["nodes"] == {"a": "does not answer", "b": "up"})
        other.versions["2.0"] = 1
        # Meanwhile the world goes on: 2.0 has taken over, and TorchServe comes back with nothing
        # but a version that nobody wants.
        # In two steps, as a rollout does it: no request is under way to what is unregistered.
        gateway.journal(stable=release, serves=[vars(V1), release])
        gateway.journal(serves=[release])
        gone.versions, gone.default, gone.asked = {"0.9": 1}, "0.9", []
        before = len(gone.calls)
        gone.renew("inference", "management")
        gone.start()
        gateway.wait(lambda: gateway.applied()["nodes"]["a"] == "up")
        assert (gone.versions, gone.default) == ({"2.0": 1}, "2.0")
        gateway.wait(lambda: len(gone.calls) > before + 5)
    assert told["200"] == sum(told.values())
    assert {call.version for call in gone.calls[before:]} == {"2.0"}
    changes = [asked for asked in gone.asked if not asked.startswith("GET")]
    assert changes == ["POST /models", "PUT /models/m/2.0/set-default", "DELETE /models/m/0.9"]


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # sha256 of no bytes


def test_a_node_that_hangs_is_taken_out(gateway: Behind, nodes: list[StandIn]) -> None:
    go_on = threading.Event()
    hung, original = nodes[0], Handler.handle_any

    def hang(handler: Handler) -> None:
        if handler.node is hung:
            go_on.wait(60)
        original(handler)

    with pytest.MonkeyPatch.context() as patch:
        for method in ("do_GET", "do_POST"):
            patch.setattr(Handler, method, hang)
        try:
            gateway.wait(lambda: gateway.applied()["nodes"]["a"] == "does not answer")
            assert [gateway.ask().json()["node"] for _ in range(6)] == ["b"] * 6
        finally:
            go_on.set()
        gateway.wait(lambda: gateway.applied()["nodes"]["a"] == "up")


def test_a_candidate_that_does_not_load_takes_no_node_out(
    gateway: Behind, nodes: list[StandIn]
) -> None:
    for node in nodes:
        node.loads = False
        node.store.joinpath(V2.file).write_bytes(b"")
    candidate = {"version": "2.0", "file": V2.file, "sha256": EMPTY}
    gateway.journal(candidate=candidate, serves=[vars(V1), candidate])
    gateway.wait(lambda: all("DELETE /models/m/2.0" in node.asked for node in nodes))
    # Asked for, refused by TorchServe, taken off again; 1.0 answers all the while.
    assert [node.versions for node in nodes] == [{"1.0": 1}] * 2
    assert gateway.ask().status_code == 200
    assert gateway.client.get(f"http://127.0.0.1:{gateway.port}/health").status_code == 200
    assert gateway.applied()["nodes"] == {"a": "up", "b": "up"}


def test_workers_that_nobody_wants_any_more_are_not_waited_for(
    gateway: Behind, nodes: list[StandIn]
) -> None:
    stuck = nodes[0]
    for node in nodes:
        node.store.joinpath(V2.file).write_bytes(b"")
    stuck.versions = {"1.0": 0}
    gateway.wait(lambda: "lacks 1.0" in gateway.applied()["nodes"]["a"])
    release = {"version": "2.0", "file": V2.file, "sha256": EMPTY}
    gateway.journal(stable=release, serves=[release])
    gateway.wait(lambda: stuck.versions == {"2.0": 1})  # seconds, where workers get two minutes
    gateway.wait(lambda: gateway.applied()["nodes"] == {"a": "up", "b": "up"})


def test_what_a_rollout_is_registering_is_left_alone(gateway: Behind, nodes: list[StandIn]) -> None:
    node = nodes[0]
    node.store.joinpath(V1.file).write_bytes(b"")
    release = {"version": "1.0", "file": V1.file, "sha256": EMPTY}
    gateway.journal(step="register", candidate=vars(V2), stable=release, serves=[release])
    node.versions = {"2.0": 1}  # its stable version is lost meanwhile
    gateway.wait(lambda: node.versions == {"1.0": 1, "2.0": 1})
    gateway.wait(lambda: gateway.applied()["nodes"]["a"] == "up")
    assert "DELETE /models/m/2.0" not in node.asked
    gateway.journal(step="rollback", candidate=None)
    node.versions = {"2.0": 1}
    gateway.wait(lambda: node.versions == {"1.0": 1})


def test_an_archive_that_nobody_has_is_named(gateway: Behind, nodes: list[StandIn]) -> None:
    assert gateway.supervisor
    gateway.journal(serves=[vars(V1), vars(V2)])
    watch = gateway.supervisor.watches[0]
    gateway.wait(lambda: "put it back" in watch.seen.why)
    assert "m-2.0.mar is not the release's archive" in watch.seen.why
    assert gateway.ask().status_code == 200


# --- processes that are killed


def nginx_pids(state: Path) -> tuple[int, list[int]]:
    """Its master and its workers."""
    pid_file = max(state.glob("gateway/s*/nginx.pid"))
    master = int(pid_file.read_text())
    workers = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == master and int(folder.name) != master and fields[0] != "Z":
                workers.append(int(folder.name))
    return master, workers


def test_a_worker_of_nginx_is_killed(gateway: Behind) -> None:
    with load(gateway, clients=6) as told:
        _, workers = nginx_pids(gateway.state)
        os.kill(workers[0], signal.SIGKILL)
        gateway.wait(lambda: set(nginx_pids(gateway.state)[1]) - set(workers))
        until = told["200"] + 100
        gateway.wait(lambda: told["200"] > until)
    # What its connections waited for at that moment, and nothing else. A request that another
    # worker had sent on through it, to both nodes one after the other, is told: 502.
    assert told["200"] + told["lost"] + told["502"] == sum(told.values())
    assert told["lost"] + told["502"] <= 6


def test_the_master_of_nginx_is_killed(gateway: Behind) -> None:
    with load(gateway, clients=6) as told:
        master, orphans = nginx_pids(gateway.state)
        os.kill(master, signal.SIGKILL)
        gateway.wait(lambda: gateway_master_is_new(gateway.state, master))
        until = told["200"] + 100
        gateway.wait(lambda: told["200"] > until)
        # The workers that it left have answered what they had, and gone.
        gateway.wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
    assert told["200"] + told["lost"] == sum(told.values())
    assert told["lost"] <= 6
    gateway.journal(percent=0.0)  # the new one follows the journal


def gateway_master_is_new(state: Path, master: int) -> bool:
    with suppress(ValueError, FileNotFoundError):
        return nginx_pids(state)[0] != master
    return False


def hold(nodes: list[StandIn]) -> tuple[threading.Event, ExitStack]:
    """Nodes do not answer the stable version until the event is set; the stack ends that."""
    released, stack = threading.Event(), ExitStack()

    def hang(node: StandIn, handler: Handler, call: Call) -> bool:
        if call.version == "1.0":
            assert released.wait(60)
        return False

    for node in nodes:
        stack.enter_context(node.behaving(hang))
    stack.callback(released.set)
    return released, stack


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
def test_what_an_nginx_that_ends_still_holds_is_waited_for(
    nodes: list[StandIn], tmp_path: Path, number: signal.Signals
) -> None:
    for node in nodes:
        node.versions["2.0"] = 1
    settings = [node.settings() for node in nodes]
    with behind(settings, tmp_path / "g", serves=[V1, V2]) as gateway, ThreadPoolExecutor(1) as one:
        assert gateway.supervisor
        released, stack = hold(nodes)
        with stack:
            held = one.submit(gateway.ask)
            gateway.wait(lambda: nodes[0].calls or nodes[1].calls)
            master, _ = nginx_pids(gateway.state)
            os.kill(master, number)
            gateway.wait(lambda: gateway_master_is_new(gateway.state, master))
            journal = Journal(gateway.state)
            with journal.lock():
                seq = journal.append("changed", rollout=None, stable=V2).seq
            # The new one answers at once, while the old one has still something to ask of 1.0.
            gateway.wait(lambda: version_of(gateway) == "2.0")
            time.sleep(1)  # ten turns of the supervisor
            assert gateway.supervisor.nginx.finishing() > 0
            assert gateway.applied()["seq"] < seq
            released.set()
            assert held.result().headers["X-Model-Version"] == "1.0"
            gateway.wait(lambda: gateway.applied()["seq"] == seq)
        assert held.result().status_code == 200


def version_of(gateway: Behind) -> str | None:
    try:
        return gateway.ask(timeout=1.0).headers["X-Model-Version"]
    except httpx.TransportError:  # also where 1.0 is still asked, which does not answer
        return None


def test_a_body_that_comes_slowly_while_nginx_quits_reaches_a_node(gateway: Behind) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    connection.putrequest("POST", "/predictions/m")
    connection.putheader("Authorization", f"Bearer {gateway.token}")
    connection.putheader("Content-Length", "6")
    connection.endheaders(b"pix")
    time.sleep(0.5)  # it is being read
    master, _ = nginx_pids(gateway.state)
    os.kill(master, signal.SIGQUIT)
    gateway.wait(lambda: gateway_master_is_new(gateway.state, master))
    gateway.wait(lambda: version_of(gateway) == "1.0")
    # A few milliseconds after the new one answers, the old one's way to the nodes leads through it.
    sockets = gateway.state / "gateway"
    gateway.wait(lambda: any(path.is_symlink() for path in sockets.glob("s*/*.sock")))
    connection.send(b"els")
    assert connection.getresponse().status == 200
    connection.close()


@pytest.fixture
def command(nodes: list[StandIn], tmp_path: Path) -> Iterator[tuple[Behind, list[str]]]:
    """What starts a gateway in a process of its own."""
    state = tmp_path / "g"
    file = tmp_path / "nodes.yaml"
    settings = [node.settings() for node in nodes]
    keep = ("name", "inference", "management", "run_dir", "store")
    listed = [{key: str(getattr(it, key)) for key in keep} for it in settings]
    file.write_text(yaml.safe_dump({"nodes": listed}))
    port = claim_ports({"gateway": None})["gateway"]
    token = add_client(state, "clinic")
    start_journal(state)
    line = [sys.executable, "-m", "sonode", "gateway", "--nodes", str(file), "--state", str(state)]
    gateway = Behind(state, port, token)
    yield gateway, [*line, "--gateway-port", str(port), "--rate", "10000"]
    gateway.client.close()
    assert_no_process_about(tmp_path)


def answers(gateway: Behind) -> bool:
    try:
        return gateway.ask().status_code == 200
    except httpx.ConnectError:
        return False


def test_killed_and_started_again_it_adopts_the_nginx_that_went_on(
    command: tuple[Behind, list[str]],
) -> None:
    gateway, line = command
    first = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL)
    gateway.wait(lambda: answers(gateway))
    with load(gateway) as told:
        master, _ = nginx_pids(gateway.state)
        first.kill()
        first.wait()
        until = told["200"] + 50
        gateway.wait(lambda: told["200"] > until)  # nobody at the wheel
        (gateway.state / "gateway" / "s2").mkdir()  # one that was killed as it began to start nginx
        second = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            gateway.journal(salt="another")  # applied: it is at the wheel now
            assert nginx_pids(gateway.state)[0] == master
            third = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        finally:
            until = told["200"] + 50
            gateway.wait(lambda: told["200"] > until)
    second.send_signal(signal.SIGINT)
    assert second.wait(30) == 0
    assert told["200"] == sum(told.values())
    assert (third.returncode, third.stderr.count("\n")) == (2, 1)
    assert "--state " in third.stderr


@contextmanager
def ending(
    gateway: Behind, line: list[str], nodes: list[StandIn]
) -> Iterator[tuple[subprocess.Popen[bytes], Future[httpx.Response], threading.Event]]:
    """The command after Ctrl-C, its request under way, and the event that lets it be answered."""
    first = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    gateway.wait(lambda: answers(gateway))
    released, stack = hold(nodes)
    with first, stack, ThreadPoolExecutor(1) as one:
        before = sum(len(node.calls) for node in nodes)
        held = one.submit(gateway.ask)
        gateway.wait(lambda: sum(len(node.calls) for node in nodes) > before)
        first.send_signal(signal.SIGINT)
        gateway.wait(lambda: not answers_to_a_stranger(gateway))  # it drains
        yield first, held, released


def test_the_command_ends_after_the_last_answer(
    command: tuple[Behind, list[str]], nodes: list[StandIn]
) -> None:
    with ending(*command, nodes) as (first, held, released):
        assert first.poll() is None
        released.set()
        assert held.result().status_code == 200
        _, errors = first.communicate(timeout=60)
    assert (first.returncode, b"cut off" in errors) == (0, False)


def test_a_second_ctrl_c_leaves_no_nginx(
    command: tuple[Behind, list[str]], nodes: list[StandIn]
) -> None:
    gateway, line = command
    with ending(gateway, line, nodes) as (first, held, _):
        first.send_signal(signal.SIGINT)  # too soon
        time.sleep(MOMENT_S + 1)
        first.send_signal(signal.SIGINT)
        cut_off = (httpx.NetworkError, httpx.RemoteProtocolError)
        with pytest.raises(cut_off):  # else it times out
            held.result()
        first.communicate(timeout=60)
    assert not list((gateway.state / "gateway").glob("s[0-9]*"))


def answers_to_a_stranger(gateway: Behind) -> bool:
    try:
        socket.create_connection(("127.0.0.1", gateway.port)).close()
        return True
    except OSError:
        return False


def test_a_node_more_costs_no_request(command: tuple[Behind, list[str]], tmp_path: Path) -> None:
    gateway, line = command
    file = tmp_path / "nodes.yaml"
    both = yaml.safe_load(file.read_text())["nodes"]
    file.write_text(yaml.safe_dump({"nodes": both[:1]}))
    first = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL)
    gateway.wait(lambda: answers(gateway))
    with load(gateway) as told:
        first.kill()
        first.wait()
        file.write_text(yaml.safe_dump({"nodes": both}))
        second = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL)
        gateway.wait(lambda: gateway.applied().get("nodes") == {"a": "up", "b": "up"})
        gateway.wait(lambda: {it["node"] for it in gateway.lines("attempts")} == {"a", "b"})
    second.send_signal(signal.SIGINT)
    assert second.wait(30) == 0
    assert told["200"] == sum(told.values())


def test_supervisor_and_master_killed_together(command: tuple[Behind, list[str]]) -> None:
    gateway, line = command
    first = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL)
    gateway.wait(lambda: answers(gateway))
    with load(gateway) as told:
        master, orphans = nginx_pids(gateway.state)
        first.kill()
        os.kill(master, signal.SIGKILL)
        first.wait()
        second = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL)
        gateway.wait(lambda: gateway_master_is_new(gateway.state, master))
        gateway.wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
    second.send_signal(signal.SIGINT)
    assert second.wait(30) == 0
    assert told["200"] + told["lost"] == sum(told.values())
    assert told["lost"] <= 4
    assert not list((gateway.state / "gateway").glob("s[0-9]*"))
    assert json.loads((gateway.state / "gateway" / "applied.json").read_text())["seq"] == 1

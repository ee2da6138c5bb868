"""Those without a token, full disks, stopped and restarted gateways: what others notice of it."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from archives.gateway import certificate
from archives.gateway.configuration.render import workers_user
from archives.gateway.configuration.settings import GatewaySettings
from archives.gateway.health import Health
from archives.gateway.logs import LogTail
from archives.gateway.nginx import processes
from archives.gateway.nginx.nginx import Nginx
from archives.gateway.nginx.program import find_nginx
from archives.gateway.supervisor import Supervisor
from archives.rollout import traffic_permit
from archives.state import tokens_and_keys
from archives.state.files import write_private
from archives.state.tokens_and_keys import add_client
from archives.torchserve.java import claim_ports
from sonode.console import UserError
from tests.archives.behind import V1, V2, Behind, behind, load, start_journal
from tests.archives.standin import Handler, StandIn
from tests.loopback import LOOPBACK

HERE = Path(__file__).parents[1]
NOBODY = 65534


@pytest.fixture
def gateway(node: StandIn, tmp_path: Path) -> Iterator[Behind]:
    canary = {"candidate": V2, "serves": [V1, V2], "percent": 100.0}
    with behind([node.settings()], tmp_path / "g", **canary) as running:
        yield running


# --- strangers


@pytest.mark.live
def test_a_flood_of_strangers_is_refused_and_seldom_logged(gateway: Behind) -> None:
    url = f"http://127.0.0.1:{gateway.port}"
    with httpx.Client(trust_env=False) as stranger:
        found = [
            stranger.post(f"{url}/predictions/m", content=b"x").status_code for _ in range(600)
        ]
        found += [stranger.get(f"{url}/wp-login.php").status_code for _ in range(100)]
    assert (found.count(401), found.count(404)) == (600, 100)
    answer = gateway.ask("1")
    gateway.of(answer, "requests")  # what came before it is logged, too
    strangers = [it for it in gateway.lines("requests") if not it["client"]]
    # A burst of 100, then 2 a second; a slow machine takes some minutes for these 700 at most.
    assert 100 <= len(strangers) < 600
    for head in (b"POST / HT", b"POST /predictions/m HTTP/1.1\r\nHost: x\r\nX-Slow"):
        for _ in range(150):
            with socket.create_connection(("127.0.0.1", gateway.port)) as half:
                half.sendall(head)
    gateway.of(gateway.ask("2"), "requests")
    all_of_them = [it for it in gateway.lines("requests") if not it["client"]]
    assert len(all_of_them) - len(strangers) < 10


@pytest.mark.live
def test_requests_that_strangers_never_end_hold_no_change_up(gateway: Behind) -> None:
    half = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(12)]
    for connection in half:
        connection.sendall(b"POST /predictions/m HTTP/1.1\r\nHost: x\r\nX-Slow")
    gateway.journal(percent=0.0)  # waits for `applied`: the old workers have gone
    for connection in half:  # so they were let go by nginx, after client_header_timeout
        connection.settimeout(60)
        assert connection.recv(100) == b""
        connection.close()
    assert gateway.ask("1").headers["X-Model-Version"] == "1.0"


# --- disks


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.live
def test_on_a_full_disk_the_new_version_gets_no_traffic_and_the_old_one_goes_on(
    gateway: Behind,
    node: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert gateway.ask("1").headers["X-Model-Version"] == "2.0"
    monkeypatch.setattr("archives.gateway.health.os.posix_fallocate", full)
    monkeypatch.setattr("archives.state.files.os.fsync", full)  # no new file comes into being
    gateway.wait(lambda: gateway.ask("1").headers["X-Model-Version"] == "1.0")
    health = gateway.client.get(f"http://127.0.0.1:{gateway.port}/health")
    assert health.json() == {"status": "ok", "faults": ["disk_full"]}
    metrics = gateway.state / "gateway" / "metrics.prom"
    gateway.wait(lambda: 'fault{fault="disk_full"} 1' in metrics.read_text())
    assert [it for it in caplog.records if "disk is full" in it.getMessage()]
    for _ in range(2):  # tokens are renewed all the same
        node.renew("inference", "management")
        gateway.wait(lambda: gateway.ask("1").status_code == 200)
    monkeypatch.undo()
    gateway.wait(lambda: gateway.ask("1").headers["X-Model-Version"] == "2.0")


def test_a_file_is_written_over_in_place_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.token"
    monkeypatch.setattr("archives.state.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(tmp_path, path, b"first")
    monkeypatch.undo()
    write_private(tmp_path, path, b"first")
    monkeypatch.setattr("archives.state.files.os.fsync", full)
    write_private(tmp_path, path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(OSError, match="No space"):
        write_private(tmp_path, path, bytes(1_000_000))
    assert path.read_bytes() == b"new"
    assert [it.name for it in tmp_path.iterdir()] == ["a.token"]


# --- secrets that cannot be read


@pytest.mark.live
def test_without_a_good_key_no_study_changes_sides(
    gateway: Behind, caplog: pytest.LogCaptureFixture
) -> None:
    key = gateway.state / "key"
    good = key.read_bytes()
    health = f"http://127.0.0.1:{gateway.port}/health"
    for damage, left in ((lambda: key.write_bytes(b"short"), 5), (key.unlink, 0)):
        damage()
        assert gateway.ask("1").status_code == 503  # its side cannot be known
        assert gateway.ask().status_code == 200  # it has none
        gateway.wait(lambda: gateway.client.get(health).json().get("faults") == ["key_damaged"])
        assert [it for it in caplog.records if f"is damaged ({left} bytes" in it.getMessage()]
        key.write_bytes(good)
        assert gateway.ask("1").headers["X-Model-Version"] == "2.0"
        gateway.wait(lambda: "faults" not in gateway.client.get(health).json())


@pytest.mark.live
def test_a_list_of_clients_that_is_missing_is_reported(gateway: Behind) -> None:
    listed = gateway.state / "clients.json"
    health = f"http://127.0.0.1:{gateway.port}/health"
    aside = listed.rename(listed.with_suffix(".aside"))
    gateway.wait(lambda: gateway.client.get(health).json().get("faults") == ["clients_damaged"])
    aside.rename(listed)
    gateway.wait(lambda: "faults" not in gateway.client.get(health).json())


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EIO])
def test_a_disk_that_cannot_be_written_to_counts_as_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: int
) -> None:
    """As one that was mounted anew for reading only, after a fault of its own."""
    tokens_and_keys.prepare(tmp_path)

    def refuses(*_: object, **__: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr("archives.gateway.health.open_own", refuses)
    health = Health(tmp_path, None)
    health.look()
    assert health.faults == ("disk_full",)
    assert f"cannot be written to ({os.strerror(reason)})" in caplog.text


@pytest.mark.live
def test_a_key_that_is_missing_while_studies_are_split_is_reported(
    node: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a standby's folder to which it was not copied."""
    canary = {"candidate": V2, "serves": [V1, V2], "percent": 50.0}
    with behind([node.settings()], tmp_path / "g", **canary):
        assert "/key: missing" in caplog.text


# --- stopping, and processes that have numbers of others


@pytest.mark.live
def test_stopping_answers_what_is_under_way_on_kept_connections(
    node: StandIn, tmp_path: Path
) -> None:
    node.delay_s = {"1.0": 0.02}
    add_client(tmp_path / "g", "clinic")
    start_journal(tmp_path / "g")
    port = claim_ports({"gateway": None})["gateway"]
    running = Behind(tmp_path / "g", port, add_client(tmp_path / "g", "clinic"))
    supervisor = Supervisor(
        [node.settings()], tmp_path / "g", GatewaySettings(port=port, rate=10_000)
    )
    supervisor.__enter__()
    with load(running, clients=6) as told:
        until = told["200"] + 50
        running.wait(lambda: told["200"] > until)
        supervisor.__exit__(None, None, None)
    running.client.close()
    assert told["200"] + told["lost"] == sum(told.values())  # lost: nobody listens any more


def test_a_number_that_another_process_has_by_now_is_not_nginxs(tmp_path: Path) -> None:
    earlier, later = tmp_path / "s1", tmp_path / "s2"
    for folder in (earlier, later):
        folder.mkdir()
    # A container that is started anew counts from 1: the later nginx has the earlier's number.
    line = ["sleep", "60", "-c", str(processes.configuration(later))]
    with subprocess.Popen(["python3", "-c", "import time; time.sleep(60)", *line]) as process:
        try:
            for folder in (earlier, later):
                (folder / "nginx.pid").write_text(str(process.pid))
            assert processes.group_of(later) == process.pid
            assert processes.group_of(earlier) is None
        finally:
            process.kill()
    assert processes.group_of(earlier) is None  # dead: the later one's workers have it
    assert processes.group_of(later) == process.pid


@pytest.mark.live
@pytest.mark.parametrize("step", ["_write_applied", "_say_where"])
def test_a_start_that_fails_leaves_no_nginx(
    node: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    add_client(tmp_path / "g", "clinic")
    start_journal(tmp_path / "g")
    port = claim_ports({"gateway": None})["gateway"]
    # As a full disk does, once nginx runs, or a pipe whose reader has gone.
    monkeypatch.setattr(Supervisor, step, full)
    with pytest.raises(OSError, match="No space"):
        Supervisor([node.settings()], tmp_path / "g", GatewaySettings(port=port)).__enter__()
    assert claim_ports({"gateway": port}) == {"gateway": port}
    assert not list((tmp_path / "g" / "gateway").glob("s[0-9]*"))
    assert "gateway" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.live
@pytest.mark.parametrize(("fault", "goes_on"), [(full, True), (KeyboardInterrupt, False)])
def test_a_start_beside_an_nginx_that_went_on_stops_it_only_where_it_is_interrupted(
    node: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any, goes_on: bool
) -> None:
    add_client(tmp_path / "g", "clinic")
    start_journal(tmp_path / "g")
    settings = GatewaySettings(port=claim_ports({"gateway": None})["gateway"])
    with monkeypatch.context() as killed:
        killed.setattr(Nginx, "stop", lambda _: None)
        killed.setattr(Nginx, "drain", lambda *_: None)
        with Supervisor([node.settings()], tmp_path / "g", settings) as first:
            assert first.nginx.running()
    monkeypatch.setattr(
        Supervisor, "_say_where", fault if fault is full else Mock(side_effect=fault)
    )
    second = Supervisor([node.settings()], tmp_path / "g", settings)
    with pytest.raises((OSError, KeyboardInterrupt)):
        second.__enter__()
    assert second.nginx.running() == goes_on
    first.nginx.stop()


@pytest.mark.parametrize("fault", [full, KeyboardInterrupt])
def test_an_nginx_that_is_not_started_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    """Each would be taken for the latest nginx, in whose place the next start looks for it."""
    nginx = Nginx(tmp_path / "g" / "gateway", 1)
    monkeypatch.setattr(nginx, "_write", full if fault is full else Mock(side_effect=fault))
    for _ in range(2):
        with pytest.raises((OSError, KeyboardInterrupt)):
            nginx.start(lambda _: ("", ""))
    assert not list((tmp_path / "g" / "gateway").glob("s[0-9]*"))


def test_two_gateways_on_one_address_of_this_machine_are_refused() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as nginx has it
        other.bind(("127.0.0.2", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} cannot be opened"):
            claim_ports({"gateway": port}, GatewaySettings(host="127.0.0.2").address)


@pytest.mark.parametrize(
    ("host", "listen"),
    [("::1", "[::1]:8443"), ("[::1]", "[::1]:8443"), ("::", "[::]:8443"), ("*", "*:8443")],
)
def test_an_ipv6_address_may_be_given_as_it_is(host: str, listen: str) -> None:
    settings = GatewaySettings(host=host)
    assert settings.listen == listen
    assert "[" not in settings.address


@pytest.mark.live
def test_it_listens_on_ipv6(node: StandIn, tmp_path: Path) -> None:
    add_client(tmp_path / "g", "clinic")
    start_journal(tmp_path / "g")
    port = claim_ports({"gateway": None}, "::1")["gateway"]
    del node.versions["2.0"]
    with Supervisor([node.settings()], tmp_path / "g", GatewaySettings(port=port, host="::1")):
        found = LOOPBACK.get(f"http://[::1]:{port}/health")
    assert found.status_code == 200


# --- users


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start it for another user")
def test_started_by_root_its_workers_are_the_state_folders_owner(
    node: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    with tempfile.TemporaryDirectory() as made:  # tmp_path lies in a folder that only root enters
        state = Path(made)
        os.chown(state, NOBODY, -1)
        canary = {"candidate": V2, "serves": [V1, V2], "percent": 100.0, "shadow_percent": 0.0}
        with behind([node.settings()], state, **canary) as running:
            assert running.supervisor
            traffic_permit.grant(state)
            running.journal(rollout="r", percent=100.0)
            (sockets,) = (state / "gateway").glob("s[0-9]*")
            master = processes.group_of(sockets)
            workers = set(processes.members(master)) - {master}
            assert {Path(f"/proc/{it}").stat().st_uid for it in workers} == {NOBODY}
            assert running.ask("1").headers["X-Model-Version"] == "2.0"  # it sees the release
            node.renew("inference", "management")
            assert running.ask("2").status_code == 200
            running.journal(rollout="r", percent=0.0, shadow_percent=100.0)
            running.of(running.ask("3"), "attempts", 2)  # its shadow came there, too
            running.supervisor.nginx.rotate(limit=0)
            running.wait((state / "gateway" / "requests.jsonl").exists)
            running.of(running.ask("4"), "requests")
        assert not [it for it in caplog.records if it.name.startswith("archives.")]
        assert not traffic_permit.disk_fault(state)
        # Whose it is can start it next.
        others = [it for it in state.rglob("*") if it.stat().st_uid != NOBODY]
        assert not others
        os.chown(state, 54321, -1)
        with pytest.raises(UserError, match="belongs to user 54321, who has no name here"):
            workers_user(state)


# --- nodes that answer something else


@pytest.mark.live
@pytest.mark.parametrize("body", [{"a": 1}, [], [{}], [{"modelVersion": 1}], "x", None])
def test_no_answer_of_a_node_ends_the_gateway(
    node: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: Any
) -> None:
    odd = StandIn(tmp_path / "n", "odd")
    odd.start()
    manage = Handler.manage

    def answer(handler: Handler, path: str) -> None:
        if handler.node is odd:
            handler.answer(200, body)
        else:
            manage(handler, path)

    monkeypatch.setattr(Handler, "manage", answer)
    try:
        with behind([node.settings(), odd.settings()], tmp_path / "g") as running:
            running.wait(lambda: running.applied()["nodes"]["odd"] == "does not answer")
            assert running.supervisor
            running.supervisor.check_alive()
            assert running.ask().status_code == 200
    finally:
        odd.stop()


# --- logs


def test_a_new_log_with_the_number_of_a_deleted_one_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(f'{{"id": "old {number}"}}\n' for number in range(3)))
    tail = LogTail(path)
    assert len(list(tail.rows())) == 3
    number = path.stat().st_ino
    rows = [f'{{"id": "new {number}"}}\n' for number in range(9)]
    path.write_text("".join(rows))  # the same inode, as a file system gives it again
    assert path.stat().st_ino == number
    assert [row["id"] for row in tail.rows()] == [f"new {number}" for number in range(9)]
    assert not list(tail.rows())


@pytest.mark.live
def test_a_log_that_somebody_moves_is_begun_again_and_old_ones_go(gateway: Behind) -> None:
    assert gateway.supervisor
    log = gateway.state / "gateway" / "requests.jsonl"
    first = gateway.of(gateway.ask("1"), "requests")
    log.rename(log.with_suffix(".jsonl.1"))  # logrotate
    gateway.wait(log.exists)
    answer = gateway.ask("2")
    assert gateway.of(answer, "requests") != first
    for _ in range(4):
        gateway.of(gateway.ask("3"), "requests")
        gateway.supervisor.nginx.rotate(limit=0, kept=2)
        gateway.wait(log.exists)
    assert len(list(log.parent.glob("requests-*.jsonl"))) == 2


# --- certificates and nginx


def expired(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    made = made.public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(datetime(2020, 1, 1)).not_valid_after(datetime(2021, 1, 1))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    both = folder / "expired.pem", folder / "expired-key.pem"
    both[0].write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    both[1].write_bytes(private)
    return both


@pytest.mark.live
def test_an_expired_certificate_is_refused(node: StandIn, tmp_path: Path) -> None:
    pair = expired(tmp_path)
    add_client(tmp_path / "g", "clinic")
    start_journal(tmp_path / "g")
    port = claim_ports({"gateway": None})["gateway"]
    settings = GatewaySettings(port=port, certificate=pair[0], certificate_key=pair[1])
    with pytest.raises(UserError, match="has expired"):
        Supervisor([node.settings()], tmp_path / "g", settings).__enter__()
    assert not list((tmp_path / "g" / "gateway").glob("s[0-9]*"))


def test_a_certificate_that_ends_soon_is_reported_once_a_day(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = HERE / "localhost.pem", HERE / "localhost-key.pem"
    pair = certificate.Pair(*both, tmp_path, lambda text: "")
    pair.look()
    tokens_and_keys.prepare(tmp_path)
    assert pair.expires
    monkeypatch.setattr("archives.gateway.health.LOOK_S", 0.0)
    for days, faults, said in ((31, (), 0), (29.5, (), 1), (29.2, (), 1), (28.5, (), 2)):
        now = pair.expires - days * 86400
        monkeypatch.setattr("archives.gateway.health.time.time", lambda now=now: now)
        health = health if days != 31 else Health(tmp_path, pair)  # noqa: F821
        health.look()
        assert health.faults == faults
        assert len([it for it in caplog.records if it.levelno == logging.WARNING]) == said
    monkeypatch.setattr("archives.gateway.health.time.time", lambda: pair.expires + 1)
    health.look()
    assert health.faults == ("certificate_expired",)


@pytest.mark.live
def test_tls_1_2_without_forward_secrecy_is_refused(node: StandIn, tmp_path: Path) -> None:
    add_client(tmp_path / "g", "clinic")
    start_journal(tmp_path / "g")
    port = claim_ports({"gateway": None})["gateway"]
    both = HERE / "localhost.pem", HERE / "localhost-key.pem"
    settings = GatewaySettings(port=port, certificate=both[0], certificate_key=both[1])
    taken = {}
    with Supervisor([node.settings()], tmp_path / "g", settings):
        for ciphers in ("ECDHE+AESGCM", "ECDHE+AES:!AESGCM:!AESCCM", "kRSA"):
            context = ssl.create_default_context(cafile=str(both[0]))
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers)
            with socket.create_connection(("127.0.0.1", port)) as plain:
                try:
                    context.wrap_socket(plain, server_hostname="localhost").close()
                    taken[ciphers] = True
                except (ssl.SSLError, ConnectionError):
                    taken[ciphers] = False
    assert list(taken.values()) == [True, False, False]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("nginx version: nginx/1.22.1", r"its version is 1\.22\.1; it takes 1\.27\.4 or newer"),
        ("nginx version: nginx/1.29.3\nconfigure arguments: --modules-path={}", "has no njs"),
        ("something else", "its version is not stated"),
    ],
)
def test_an_nginx_of_somebody_elses_is_looked_at(tmp_path: Path, said: str, message: str) -> None:
    binary = tmp_path / "nginx"
    binary.write_text(f"#!/bin/sh\nprintf '{said.format(tmp_path)}\\n' >&2\n")
    binary.chmod(0o755)
    with pytest.raises(UserError, match=message):
        find_nginx(binary)


@pytest.mark.live
def test_a_distributions_nginx_makes_no_folder_where_only_root_may(
    node: StandIn, tmp_path: Path
) -> None:
    """The extra's has its own folders below `-p`; others, as /var/cache/nginx, fixed."""
    nginx = tmp_path / "nginx"
    nginx.write_text(
        f"""#!/bin/sh
        [ "$1" = -p ] || exec {find_nginx(None).path} "$@"
        shift 2
        exec {find_nginx(None).path} -p /proc "$@"
        """
    )
    nginx.chmod(0o755)
    add_client(tmp_path / "g", "clinic")
    start_journal(tmp_path / "g")
    settings = GatewaySettings(
        port=claim_ports({"gateway": None})["gateway"],
        nginx=nginx,
        certificate=HERE / "localhost.pem",
        certificate_key=HERE / "localhost-key.pem",
    )
    with Supervisor([node.settings()], tmp_path / "g", settings) as gateway:
        assert gateway.nginx.serial()


@pytest.mark.live
def test_where_somebody_removes_the_folder_of_the_logs_no_nginx_is_left_with_what_was(
    gateway: Behind,
) -> None:
    (before,) = (gateway.state / "gateway").glob("s[0-9]*")
    master = processes.group_of(before)
    folder = gateway.state / "gateway"
    gone = folder.rename(gateway.state / "gone")  # rmtree would race with those who write there
    shutil.rmtree(gone)
    gateway.wait(lambda: [it for it in folder.glob("s[0-9]*") if it != before or it.exists()])
    gateway.wait(lambda: not processes.members(master))
    gateway.journal(percent=0.0)
    gateway.wait(lambda: gateway.applied()["nodes"] == {"a": "up"})
    answers = [gateway.client.post(f"http://127.0.0.1:{gateway.port}/health") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {405}
    found = {gateway.ask("1").headers["X-Model-Version"] for _ in range(20)}
    assert found == {"1.0"}


@pytest.mark.live
def test_what_a_running_nginx_cannot_take_another_one_does(
    gateway: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update of sonode, behind which the nginx of the one before goes on."""
    assert gateway.supervisor
    (before,) = (gateway.state / "gateway").glob("s[0-9]*")
    master, render = processes.group_of(before), gateway.supervisor._render

    def newer(sockets: Path) -> tuple[str, str]:
        text, serial = render(sockets)
        zone = 'limit_conn_zone "$client:$pid" zone=under_way'
        assert zone in text
        return text.replace(zone, 'limit_conn_zone "$pid:$client" zone=under_way').replace(
            serial, f"{serial}-newer"
        ), f"{serial}-newer"

    monkeypatch.setattr("archives.gateway.nginx.nginx.START_TIMEOUT_S", 3.0)
    monkeypatch.setattr(gateway.supervisor, "_render", newer)
    gateway.wait(lambda: (gateway.supervisor.nginx.serial() or "").endswith("-newer"))
    gateway.wait(lambda: not processes.members(master))
    assert gateway.ask("1").status_code == 200


def test_njs_is_built_in_or_loaded(tmp_path: Path) -> None:
    ours = find_nginx(None)
    assert find_nginx(Path(ours.path)) == ours
    binary, module = tmp_path / "nginx", tmp_path / "ngx_http_js_module.so"
    module.touch()
    binary.write_text(f"#!/bin/sh\necho 'nginx/1.29.3 --modules-path={tmp_path}' >&2\n")
    binary.chmod(0o755)
    assert find_nginx(binary) == (str(binary), str(module))
    with pytest.raises(UserError, match="does not run"):
        find_nginx(tmp_path / "absent")

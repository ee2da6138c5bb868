"""Names of nodes that cannot be looked up, before a live nginx."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from archives.nodes import addresses
from archives.nodes.addresses import Addresses
from archives.nodes.nodes_file import NodeSettings
from tests.archives.behind import V1, V2, behind
from tests.archives.standin import StandIn


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The names ending in .test that can be looked up; to be changed."""
    names: dict[str, str] = {}
    original: Callable[..., Any] = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if isinstance(name, str) and name.endswith(".test"):
            if name not in names:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            name = names[name]
        return original(name, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(addresses, "LOOK_S", 0.1)
    return names


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[NodeSettings]]:
    both = [StandIn(tmp_path / "n", it, versions={"1.0": 1, "2.0": 1}) for it in ("a", "b")]
    for node in both:
        node.start()
    yield [
        it.model_copy(
            update={
                api: getattr(it, api).replace("127.0.0.1", f"{it.name}.test")
                for api in ("inference", "management")
            }
        )
        for it in (node.settings() for node in both)
    ]
    for node in both:
        node.stop()


@pytest.mark.live
def test_a_node_of_no_known_name_is_left_out_until_it_has_one(
    nodes: list[NodeSettings],
    known: dict[str, str],
    short_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    known["a.test"] = "127.0.0.1"
    with behind(nodes, short_path, candidate=V2, serves=[V1, V2], percent=100.0) as gateway:
        gateway.journal(percent=0.0)
        assert {gateway.ask("1").json()["node"] for _ in range(4)} == {"a"}
        assert [it.getMessage() for it in caplog.records] == [
            "the name of a node, b.test, cannot be looked up (Name or service not known): the node "
            "is left out"
        ]
        known["b.test"] = "127.0.0.1"
        gateway.wait(lambda: {gateway.ask("1").json()["node"] for _ in range(4)} == {"a", "b"})
        # No name is known any more: all nodes are asked where they were, and the way back is open.
        known.clear()
        gateway.wait(lambda: set(gateway.applied()["nodes"].values()) == {"does not answer"})
        gateway.journal(percent=100.0)
        answer = gateway.ask("1")
        assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, "2.0")


@pytest.mark.live
def test_where_no_name_was_ever_known_clients_get_an_error(
    nodes: list[NodeSettings], known: dict[str, str], short_path: Path
) -> None:
    with behind(nodes, short_path) as gateway:
        answer = gateway.ask()
        assert (answer.status_code, answer.json()["code"]) == (502, "node_unreachable")
        known.update({"a.test": "127.0.0.1", "b.test": "127.0.0.1"})
        gateway.wait(lambda: gateway.ask().status_code == 200)


def test_an_address_is_kept_over_a_restart(known: dict[str, str], tmp_path: Path) -> None:
    known["a.test"] = "::1"
    first = Addresses(["a.test:80", "b.test:81", "127.0.0.1:82"], tmp_path)
    first.look()
    known.clear()
    second = Addresses(["a.test:80", "b.test:81", "127.0.0.1:82"], tmp_path)
    second.look()
    expected = {"a.test:80": ["[::1]:80"], "b.test:81": [], "127.0.0.1:82": ["127.0.0.1:82"]}
    assert first.found == second.found == expected


@pytest.mark.parametrize("kept", ["[]", '{"a.test:80": "x"}', "{"])
def test_what_is_kept_may_be_damaged(known: dict[str, str], tmp_path: Path, kept: str) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "addresses.json").write_text(kept)
    looked = Addresses(["a.test:80"], tmp_path)
    looked.look()
    assert looked.found == {"a.test:80": []}


def test_an_address_of_one_link_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """nginx refuses it, and with it the whole configuration; mDNS gives such for NAME.local."""
    answers = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%eth0", 80, 0, 2)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 80)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    looked = Addresses(["gpu.local:80"], tmp_path)
    looked.look()
    assert looked.found == {"gpu.local:80": ["192.0.2.7:80"]}

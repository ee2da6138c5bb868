"""archives/nodes/watch.py before a stand-in."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from archives.nodes.nodes import Node
from archives.nodes.watch import Seen, Watch
from archives.state.journal import Desired, Release
from tests.archives.standin import StandIn


def release(version: str) -> Release:
    return Release(version, f"m-{version}.mar", hashlib.sha256(version.encode()).hexdigest())


ONE, TWO = release("1.0"), release("2.0")


class Watched:
    """A node under the eyes of a gateway that wants `desired`."""

    def __init__(self, folder: Path) -> None:
        self.desired = Desired(model="m", stable=ONE, serves=(ONE,))
        self.standin = StandIn(folder, "a")
        self.standin.start()
        (folder / "archives").mkdir()
        for it in (ONE, TWO):
            (folder / "archives" / it.file).write_bytes(it.version.encode())
            (self.standin.store / it.file).write_bytes(it.version.encode())
        node = Node(self.standin.settings(), folder / "archives")
        self.watch = Watch(node, folder / "state", lambda: self.desired)

    def wait(self, condition: Callable[[], object], seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, self.watch.seen
            time.sleep(0.02)

    def restart(self, versions: dict[str, int], default: str) -> None:
        """TorchServe, seen to be away meanwhile."""
        self.standin.stop()
        self.wait(lambda: self.watch.seen.why == "does not answer")
        self.standin.versions, self.standin.default = versions, default
        self.standin.start(anew=True)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    made.watch.start()
    made.wait(lambda: made.watch.seen.up)
    yield made
    made.watch.end()
    made.standin.stop()


def test_what_cannot_be_made_out_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = []

    def odd(_: Watch) -> None:
        looks.append(1)
        raise TypeError("odd")

    monkeypatch.setattr(Watch, "_probe", odd)
    monkeypatch.setattr("archives.nodes.watch.PROBE_S", 0.01)
    made = Watched(tmp_path)
    made.watch.start()
    made.wait(lambda: len(looks) > 2)
    made.watch.end()
    made.standin.stop()
    assert made.watch.seen.why == "answers what cannot be made out"
    assert [it.name for it in caplog.records].count("archives.nodes.watch") == 1


def test_a_node_comes_in_with_the_default_version_of_the_journal(watched: Watched) -> None:
    watched.desired = replace(watched.desired, serves=(ONE, TWO))
    watched.wait(lambda: "2.0" in watched.watch.seen.ready)
    watched.restart({"1.0": 1, "2.0": 1}, default="2.0")
    watched.wait(lambda: watched.watch.seen.up)
    assert watched.standin.default == "1.0"


def test_a_new_stable_version_becomes_the_default_of_a_node_that_stays(watched: Watched) -> None:
    watched.desired = replace(watched.desired, serves=(ONE, TWO))
    watched.wait(lambda: "2.0" in watched.watch.seen.ready)
    watched.desired = replace(watched.desired, stable=TWO)
    watched.wait(lambda: watched.standin.default == "2.0")
    assert watched.watch.seen.up


def test_a_node_with_other_bytes_is_not_kept_in_where_nobody_saw_its_restart(
    watched: Watched,
) -> None:
    (watched.standin.store / ONE.file).write_bytes(b"replaced")
    watched.standin.stop()
    watched.standin.start(anew=True)
    watched.wait(lambda: "m-1.0.mar in its store, from which" in watched.watch.seen.why)
    assert not watched.watch.seen.up


def test_a_node_replaced_while_no_gateway_looked_is_not_kept_in(tmp_path: Path) -> None:
    """Behind an nginx that went on, the gateway starts with the nodes that were in."""
    made = Watched(tmp_path)
    (made.standin.store / ONE.file).write_bytes(b"replaced")
    made.watch.seen = Seen(up=True)
    made.watch.start()
    made.wait(lambda: made.watch.seen.barred)
    assert "m-1.0.mar in its store, from which" in made.watch.seen.why
    made.watch.end()
    made.standin.stop()


def test_a_node_with_other_bytes_under_the_name_is_not_taken_in(watched: Watched) -> None:
    archive = watched.standin.store / ONE.file
    archive.write_bytes(b"replaced")
    watched.restart({"1.0": 1}, default="1.0")
    watched.wait(lambda: "m-1.0.mar in its store, from which" in watched.watch.seen.why)
    assert not watched.watch.seen.up
    archive.write_bytes(b"1.0")
    watched.standin.stop()  # a network that fails, not another TorchServe
    watched.wait(lambda: watched.watch.seen.why == "does not answer")
    assert watched.watch.seen.barred
    watched.standin.start()
    time.sleep(7)  # longer than until the next try
    assert not watched.watch.seen.up  # it still has the others in memory
    assert watched.watch.seen.barred
    watched.restart({"1.0": 1}, default="1.0")
    watched.wait(lambda: watched.watch.seen.up)
    assert not watched.watch.seen.barred


def test_what_was_found_of_a_server_says_nothing_of_the_one_that_replaces_it(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def ensure(*_: object, **__: object) -> None:
        begun.set()
        assert go_on.wait(30)

    with monkeypatch.context() as patch:
        patch.setattr(watched.watch.node, "ensure", ensure)
        watched.desired = replace(watched.desired, serves=(ONE, TWO))
        assert begun.wait(30)
        watched.standin.stop()
        watched.wait(lambda: watched.watch.seen.why == "does not answer")
        go_on.set()
        assert watched.watch._mending
        watched.wait(watched.watch._mending.done)
    (watched.standin.store / ONE.file).write_bytes(b"replaced")
    watched.standin.versions = {"1.0": 1, "2.0": 1}
    watched.standin.start(anew=True)
    watched.wait(lambda: watched.watch.seen.why != "does not answer")
    watched.wait(lambda: "m-1.0.mar in its store, from which" in watched.watch.seen.why)


def test_what_a_rollout_left_behind_is_taken_off_when_it_has_ended(watched: Watched) -> None:
    watched.desired = replace(watched.desired, rollout="x", step="retire")
    watched.standin.versions["0.9"] = 1
    time.sleep(3)
    assert watched.standin.versions == {"0.9": 1, "1.0": 1}  # the rollout's to see to
    watched.desired = replace(watched.desired, rollout=None, step="idle")
    watched.wait(lambda: watched.standin.versions == {"1.0": 1})
    assert watched.watch.seen.up

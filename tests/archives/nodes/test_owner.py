"""archives/nodes/owner.py: two gateways before one node."""

import json
import os
import time
from pathlib import Path

import pytest

from archives.nodes import owner
from archives.rollout.start import start
from archives.state import clock
from sonode.console import UserError
from tests.archives.behind import behind
from tests.archives.standin import StandIn


def test_a_node_has_one_gateway_until_that_is_gone(tmp_path: Path) -> None:
    one, two, store = tmp_path / "one", tmp_path / "two", tmp_path / "store"
    store.mkdir()
    assert not owner.other(store, two)
    assert not owner.take(store, one)
    assert not owner.take(store, one)  # it keeps it
    assert owner.take(store, two).endswith(f":{one}")
    owner.release(store, two)  # not its own
    assert owner.other(store, two).endswith(f":{one}")
    owner.release(store, one)
    assert not owner.take(store, two)
    assert owner.other(store, one).endswith(f":{two}")


@pytest.mark.parametrize("hours", [-2, 0, 2])
@pytest.mark.parametrize("boot", ["this", "another", "unknown"])
def test_a_node_of_a_killed_gateway_is_free_after_a_minute_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int, boot: str
) -> None:
    """Of another machine, an earlier boot or an earlier sonode only the file's time is known."""
    one, two, store = tmp_path / "one", tmp_path / "two", tmp_path / "store"
    store.mkdir()
    assert not owner.take(store, one)
    began = clock.stamp()
    if boot == "unknown":
        note = json.loads((store / owner.FILE).read_text())
        del note[clock.CLOCK]
        (store / owner.FILE).write_text(json.dumps(note))
    for past_s, free in ((owner.FRESH_S - 20, False), (owner.FRESH_S + 1, True)):
        then = time.time() - past_s + hours * 3600
        os.utime(store / owner.FILE, (then, then))
        now = {"boot": began["boot"] if boot == "this" else "x", "s": began["s"] + past_s}
        monkeypatch.setattr(clock, "stamp", lambda now=now: now)
        expected = free if boot == "this" or not hours else hours < 0
        assert (not owner.other(store, two)) == expected


@pytest.mark.parametrize("note", ["{", "[]", "null", '"x"', '{"id": 1}'])
def test_a_damaged_note_is_nobodys(tmp_path: Path, note: str) -> None:
    (tmp_path / owner.FILE).write_text(note)
    assert not owner.take(tmp_path, tmp_path / "one")


@pytest.mark.live
def test_a_second_gateway_leaves_the_nodes_of_the_first_alone(
    tmp_path: Path, archive_path: Path
) -> None:
    node = StandIn(tmp_path / "n", "a")
    node.start()
    try:
        with (
            behind([node.settings()], tmp_path / "one") as first,
            behind([node.settings()], tmp_path / "two") as second,
        ):
            second.wait(lambda: "belongs to the gateway of" in second.applied()["nodes"]["a"])
            assert second.ask().status_code == 502  # it has no node
            assert first.ask().status_code == 200
            listed = tmp_path / "nodes.yaml"
            own = node.settings()
            listed.write_text(
                f"nodes:\n- name: a\n  inference: {own.inference}\n  management: {own.management}\n"
                f"  run_dir: {own.run_dir}\n  store: {own.store}\n"
            )
            with pytest.raises(UserError, match=r"^--nodes .*a belongs to the gateway of"):
                start(archive_path, listed, None, tmp_path / "two", step_by_step=False)
        with behind([node.settings()], tmp_path / "three") as later:  # they have stopped
            later.wait(lambda: later.applied()["nodes"]["a"] == "up")
    finally:
        node.stop()

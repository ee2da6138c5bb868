"""archives/state/files.py: who can reach the files of a state folder."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from archives.gateway.health import Health
from archives.gateway.nginx.nginx import Nginx
from archives.gateway.supervisor import only_one
from archives.rollout import traffic_permit
from archives.state import control
from archives.state.files import make_folder, write_private
from archives.state.journal import Journal
from archives.state.tokens_and_keys import add_client

OWNER = 10_001


@pytest.mark.skipif(os.geteuid() != 0, reason="only root follows no link")
@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("lock", lambda state: Journal(state).lock().__enter__()),
        ("lock", lambda state: Journal(state).is_locked()),
        ("clients.lock", lambda state: add_client(state, "clinic")),
        ("under_way", control.begin),
        ("gateway/lock", lambda state: only_one(state).__enter__()),
        ("gateway/released", traffic_permit.grant),
        ("gateway/disk_probe", traffic_permit.disk_fault),
        ("gateway/probe", lambda state: Health(state, None).look()),
        (
            "gateway/requests.jsonl",
            lambda state: Nginx(state / "gateway", 2).start(lambda _: 1 / 0),
        ),
        ("key.{pid}-0.part", lambda state: write_private(state, state / "key", b"new")),
    ],
)
def test_root_gives_no_file_away_to_which_the_owner_has_a_link_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[Path], object]
) -> None:
    monkeypatch.setattr("archives.state.files.get_ident", lambda: 0)
    state, victim = tmp_path / "state", tmp_path / "victim"
    make_folder(tmp_path, state / "gateway")
    victim.write_text("root's")
    (state / name.format(pid=os.getpid())).symlink_to(victim)
    for path in (state, state / "gateway"):
        os.chown(path, OWNER, -1)
    with suppress(OSError, ZeroDivisionError):
        act(state)
    assert (victim.stat().st_uid, victim.read_text()) == (0, "root's")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_root_gives_no_folder_away_to_which_the_owner_has_a_link_lead(tmp_path: Path) -> None:
    state, victim = tmp_path / "state", tmp_path / "victim"
    make_folder(tmp_path, state)
    victim.mkdir()
    os.chown(state, OWNER, -1)
    (state / "gateway").symlink_to(victim)
    make_folder(state, state / "gateway")
    assert victim.stat().st_uid == 0


def test_nobody_else_reaches_the_folder_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Journal(tmp_path / "one")
        add_client(tmp_path / "two", "clinic")
    finally:
        os.umask(before)
    assert [(tmp_path / it).stat().st_mode & 0o077 for it in ("one", "two")] == [0, 0]

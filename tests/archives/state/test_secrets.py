"""Secrets of the gateway: whose they are, and what damage is told."""

import os
from pathlib import Path

import pytest

from archives.state import secrets as clients
from sonode.console import UserError

SOMEBODY = 10_001


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("theirs", ["state", "clients.json"])
def test_what_root_writes_is_the_gateways(tmp_path: Path, theirs: str) -> None:
    state = tmp_path / "state"
    clients.add_client(state, "before")  # root's, which nginx could not read
    os.chown({"state": state, "clients.json": state / "clients.json"}[theirs], SOMEBODY, -1)
    clients.add_client(state, "clinic")
    clients.prepare(state)
    clients.write_token(state, "a", "token")
    for name in ("clients.json", "clients.lock", "key", "gateway/a.token"):
        assert (state / name).stat().st_uid == SOMEBODY, name
    assert sorted(clients.clients(state)) == ["before", "clinic"]


def test_another_user_is_told_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clients.add_client(tmp_path, "clinic")
    before = (tmp_path / "clients.json").read_bytes()
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    for change in (clients.add_client, clients.remove_client):
        with pytest.raises(UserError, match=r"belongs to .*: run this as that user, with `sudo -u"):
            change(tmp_path, "clinic")
    assert (tmp_path / "clients.json").read_bytes() == before


@pytest.mark.parametrize("left", [b"", bytes(31)])
def test_a_damaged_key_is_told(tmp_path: Path, left: bytes) -> None:
    clients.prepare(tmp_path)
    key = clients.study_key(tmp_path)
    clients.prepare(tmp_path)
    assert clients.study_key(tmp_path) == key
    (tmp_path / "key").write_bytes(left)
    with pytest.raises(UserError, match=rf"key: is damaged \({len(left)} bytes, not 32\)"):
        clients.prepare(tmp_path)


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'"x"', b'{"pacs": 1}', b"\xff"])
def test_a_damaged_list_of_clients_is_told_and_stays_as_it_is(tmp_path: Path, left: bytes) -> None:
    clients.add_client(tmp_path, "pacs")
    listed = tmp_path / "clients.json"
    listed.write_bytes(left)
    for change in (clients.add_client, clients.remove_client):
        with pytest.raises(UserError, match=r"clients\.json: is damaged: restore it"):
            change(tmp_path, "clinic")
    with pytest.raises(UserError, match="is damaged"):
        clients.prepare(tmp_path)
    assert listed.read_bytes() == left

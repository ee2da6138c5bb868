"""Secrets of the gateway: whose they are, and what damage is told."""

import hashlib
import os
from pathlib import Path

import pytest

from archives.state import tokens_and_keys
from sonode.console import UserError
from tests.command_line import sonode

SOMEBODY = 10_001


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("theirs", ["state", "clients.json"])
def test_what_root_writes_is_the_gateways(tmp_path: Path, theirs: str) -> None:
    state = tmp_path / "state"
    tokens_and_keys.add_client(state, "before")  # root's, which nginx could not read
    os.chown({"state": state, "clients.json": state / "clients.json"}[theirs], SOMEBODY, -1)
    tokens_and_keys.add_client(state, "clinic")
    tokens_and_keys.prepare(state)
    tokens_and_keys.write_token(state, "a", "token")
    for name in ("clients.json", "clients.lock", "key", "gateway/a.token"):
        assert (state / name).stat().st_uid == SOMEBODY, name
    assert sorted(tokens_and_keys.clients(state)) == ["before", "clinic"]


def test_another_user_learns_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens_and_keys.add_client(tmp_path, "clinic")
    before = (tmp_path / "clients.json").read_bytes()
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    for change in (tokens_and_keys.add_client, tokens_and_keys.remove_client):
        with pytest.raises(UserError, match=r"belongs to .*: run this as that user, with `sudo -u"):
            change(tmp_path, "clinic")
    assert (tmp_path / "clients.json").read_bytes() == before


@pytest.mark.parametrize("left", [b"", bytes(31)])
def test_a_damaged_key_is_reported(tmp_path: Path, left: bytes) -> None:
    tokens_and_keys.prepare(tmp_path)
    key = tokens_and_keys.study_key(tmp_path)
    tokens_and_keys.prepare(tmp_path)
    assert tokens_and_keys.study_key(tmp_path) == key
    (tmp_path / "key").write_bytes(left)
    with pytest.raises(UserError, match=rf"key: is damaged \({len(left)} bytes, not 32\)"):
        tokens_and_keys.prepare(tmp_path)


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'"x"', b'{"pacs": 1}', b"\xff"])
def test_a_damaged_list_of_clients_is_reported_and_stays_as_it_is(
    tmp_path: Path, left: bytes
) -> None:
    tokens_and_keys.add_client(tmp_path, "pacs")
    listed = tmp_path / "clients.json"
    listed.write_bytes(left)
    for change in (tokens_and_keys.add_client, tokens_and_keys.remove_client):
        with pytest.raises(UserError, match=r"clients\.json: is damaged: restore it"):
            change(tmp_path, "clinic")
    with pytest.raises(UserError, match="is damaged"):
        tokens_and_keys.prepare(tmp_path)
    assert listed.read_bytes() == left


def test_a_token_is_printed_alone_and_its_gateway_is_named_beside_it(tmp_path: Path) -> None:
    made = sonode("gateway-token", "clinic", cwd=tmp_path)
    digest = hashlib.sha256(made.stdout.strip().encode()).hexdigest()
    assert tokens_and_keys.clients(tmp_path / "runs" / "rollout") == {"clinic": digest}
    assert made.stderr == f"token of clinic, for the gateway with --state {tmp_path}/runs/rollout\n"

"""serve_with_gateway.py: what TorchServe starts with behind a gateway of its own machine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from archives.gateway.configuration.settings import GatewaySettings
from archives.packing.members import file_sha256
from archives.serving.serve import serve
from archives.state.journal import Journal, Release
from sonode.console import UserError


def test_an_archive_that_was_replaced_is_not_served_as_the_journals(
    tmp_path: Path, archive_path: Path
) -> None:
    state, store = tmp_path / "state", tmp_path / "store"
    store.mkdir()
    archive = store / "m-1.0.mar"
    archive.write_bytes(archive_path.read_bytes())
    release = Release("1.0", archive.name, file_sha256(archive))
    journal = Journal(state)
    with journal.lock():
        journal.append("deployed", rollout=None, model="m", stable=release, serves=[release])
    archive.write_bytes(archive_path.read_bytes() + b"!")
    with pytest.raises(UserError, match=r"^--store .*m-1.0.mar is not the archive.*copy .*$"):
        serve(store, run_dir=tmp_path / "run", gateway=GatewaySettings(port=8443), state=state)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"port": 8080}, r"--gateway-port 8080: the server has it; give another$"),
        ({}, r"port \d+ cannot be opened .*: give another --gateway-port or stop what listens"),
        (
            {"host": "127.0.0.2", "certificate": "no.pem", "certificate_key": "no.key"},
            r"--certificate no.pem, --certificate-key no.key: cannot be used .*: give a matching",
        ),
        ({"nginx": "no-nginx"}, r"--nginx no-nginx: does not run"),
    ],
)
def test_a_gateway_that_cannot_start_is_refused_before_its_server_starts(
    tmp_path: Path, archive_path: Path, settings: dict[str, Any], fault: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway = GatewaySettings(**{"port": taken.getsockname()[1], **settings})
        models, run, state = [f"m={archive_path.name}"], tmp_path / "run", tmp_path / "state"
        with pytest.raises(UserError, match="^" + fault):
            serve(archive_path.parent, models, run_dir=run, gateway=gateway, state=state)
    assert not run.exists()
    assert not (state / "journal.jsonl").exists()

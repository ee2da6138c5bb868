"""serve_with_gateway.py: what TorchServe starts with behind a gateway of its own machine."""

from __future__ import annotations

from pathlib import Path

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

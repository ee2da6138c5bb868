"""archives/nodes/stores.py: an archive is copied whole, or its name is not there."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from archives.nodes.stores import copy_whole
from sonode.files.atomic import ABANDONED_S

DATA = bytes(range(256)) * 1024


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "m-2.0.mar"
    path.write_bytes(DATA)
    return path


def test_what_a_killed_copy_has_left_is_no_archive_and_goes_with_a_later_one(
    tmp_path: Path, archive: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    target = store / archive.name
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from archives.nodes import stores
        stores.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
        stores.copy_whole(*map(Path, sys.argv[1:]))
    """
    words = [sys.executable, "-c", code, str(archive), str(target)]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    (left,) = store.iterdir()
    assert left.suffix == ".part"  # TorchServe takes files of .mar alone
    long_ago = time.time() - ABANDONED_S - 1
    os.utime(left, (long_ago, long_ago))
    copy_whole(archive, target)
    assert [(it.name, it.read_bytes()) for it in store.iterdir()] == [(archive.name, DATA)]


def test_a_copy_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave the name, which the journal has by then, without the bytes."""
    target = tmp_path / "store" / archive.name
    target.parent.mkdir()
    synced = []

    def sync(handle: int) -> None:
        found = os.fstat(handle)
        size = "folder" if stat.S_ISDIR(found.st_mode) else found.st_size
        synced.append((size, target.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    copy_whole(archive, target)
    assert synced == [(len(DATA), False), ("folder", True)]
    assert target.read_bytes() == DATA

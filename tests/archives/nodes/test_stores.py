"""archives/nodes/stores.py: an archive is copied whole, or its name is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from archives.nodes.stores import copy_whole, remove_old

DATA = bytes(range(256)) * 1024


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "m-2.0.mar"
    path.write_bytes(DATA)
    return path


def killed_half_way(tmp_path: Path, target: Path) -> Path:
    """What a copy leaves that is killed while half of the bytes have come."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = "import sys; from pathlib import Path; from archives.nodes.stores import copy_whole\n"
    code += "copy_whole(*map(Path, sys.argv[1:]))"
    copying = subprocess.Popen([sys.executable, "-c", code, str(pipe), str(target)])
    with pipe.open("wb", buffering=0) as half:  # opened when the copy has begun
        half.write(DATA[: len(DATA) // 2])
        copying.send_signal(signal.SIGKILL)
        assert copying.wait() == -signal.SIGKILL
    (left,) = target.parent.iterdir()
    return left


def test_what_a_killed_copy_has_left_is_no_archive_and_goes_with_the_next_one(
    tmp_path: Path, archive: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    target = store / archive.name
    left = killed_half_way(tmp_path, target)
    assert left.suffix == ".part"  # TorchServe takes files of .mar alone
    copy_whole(archive, target)
    assert [(it.name, it.read_bytes()) for it in store.iterdir()] == [(archive.name, DATA)]
    left.touch()
    assert remove_old(store, [archive.name], [archive.name]) == []
    assert list(store.iterdir()) == [target]


def test_a_copy_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave the name, which the journal has by then, without the bytes."""
    target = tmp_path / "store" / archive.name
    target.parent.mkdir()
    synced = []

    def sync(handle: int) -> None:
        synced.append((os.fstat(handle).st_size, target.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    copy_whole(archive, target)
    assert synced == [(len(DATA), False)]
    assert target.read_bytes() == DATA

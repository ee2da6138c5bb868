"""sonode/files/atomic.py: a file that comes whole, beside others that come, too."""

import os
import time
from pathlib import Path

import pytest

from archives.nodes.stores import copy_whole, remove_old
from sonode.console import UserError
from sonode.files.atomic import ABANDONED_S, beside, check_new, scratch
from tests.archives.killed import is_killed


def test_two_at_once_keep_theirs_and_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    target, source = tmp_path / "m-1.0.mar", tmp_path / "source"
    source.write_bytes(b"whole")
    with beside(target) as abandoned:
        left = abandoned.rename(tmp_path / ".m-1.0.mar-left.part")
    long_ago = time.time() - ABANDONED_S - 1
    os.utime(left, (long_ago, long_ago))
    with beside(target) as slow:
        slow.write_bytes(b"who")
        copy_whole(source, target)  # the same, by somebody else
        remove_old(tmp_path, (), ())
        slow.write_bytes(b"whole")
        slow.replace(target)
    assert target.read_bytes() == b"whole"
    assert target.stat().st_mode & 0o777 == 0o644
    assert sorted(it.name for it in tmp_path.iterdir()) == ["m-1.0.mar", "source"]


def test_a_temporary_folder_that_a_kill_left_is_removed_and_one_in_use_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def use() -> None:
        with scratch("sonode-archive-") as folder:
            (folder / "weights").mkdir()

    assert is_killed(use, tmp_path, 3)  # at its end
    (left,) = tmp_path.iterdir()
    with scratch("sonode-archive-") as in_use:
        for folder in (left, in_use):
            long_ago = time.time() - ABANDONED_S - 1
            os.utime(folder, (long_ago, long_ago))
        with scratch("sonode-archive-"), scratch("sonode-pack-"):
            assert in_use.exists()
            assert not left.exists()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_new(tmp_path / "a" / "b")
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # root may write anywhere
    with pytest.raises(UserError, match=f"OUT .*b: no right to write into {tmp_path}; give"):
        check_new(tmp_path / "a" / "b")
    (tmp_path / "mounted").mkdir()
    check_new(tmp_path / "mounted", in_place=True)
    with pytest.raises(UserError, match=f"OUT .*mounted: no right to write into {tmp_path};"):
        check_new(tmp_path / "mounted")

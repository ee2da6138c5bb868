from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from batch.storage import objects
from sonode.console import UserError
from sonode.demo import local_s3
from sonode.demo.local_s3 import LocalS3

pytestmark = pytest.mark.live


def _gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def _sockets(ports: list[int]) -> list[Path]:
    ends = tuple(f"-{p}.sock" for port in ports for p in (port, port + 10000))
    return [path for path in Path("/tmp").glob("seaweedfs-*.sock") if path.name.endswith(ends)]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    server = LocalS3(tmp_path, bucket="studies")
    with pytest.raises(error), server:
        assert server._process is not None
        group = server._process.pid
        assert not _gone(group)
        assert _sockets(server._ports)
        raise error
    assert _gone(group)
    assert not _sockets(server._ports)


def test_a_server_that_died_leaves_nothing_and_its_data_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalS3(tmp_path, bucket="studies") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        objects.write("s3://studies/kept", b"data")
        assert objects.list_files("s3://studies") == ["s3://studies/kept"]  # no probe is left
        assert server._process is not None
        group = server._process.pid
        os.killpg(group, signal.SIGKILL)
    assert _gone(group)
    with LocalS3(tmp_path, bucket="studies") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        assert objects.read("s3://studies/kept").data == b"data"


def test_images_go_to_no_other_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name, value in {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_PROFILE": "of-the-hospital",
        "AWS_SESSION_TOKEN": "of-the-hospital",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }.items():
        os.environ[name] = value
    with LocalS3(tmp_path, bucket="studies") as server:
        server.take_over()
        objects.write("s3://studies/image", b"data")
        assert objects.read("s3://studies/image").data == b"data"
        assert "AWS_PROFILE" not in os.environ


def test_a_server_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_s3, "find_weed", lambda: "false")
    with (
        pytest.raises(UserError, match=r"SeaweedFS did not start: see the end of .*weed\.log"),
        LocalS3(tmp_path, bucket="studies"),
    ):
        pass


def test_without_seaweedfs_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="extra `demo`"), LocalS3(tmp_path, bucket="studies"):
        pass


def test_it_listens_on_loopback_only(server: LocalS3) -> None:
    assert server._process is not None
    open_ones = psutil.Process(server._process.pid).net_connections("tcp")
    addresses = [each.laddr for each in open_ones if each.status == psutil.CONN_LISTEN]
    assert len(addresses) >= 5
    assert {address.ip for address in addresses} == {"127.0.0.1"}

"""Certificates that a renewal has left broken, before a live nginx."""

import errno
import logging
import shutil
import ssl
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from archives.gateway import certificate
from archives.gateway.certificate import Pair
from archives.gateway.configuration.settings import GatewaySettings
from archives.gateway.supervisor import Supervisor
from archives.state import tokens_and_keys
from archives.torchserve.java import claim_ports
from sonode.console import UserError
from tests.archives.behind import V1, V2, Behind, start_journal
from tests.archives.standin import StandIn

pytestmark = pytest.mark.live
HERE = Path(__file__).parents[1]


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    """With a pair of its own."""
    paths = tmp_path / "tls.crt", tmp_path / "tls.key"
    shutil.copy(HERE / "localhost.pem", paths[0])
    shutil.copy(HERE / "localhost-key.pem", paths[1])
    port = claim_ports({"gateway": None})["gateway"]
    return GatewaySettings(port=port, certificate=paths[0], certificate_key=paths[1])


def half(certificate: Path, key: Path) -> None:
    certificate.write_bytes(certificate.read_bytes()[:300])


def another_key(certificate: Path, key: Path) -> None:
    make = ["openssl", "genpkey", "-quiet", "-algorithm", "ED25519", "-out", str(key)]
    subprocess.run(make, check=True)


def empty(certificate: Path, key: Path) -> None:
    key.write_bytes(b"")


def missing(certificate: Path, key: Path) -> None:
    certificate.unlink()


Broken = Callable[[Path, Path], None]
BROKEN = [half, another_key, empty, missing]


def version(gateway: Behind) -> str:
    trusted = ssl.create_default_context(cafile=str(HERE / "localhost.pem"))
    with httpx.Client(verify=trusted, trust_env=False) as client:
        url = f"https://localhost:{gateway.port}/predictions/m"
        headers = {"Authorization": f"Bearer {gateway.token}", "X-Study-Id": "1"}
        answer = client.post(url, headers=headers, content=b"x")
    assert answer.status_code == 200
    return answer.headers["X-Model-Version"]


@pytest.mark.parametrize("broken", BROKEN)
def test_with_a_broken_pair_the_way_back_stays_open(
    node: StandIn,
    settings: GatewaySettings,
    short_path: Path,
    caplog: pytest.LogCaptureFixture,
    broken: Broken,
) -> None:
    assert settings.certificate and settings.certificate_key
    gateway = Behind(short_path, settings.port, tokens_and_keys.add_client(short_path, "clinic"))
    start_journal(short_path, candidate=V2, serves=[V1, V2], percent=100.0)
    good = settings.certificate.read_bytes(), settings.certificate_key.read_bytes()
    with Supervisor([node.settings()], short_path, settings):
        assert version(gateway) == "2.0"
        broken(settings.certificate, settings.certificate_key)
        gateway.journal(percent=0.0)
        assert version(gateway) == "1.0"
        told = [it.getMessage() for it in caplog.records if it.levelno == logging.ERROR]
        assert len([it for it in told if "cannot be used" in it]) == 1
        assert "\n" not in told[0]
    # A start meets it, too; and a good one is taken when it comes.
    with Supervisor([node.settings()], short_path, settings):
        assert version(gateway) == "1.0"
        settings.certificate.write_bytes(good[0])
        settings.certificate_key.write_bytes(good[1] + b"\n# renewed\n")
        copy = short_path / "gateway" / "certificate.pem"
        gateway.wait(lambda: b"# renewed" in copy.read_bytes())
        gateway.journal(percent=100.0)
        assert version(gateway) == "2.0"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    gateway.client.close()


@pytest.mark.parametrize("broken", BROKEN)
def test_a_first_start_needs_a_pair_that_belongs_together(
    node: StandIn, settings: GatewaySettings, short_path: Path, broken: Broken
) -> None:
    assert settings.certificate and settings.certificate_key
    broken(settings.certificate, settings.certificate_key)
    with pytest.raises(UserError, match="--certificate ") as told:
        Supervisor([node.settings()], short_path, settings).__enter__()
    assert "\n" not in str(told.value)


def test_a_good_pair_is_taken_once_the_disk_has_space(
    settings: GatewaySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.certificate and settings.certificate_key
    pair = Pair(settings.certificate, settings.certificate_key, tmp_path, lambda text: "")
    pair.look()
    first = pair.digest

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    settings.certificate_key.write_bytes(settings.certificate_key.read_bytes() + b"# renewed\n")
    with monkeypatch.context() as patch:
        patch.setattr(certificate, "write_private", full)
        pair.look()
        assert pair.digest == first
    pair.look()
    assert pair.digest != first

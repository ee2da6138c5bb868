"""The address of a PACS, whom sonode is there, and what a connection to it can end in.

A PACS is a DICOMweb service, `https://HOST/PATH`, or a DIMSE node, `AETITLE@HOST:PORT`. Both are
reached by TLS; `plain` allows a connection that anybody in the network can read.

Whom sonode is comes from the environment or from files that it names, never from the command line:

- `SONODE_DICOM_TOKEN`, a bearer token, or `SONODE_DICOM_USER` and `SONODE_DICOM_PASSWORD`, for
  DICOMweb; `SONODE_DICOM_TOKEN_FILE` and `SONODE_DICOM_PASSWORD_FILE` name a file with it;
- `SONODE_DICOM_CA`, a file of certificates to trust;
- `SONODE_DICOM_CERT` and `SONODE_DICOM_KEY`, files of a client certificate.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests

from sonode.console import UserError

TIMEOUT_S = (10.0, 120.0)  # to connect, and for an answer
OUR_TITLE = "SONODE"
"""The AE title that sonode calls itself, unless told."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MAX_TITLE = 16  # PS3.5, 6.2: of an AE

# They quote UIDs, and what was sent.
for _name in ("dicomweb_client", "retrying", "urllib3", "pynetdicom"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


class NoAnswer(Exception):  # noqa: N818 - reads as what it is
    """The PACS does not answer, or not as it should; the message quotes no UID."""


class Web(NamedTuple):
    """A DICOMweb service."""

    url: str


class Node(NamedTuple):
    """A DIMSE node (an application entity)."""

    title: str
    host: str
    port: int


def address(text: str, option: str, *, plain: bool) -> Web | Node:
    """Read what `option` gives. Raises UserError where it is no address, or is not encrypted."""
    if "://" in text or "@" not in text:
        _check_url(text, option, plain=plain)
        return Web(text.rstrip("/"))
    head, _, tail = text.rpartition("@")
    host, _, port = tail.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise UserError(f"{option}: not the address of a DIMSE node; give AETITLE@HOST:PORT")
    return Node(check_title(head, option), host, int(port))


def check_title(text: str, option: str) -> str:
    """Return an AE title. Raises UserError where DICOM does not allow it."""
    title = text.strip()
    if not 0 < len(title) <= _MAX_TITLE or not title.isascii() or not title.isprintable():
        raise UserError(f"{option}: not an AE title; give 1 to {_MAX_TITLE} ASCII characters")
    if "\\" in title:
        raise UserError(f"{option}: an AE title has no backslash")
    return title


def _check_url(url: str, option: str, *, plain: bool) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        sound = parts.scheme in ("http", "https") and host is not None and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise UserError(
            f"{option}: not the address of a PACS; give https://HOST/PATH (DICOMweb) or "
            "AETITLE@HOST:PORT (DIMSE)"
        )
    if parts.username is not None or parts.password is not None:
        raise UserError(
            f"{option}: a user or password in a URL is seen by others; set SONODE_DICOM_USER and "
            "SONODE_DICOM_PASSWORD"
        )
    if parts.scheme == "http" and host not in _LOOPBACK and not plain:
        raise UserError(
            f"{option}: http:// sends patients' names to {host} in the clear; give https://, or "
            "--plain in a network of your own"
        )


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Whom sonode is at a PACS, and whom it trusts; no secret is in its text."""

    token: str | None = field(default=None, repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @classmethod
    def of_environment(cls) -> Identity:
        """Read it. Raises UserError for what is incomplete or cannot be read."""
        env = {name: os.environ.get(f"SONODE_DICOM_{name}") or None for name in _FILES}
        user = os.environ.get("SONODE_DICOM_USER") or None
        found = cls(
            token=_secret("TOKEN"),
            user=user,
            password=_secret("PASSWORD"),
            ca=env["CA"],
            cert=env["CERT"],
            key=env["KEY"],
        )
        if bool(found.user) != bool(found.password) or (found.key and not found.cert):
            raise UserError(
                "SONODE_DICOM_USER needs SONODE_DICOM_PASSWORD, and SONODE_DICOM_KEY needs "
                "SONODE_DICOM_CERT; set both"
            )
        found.tls()
        return found

    def tls(self) -> ssl.SSLContext:
        """For a client. Raises UserError for a file that is not of certificates or of a key."""
        for name, path in zip(_FILES, (self.ca, self.cert, self.key), strict=True):
            if path and not Path(path).is_file():
                raise UserError(f"SONODE_DICOM_{name}: {path}: no such file")
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError):
            raise UserError(f"SONODE_DICOM_CA: {self.ca}: not certificates in PEM") from None
        if self.cert:
            try:  # a password, so that none is asked for at the terminal
                context.load_cert_chain(self.cert, self.key, password=lambda: b"")
            except (OSError, ssl.SSLError):
                raise UserError(
                    f"SONODE_DICOM_CERT: {self.cert}: not a certificate in PEM whose key is in "
                    "SONODE_DICOM_KEY or behind it, without a passphrase"
                ) from None
        return context

    def session(self) -> requests.Session:
        """For DICOMweb: of one thread. What is sent to one address never goes to another."""
        session = requests.Session()
        session.trust_env = False  # no proxy, and no .netrc
        session.max_redirects = 0
        if self.token:
            session.headers["Authorization"] = f"Bearer {self.token}"
        elif self.user and self.password:
            session.auth = (self.user, self.password)
        if self.ca:
            session.verify = self.ca
        if self.cert:
            session.cert = (self.cert, self.key) if self.key else self.cert
        return session


_FILES = ("CA", "CERT", "KEY")


def _secret(name: str) -> str | None:
    """A variable, or the first line of the file that a variable names."""
    variable = f"SONODE_DICOM_{name}"
    given, path = os.environ.get(variable), os.environ.get(f"{variable}_FILE")
    if given and path:
        raise UserError(f"{variable} and {variable}_FILE: both are set; set one")
    if not path:
        return given or None
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{variable}_FILE: {path}: cannot be read; give a text file") from None
    if not lines or not lines[0]:
        raise UserError(f"{variable}_FILE: {path}: its first line is empty")
    return lines[0]


def web_fault(error: requests.RequestException, option: str) -> Exception:
    """What a failed request says of the whole service: UserError, or NoAnswer."""
    if isinstance(error, requests.TooManyRedirects):
        return UserError(f"{option}: the service sends to another address; give that one")
    if isinstance(error, requests.exceptions.SSLError):
        return UserError(f"{option}: {_tls_fault(error)}")
    if not isinstance(error, requests.HTTPError) or error.response is None:
        return NoAnswer(type(error).__name__)
    status = error.response.status_code
    if status in (401, 403):
        return UserError(
            f"{option}: the PACS does not let sonode in (HTTP {status}); set SONODE_DICOM_TOKEN, "
            "or SONODE_DICOM_USER and SONODE_DICOM_PASSWORD"
        )
    if status in (400, 404, 405, 406, 501):
        return UserError(
            f"{option}: no DICOMweb service with what is needed is there (HTTP {status}); check "
            "the path of the URL, and whether it asks for a client certificate "
            "(SONODE_DICOM_CERT)"
        )
    return NoAnswer(f"HTTP {status}")


def _tls_fault(error: Exception) -> str:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        why = "the certificate of the PACS is not trusted, or not of this host"
        return f"{why}; name the file of its authority in SONODE_DICOM_CA"
    if "ALERT" in text or "CERTIFICATE_REQUIRED" in text:
        return "the PACS refuses this client by TLS; set SONODE_DICOM_CERT and SONODE_DICOM_KEY"
    return "no TLS is spoken there; check the port"


def associate(
    node: Node,
    title: str,
    identity: Identity,
    contexts: Sequence[Any],
    option: str,
    *,
    plain: bool,
    **more: Any,
) -> Any:
    """Open an association with a DIMSE node (pynetdicom's `Association`).

    Args:
        node: whom to call.
        title: the AE title to call as.
        identity: for TLS.
        contexts: pynetdicom's presentation contexts.
        option: that gave the node.
        plain: without TLS.
        more: for pynetdicom's `associate`.

    Raises:
        UserError: the node refuses the titles, or TLS fails.
        NoAnswer: nobody is there, or it has no room now.
    """
    from pynetdicom import AE, _config

    _config.LOG_HANDLER_LEVEL = "none"  # it would make the text of each message
    entity = AE(title)
    entity.connection_timeout, entity.dimse_timeout = TIMEOUT_S
    entity.acse_timeout = entity.network_timeout = TIMEOUT_S[1]
    tls = None if plain else (identity.tls(), node.host)
    try:
        made = entity.associate(
            node.host, node.port, list(contexts), node.title, tls_args=tls, **more
        )
    except OSError:  # no such host
        raise NoAnswer("no such host") from None
    if made.is_established:
        return made
    if made.is_rejected:
        answer = made.acceptor.primitive
        if answer.result == 1:  # rejected permanently, PS3.8, 9.3.4
            raise UserError(
                f"{option}: the PACS does not accept {title} calling {node.title} "
                f"(source {answer.result_source}, reason {answer.diagnostic}); register the title "
                "there, or give --title"
            )
        raise NoAnswer("association rejected for now")
    raise _unreached(node, identity, option, plain=plain)


def _unreached(node: Node, identity: Identity, option: str, *, plain: bool) -> Exception:
    """Why there is no association, found by one more connection."""
    what = None
    try:
        with socket.create_connection((node.host, node.port), TIMEOUT_S[0]) as bare:
            if not plain:
                what = "the connection was closed as TLS began"
                with identity.tls().wrap_socket(bare, server_hostname=node.host) as inner:
                    # In TLS 1.3 a refused client certificate shows in the first answer.
                    inner.settimeout(2)
                    inner.recv(1)
    except ssl.SSLError as error:
        return UserError(f"{option}: {_tls_fault(error)}")
    except TimeoutError:
        return NoAnswer("association aborted")
    except OSError as error:
        return NoAnswer(what or type(error).__name__)
    return NoAnswer("association aborted")

"""Whom sonode is at a PACS, and whom it trusts.

It comes from the environment or from files that it names, never from the command line:

- `SONODE_DICOM_TOKEN`, a bearer token, or `SONODE_DICOM_USER` and `SONODE_DICOM_PASSWORD`, for
  DICOMweb; `SONODE_DICOM_TOKEN_FILE` and `SONODE_DICOM_PASSWORD_FILE` name a file with it;
- `SONODE_DICOM_CA`, a file of certificates to trust;
- `SONODE_DICOM_CERT` and `SONODE_DICOM_KEY`, files of a client certificate.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import requests

from sonode.console import UserError


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
        self._load(context)
        return context

    def server_tls(self) -> ssl.SSLContext:
        """For a node that a PACS calls: by a certificate that is trusted.

        Raises UserError as `tls`, and where there is no certificate of one's own.
        """
        if not self.cert:
            raise UserError(
                "SONODE_DICOM_CERT: what a PACS sends to by TLS needs a certificate; set it and "
                "SONODE_DICOM_KEY"
            )
        self.tls()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        if not self.ca:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        if self.cert:
            try:  # a password, so that none is asked for at the terminal
                context.load_cert_chain(self.cert, self.key, password=lambda: b"")
            except (OSError, ssl.SSLError):
                raise UserError(
                    f"SONODE_DICOM_CERT: {self.cert}: not a certificate in PEM whose key is in "
                    "SONODE_DICOM_KEY or behind it, without a passphrase"
                ) from None

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

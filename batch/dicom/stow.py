"""A PACS over DICOMweb: asked by QIDO-RS, stored to by STOW-RS (PS3.18).

Whom sonode is comes from the environment, never from the command line:

- `SONODE_DICOM_TOKEN`, a bearer token, or `SONODE_DICOM_USER` and `SONODE_DICOM_PASSWORD`;
- `SONODE_DICOM_CA`, a file of certificates to trust;
- `SONODE_DICOM_CERT` and `SONODE_DICOM_KEY`, files of a client certificate.
"""

from __future__ import annotations

import io
import logging
import os
from typing import NamedTuple
from urllib.parse import urlsplit

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient

from sonode.console import UserError

_TIMEOUT_S = (10.0, 120.0)  # to connect, and for an answer
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NO_CHUNKS = 1 << 28  # a body in chunks cannot be sent again

# They quote UIDs.
for _name in ("dicomweb_client", "urllib3"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


class NoAnswer(Exception):  # noqa: N818 - reads as what it is
    """The PACS does not answer, or not as a DICOMweb server; the message quotes no UID."""


class Refused(Exception):  # noqa: N818 - reads as what it is
    """The PACS has refused an object; the message is its status."""


class Instance(NamedTuple):
    """What names an object in a PACS."""

    study: str
    series: str
    instance: str


class Pacs:
    """A DICOMweb service."""

    def __init__(self, url: str, *, plain_http: bool = False) -> None:
        """Take the service at `url`. Raises UserError for a URL or settings that cannot be used."""
        _check_url(url, plain_http=plain_http)
        self._client = DICOMwebClient(
            url.rstrip("/"), session=_session(), chunk_size=_NO_CHUNKS, timeout=_TIMEOUT_S
        )

    def has(self, it: Instance) -> bool:
        """Whether the PACS has an object. Raises NoAnswer, UserError."""
        try:
            found = self._client.search_for_instances(
                it.study, it.series, search_filters={"SOPInstanceUID": it.instance}
            )
        except requests.HTTPError as error:
            if _status(error) == 404:  # some answer so for a study that they do not have
                return False
            raise _fault(error) from None
        except (requests.RequestException, ValueError) as error:
            raise NoAnswer(type(error).__name__) from None
        values = [each.get("00080018", {}).get("Value", [None])[0] for each in found or ()]
        return it.instance in values  # a server may not know the filter

    def store(self, file: bytes) -> None:
        """Store an object. Raises Refused, NoAnswer, UserError."""
        dataset = pydicom.dcmread(io.BytesIO(file))
        try:
            answer = self._client.store_instances([dataset])
        except requests.HTTPError as error:
            if _status(error) in (400, 409, 413, 415, 422):
                raise Refused(f"HTTP {_status(error)}") from None
            raise _fault(error) from None  # none would be taken
        except (requests.RequestException, ValueError) as error:
            raise NoAnswer(type(error).__name__) from None
        failed = answer.get("FailedSOPSequence") if answer is not None else None
        if failed:
            raise Refused(f"failure reason {int(failed[0].get('FailureReason') or 0):#06x}")


def _check_url(url: str, *, plain_http: bool) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        sound = parts.scheme in ("http", "https") and host is not None and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise UserError("--to: not the URL of a DICOMweb service; give https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise UserError(
            "--to: a user or password in a URL is seen by others; set SONODE_DICOM_USER and "
            "SONODE_DICOM_PASSWORD"
        )
    if parts.scheme == "http" and host not in _LOOPBACK and not plain_http:
        raise UserError(
            f"--to: http:// sends patients' names to {host} in the clear; give https://, or "
            "--plain-http in a network of your own"
        )


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxy, and no .netrc
    env = os.environ
    token, user, password, ca, cert, key = (
        env.get(f"SONODE_DICOM_{name}")
        for name in ("TOKEN", "USER", "PASSWORD", "CA", "CERT", "KEY")
    )
    for name, path in (("CA", ca), ("CERT", cert), ("KEY", key)):
        if path and not os.path.isfile(path):  # noqa: PTH113 - a path as text, for requests
            raise UserError(f"SONODE_DICOM_{name}: {path}: no such file")
    if bool(user) != bool(password) or (key and not cert):
        raise UserError(
            "SONODE_DICOM_USER needs SONODE_DICOM_PASSWORD, and SONODE_DICOM_KEY needs "
            "SONODE_DICOM_CERT; set both"
        )
    if token:
        session.headers["Authorization"] = f"Bearer {token}"
    elif user and password:
        session.auth = (user, password)
    if ca:
        session.verify = ca
    if cert:
        session.cert = (cert, key) if key else cert
    return session


def _status(error: requests.HTTPError) -> int:
    return error.response.status_code if error.response is not None else 0


def _fault(error: requests.HTTPError) -> Exception:
    """What an answer says of the whole service."""
    status = _status(error)
    if status in (401, 403):
        return UserError(
            f"--to: the PACS does not let sonode in (HTTP {status}); set SONODE_DICOM_TOKEN, or "
            "SONODE_DICOM_USER and SONODE_DICOM_PASSWORD"
        )
    if status in (404, 405):
        return UserError(f"--to: the service does not take objects there (HTTP {status})")
    return NoAnswer(f"HTTP {status}")

"""The address of a PACS: a DICOMweb service, or a DIMSE node.

They are `https://HOST/PATH` and `AETITLE@HOST:PORT`. Both are reached by TLS; `plain` allows a
connection that anybody in the network can read.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from sonode.console import UserError

OUR_TITLE = "SONODE"
"""The AE title that sonode calls itself, unless told."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MAX_TITLE = 16  # PS3.5, 6.2: of an AE


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
            f"{beside(option, 'plain')} in a network of your own"
        )


def beside(option: str, name: str) -> str:
    """What gives `name` where `option` is what gave the address: an option or a setting."""
    return f"--{name}" if option.startswith("--") else name

"""What names an object in a PACS, and how a PACS refuses one."""

from __future__ import annotations

from typing import NamedTuple

TIMEOUT_S = (10.0, 120.0)  # to connect, and for an answer


class NoAnswer(Exception):  # noqa: N818 - reads as what it is
    """The PACS does not answer, or not as it should; the message quotes no UID."""


class Refused(Exception):  # noqa: N818 - reads as what it is
    """The PACS has refused an object; the message is its status."""


class AlreadyThere(Exception):  # noqa: N818 - reads as what it is
    """The PACS says that it has an object of this UID already."""


class Instance(NamedTuple):
    """What names an object in a PACS."""

    study: str
    series: str
    instance: str

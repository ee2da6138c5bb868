"""A PACS that objects are sent to, whichever way: what it is asked, and how it refuses."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Refused(Exception):  # noqa: N818 - reads as what it is
    """The PACS has refused an object; the message is its status."""


class AlreadyThere(Exception):  # noqa: N818 - reads as what it is
    """The PACS says that it has an object of this UID already."""


class Instance(NamedTuple):
    """What names an object in a PACS."""

    study: str
    series: str
    instance: str


class Destination(Protocol):
    """A PACS: `stow.Service` or `cstore.Peer`; of one thread."""

    def has(self, it: Instance) -> bool:
        """Whether it has an object.

        Raises:
            NoAnswer: it does not answer now.
            UserError: nothing there takes objects, or not from sonode.
        """

    def store(self, file: bytes) -> str | None:
        """Store an object; give a remark of the PACS. Raises Refused, AlreadyThere, as `has`."""

    def close(self) -> None:
        """End the connection."""

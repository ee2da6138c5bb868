"""A PACS that objects are sent to, whichever way: what it is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from pydicom.dataset import Dataset

from batch.dicom.peers.answers import Instance


class Destination(Protocol):
    """A PACS: `stow.Service` or `cstore.Peer`; of one thread."""

    def has(self, it: Instance) -> bool:
        """Whether it has an object.

        Raises:
            NoAnswer: it does not answer now.
            UserError: nothing there takes objects, or not from sonode.
        """

    def named(self, its: Sequence[Instance]) -> set[str]:
        """What it names when it is asked for several objects of a study at once.

        One that does not understand a list of UIDs (PS3.4, C.2.2.2.2) refuses, or names none, some,
        or others. Raises as `has`.
        """

    def patients(self, study: str) -> Collection[Dataset]:
        """The patients that it has a study of: `patient.KEYWORDS`; several, if it is confused.

        Raises as `has`.
        """

    def tells(self) -> bool:
        """Whether it says what it has. Raises as `has`."""

    def store(self, made: Dataset) -> str | None:
        """Store an object; give a remark of the PACS. Raises Refused, AlreadyThere, as `has`."""

    def close(self) -> None:
        """End the connection."""

"""A PACS that objects are taken from, whichever way: what it is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import NamedTuple, Protocol

from batch.dicom.peers.answers import Instance


class Named(NamedTuple):
    """An object that the PACS names."""

    it: Instance
    modality: str | None
    """None where the PACS does not say."""
    sop_class: str | None


class Origin(Protocol):
    """A PACS: `web.Service` or `node.Peer`; of one thread.

    Each raises NoAnswer where it does not answer now, and UserError where it gives nothing, or
    nothing to sonode. What it names twice is given once.
    """

    def studies(self, since: date, modality: str) -> list[str]:
        """The UIDs of the studies of this day and later with objects of a modality."""

    def objects(self, study: str, modalities: Collection[str]) -> list[Named]:
        """The objects of a study that are of these modalities, or may be."""

    def fetch(self, named: Named) -> bytes:
        """A whole file, as the PACS has it. Raises Refused, too."""

    def close(self) -> None:
        """End the connection."""

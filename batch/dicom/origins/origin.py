"""A PACS that objects are taken from, whichever way: what it is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

from batch.dicom.origins.spans import Found, Span
from batch.dicom.peers.answers import Instance


class Named(NamedTuple):
    """An object that the PACS names."""

    it: Instance
    modality: str | None
    """None where the PACS does not say."""
    sop_class: str | None


class Objects(NamedTuple):
    """What the PACS names of a study."""

    named: list[Named]
    lacking: int
    """Objects or series that it counts and does not name."""


class Origin(Protocol):
    """A PACS: `dicomweb.Service` or `dimse.Peer`; of one thread.

    Each raises NoAnswer where it does not answer now, and UserError where it gives nothing, or
    nothing to sonode. What it names twice is given once.
    """

    def studies(self, span: Span, modality: str) -> Found:
        """The studies of a time with objects of a modality.

        Each with a number for `objects`: what it is told to consist of, None where it is not.
        """

    def objects(self, study: str, modalities: Collection[str], told: int | None) -> Objects:
        """The objects of a study that are of these modalities, or may be."""

    def fetch(self, named: Named) -> bytes:
        """A whole file, as the PACS has it. Raises Refused, too."""

    def close(self) -> None:
        """End the connection."""

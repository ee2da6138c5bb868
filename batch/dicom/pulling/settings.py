"""What a pull is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from batch.dicom.peers.address import OUR_TITLE, beside
from batch.dicom.peers.answers import WAITS_S
from sonode.console import UserError

DRAWING = {"SR": "sr", "PR": "pr"}
"""Modalities of what draws boxes, and what the manifest calls the boxes of each."""
_MODALITY = re.compile(r"[A-Z0-9_ ]{1,16}")  # PS3.5, 6.2: CS


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to pull, from where."""

    source: str
    """As `peers.address` reads it."""
    out: str
    since: date
    """The first StudyDate."""
    modality: str = "US"
    boxes: str | None = None
    """A table or folder of the user's boxes: `given_boxes`."""
    connections: int = 2
    """At once, from 1 to 16."""
    title: str = OUR_TITLE
    """The AE title to call as, for DIMSE."""
    receive: int | None = None
    """The port that the PACS sends to by C-MOVE; None: C-GET, for DIMSE."""
    plain: bool = False
    """Without TLS."""
    option: str = "--from"
    """What gave the source: an option of the command, or a setting."""
    waits_s: tuple[float, ...] = WAITS_S
    """As `answers.WAITS_S`."""

    def __post_init__(self) -> None:
        """Raise UserError for what is out of range; the others are checked where they are read."""
        if not 1 <= self.connections <= 16:
            raise UserError(f"{self.named('connections')} {self.connections}: give 1 to 16")
        if not _MODALITY.fullmatch(self.modality) or self.modality in DRAWING:
            raise UserError(
                f"{self.named('modality')}: not one of images; give a modality as DICOM has it, as "
                "US"
            )
        if self.receive is not None and not 0 < self.receive < 1 << 16:
            raise UserError(f"{self.named('receive')} {self.receive}: give a port, 1 to 65535")

    def named(self, name: str) -> str:
        """What the user calls a setting."""
        return beside(self.option, name)

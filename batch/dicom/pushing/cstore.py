"""A PACS over DIMSE: asked by C-FIND, stored to by C-STORE (PS3.4, B and C)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import (
    ColorSoftcopyPresentationStateStorage,
    ComprehensiveSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import build_context

from batch.dicom.peers.answers import AlreadyThere, Instance, NoAnswer, Refused
from batch.dicom.peers.association import FIND, PLAIN_SYNTAXES, Association, find_context
from batch.dicom.pushing import patient
from sonode.console import UserError

_STORED = (
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    ColorSoftcopyPresentationStateStorage,
)
_WARNINGS = (0xB000, 0xB006, 0xB007)  # stored, with a remark: PS3.4, B.2.3
_DUPLICATE = 0x0111


class Peer:
    """A DIMSE node as a `Destination`; where `blind`, one without C-FIND has nothing."""

    def __init__(self, association: Association, *, blind: bool) -> None:
        self._association, self._blind = association, blind

    def has(self, it: Instance) -> bool:
        """As `Destination` says."""
        study, series, instance = it
        found = self._find(
            "IMAGE",
            (),
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            SOPInstanceUID=instance,
        )
        return any(each.get("SOPInstanceUID") == instance for each in found)

    def named(self, its: Sequence[Instance]) -> set[str]:
        """As `Destination` says. By series: else a hierarchical PACS refuses (PS3.4, C.4.1.2.2)."""
        found: list[Dataset] = []
        for study, series in {(it.study, it.series): None for it in its}:
            some = [it.instance for it in its if (it.study, it.series) == (study, series)]
            keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
            found += self._find_once("IMAGE", (), {**keys, "SOPInstanceUID": "\\".join(some)})
        return {str(each.get("SOPInstanceUID")) for each in found}

    def tells(self) -> bool:
        """As `Destination` says."""
        self._open()
        return not self._blind or self._association.takes(FIND)

    def patients(self, study: str) -> list[Dataset]:
        """As `Destination` says."""
        found = self._find("STUDY", patient.KEYWORDS, StudyInstanceUID=study)
        return [it for it in found if it.get("StudyInstanceUID") == study]

    def store(self, made: Dataset) -> str | None:
        """As `Destination` says."""
        self._open()
        if not self._association.takes(made.SOPClassUID):
            raise Refused("objects of this kind are not taken")
        status = self._association.store(made)
        if status == _DUPLICATE:
            raise AlreadyThere
        if status not in (0, *_WARNINGS):
            raise Refused(f"status {status:#06x}")
        return f"stored with warning {status:#06x}" if status else None

    def close(self) -> None:
        """As `Destination` says."""
        self._association.close()

    def _find(self, level: str, keys: Sequence[str], **asked: str) -> list[Dataset]:
        try:
            return self._find_once(level, keys, asked)
        except NoAnswer:  # a question may be put again
            return self._find_once(level, keys, asked)

    def _find_once(self, level: str, keys: Sequence[str], asked: dict[str, str]) -> list[Dataset]:
        self._open()
        if self._association.takes(FIND):
            return self._association.find(level, keys, **asked)
        if self._blind:
            return []
        raise UserError(
            f"{self._association.option}: the PACS answers no C-FIND, so that it cannot be known "
            "whether it has the images; let `sonode dicom push --unknown-images` send all the same"
        )

    def _open(self) -> None:
        if not self._association.is_open:
            stored = [build_context(it, list(PLAIN_SYNTAXES)) for it in _STORED]
            self._association.open([find_context(), *stored])

"""A PACS over DIMSE: asked by C-FIND, taken from by C-GET or C-MOVE (PS3.4, C)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)
from pynetdicom import build_context, build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from batch.dicom.origins.origin import Named, Objects
from batch.dicom.origins.receiver import SYNTAXES, Receiver
from batch.dicom.origins.spans import SMALLEST_LIMIT, Found, Span, too_many
from batch.dicom.peers.address import beside
from batch.dicom.peers.answers import Instance, NoAnswer, Refused
from batch.dicom.peers.association import (
    FIND,
    PLAIN_SYNTAXES,
    Association,
    find_context,
    identifier,
)
from sonode.console import UserError

_GET = StudyRootQueryRetrieveInformationModelGet
_MOVE = StudyRootQueryRetrieveInformationModelMove
_OTHERWISE = {
    FIND: "or give the URL of its DICOMweb service",
    _GET: "or give {} for C-MOVE, or the URL of its DICOMweb service",
    _MOVE: "or omit {} for C-GET",
}
_NO_DESTINATION = 0xA801  # PS3.4, C.4.2.1.5
_USUAL = (  # of studies whose PACS does not say
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    SecondaryCaptureImageStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
)
_CLASSES = 7
"""At once: a context for each class and syntax, of 128 in an association (PS3.8, 9.3.2.2)."""


class Peer:
    """A DIMSE node as an `Origin`, by C-MOVE where there is a receiver, else by C-GET."""

    def __init__(self, association: Association, receiver: Receiver | None = None) -> None:
        self._association, self._receiver = association, receiver
        self._classes: list[str] = []  # that the association takes
        self._came: dict[str, bytes] = {}

    def studies(self, span: Span, modality: str) -> Found:
        """As `Origin` says; a study is told to consist of a number of series."""
        asked = {"StudyDate": span.dates, "StudyTime": span.times or ""}
        asked |= {"ModalitiesInStudy": modality, "NumberOfStudyRelatedSeries": ""}
        found = self._find("STUDY", "StudyInstanceUID", **asked)
        if self._association.was_cut and (span.hour is not None or len(found) < SMALLEST_LIMIT):
            raise too_many(len(found))
        return {
            uid: _number(it, "NumberOfStudyRelatedSeries")
            for uid, it in found.items()
            if span.has(it.get("StudyDate"), it.get("StudyTime"))
        }

    def objects(self, study: str, modalities: Collection[str], told: int | None) -> Objects:
        """As `Origin` says."""
        more = {"StudyInstanceUID": study, "Modality": "", "NumberOfSeriesRelatedInstances": ""}
        series = self._find("SERIES", "SeriesInstanceUID", **more)
        named = []
        lacking = max(int(self._association.was_cut), (told or 0) - len(series))
        for uid, each in series.items():
            modality = each.get("Modality") or None
            if modality is None or modality in modalities:
                where = {"StudyInstanceUID": study, "SeriesInstanceUID": uid}
                found = self._find("IMAGE", "SOPInstanceUID", **where, SOPClassUID="")
                named += [
                    Named(Instance(study, uid, it), modality, its.get("SOPClassUID") or None)
                    for it, its in found.items()
                ]
                counted = _number(each, "NumberOfSeriesRelatedInstances") or 0
                lacking += max(int(self._association.was_cut), counted - len(found))
        return Objects(named, lacking)

    def fetch(self, named: Named) -> bytes:
        """As `Origin` says."""
        asked = identifier(
            "IMAGE",
            StudyInstanceUID=named.it.study,
            SeriesInstanceUID=named.it.series,
            SOPInstanceUID=named.it.instance,
        )
        return self._moved(named, asked) if self._receiver else self._got(named, asked)

    def close(self) -> None:
        """As `Origin` says."""
        self._association.close()

    def _got(self, named: Named, asked: Dataset) -> bytes:
        self._came.clear()
        self._open([named.sop_class] if named.sop_class else list(_USUAL))
        self._need("C-GET", _GET)
        answers, status = self._association.ask("send_c_get", asked, _GET)
        if named.it.instance in self._came:
            return self._came.pop(named.it.instance)
        raise Refused(f"status {status:#06x}, {_failed(answers)} failed")

    def _moved(self, named: Named, asked: Dataset) -> bytes:
        assert self._receiver is not None
        self._open([])
        self._need("C-MOVE", _MOVE)
        title = self._association.title
        with self._receiver.waiting_for(named.it.instance) as came:
            answers, status = self._association.ask("send_c_move", asked, title, _MOVE)
            if (data := came()) is not None:
                return data
        option = self._association.option
        if status == _NO_DESTINATION:
            raise UserError(
                f"{option}: the PACS does not know {title} as a destination of C-MOVE "
                f"(status {status:#06x}); register the title there with this machine's name and "
                f"port {self._receiver.port}, or give {beside(option, 'title')}"
            )
        if not self._receiver.was_called:
            raise UserError(
                f"{option}: nothing came by C-MOVE to {title}, port {self._receiver.port} of this "
                f"machine (status {status:#06x}); check what the PACS has registered for this "
                "title, its TLS, and the firewall"
            )
        raise Refused(f"status {status:#06x}, {_failed(answers)} failed")

    def _need(self, what: str, model: str) -> None:
        if not self._association.takes(model):
            option = self._association.option
            raise UserError(
                f"{option}: the PACS does not offer {what} (study root) to sonode; allow it there, "
                f"{_OTHERWISE[model].format(beside(option, 'receive'))}"
            )

    def _find(self, level: str, key: str, **asked: str) -> dict[str, Dataset]:
        """All answers of a level by their UID."""
        self._open([])
        self._need("C-FIND", FIND)
        found = {}
        for it in self._association.find(level, [key], **asked):
            if not it.get(key):
                raise NoAnswer("it names an object without its UID")
            found[str(it[key].value)] = it
        return found

    def _open(self, classes: Collection[str]) -> None:
        """Have an association, with contexts for objects of these classes among others."""
        if self._association.is_open and all(it in self._classes for it in classes):
            return
        if self._receiver:
            move = build_context(_MOVE, list(PLAIN_SYNTAXES))
            self._association.open([find_context(), move])
            return
        self._classes = list(dict.fromkeys([*classes, *self._classes, *_USUAL]))[:_CLASSES]
        self._association.open(
            list(_contexts(self._classes)),
            [(evt.EVT_C_STORE, _taking(self._came))],
            ext_neg=[build_role(it, scp_role=True) for it in self._classes],
        )


def _number(it: Dataset, keyword: str) -> int | None:
    """A number that a PACS may tell, and may tell wrongly."""
    value = it.get(keyword)
    return int(value) if isinstance(value, int) else None


def _failed(answers: list[tuple[Dataset, Dataset | None]]) -> int:
    return int(answers[-1][0].get("NumberOfFailedSuboperations") or 0)


def _contexts(classes: Collection[str]) -> Iterator[Any]:
    """One for each class and syntax: so an object comes in the syntax that it is stored in."""
    yield find_context()
    yield build_context(_GET, list(PLAIN_SYNTAXES))
    for it in classes:
        yield from (build_context(it, syntax) for syntax in SYNTAXES)


def _taking(came: dict[str, bytes]) -> Callable[[evt.Event], int]:
    def take(event: evt.Event) -> int:
        came[str(event.request.AffectedSOPInstanceUID)] = event.encoded_dataset()
        return 0

    return take

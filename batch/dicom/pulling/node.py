"""A PACS over DIMSE: asked by C-FIND, taken from by C-GET (PS3.4, C).

One association serves many questions and objects, and is opened anew where the PACS has closed it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import date
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)
from pynetdicom import build_context, build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from batch.dicom.connections import Identity, NoAnswer, Node, associate
from batch.dicom.destination import Instance, Refused
from batch.dicom.pulling.origin import Named
from sonode.console import UserError

_OPTION = "--from"
_FIND = StudyRootQueryRetrieveInformationModelFind
_GET = StudyRootQueryRetrieveInformationModelGet
_PENDING = (0xFF00, 0xFF01)
_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_SYNTAXES = (
    *_PLAIN,
    ExplicitVRBigEndian,
    RLELossless,
    *JPEGTransferSyntaxes,
    *JPEGLSTransferSyntaxes,
    *JPEG2000TransferSyntaxes,
)
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
    """A DIMSE node as an `Origin`."""

    def __init__(self, node: Node, title: str, identity: Identity, *, plain: bool) -> None:
        """Take the node; as `connections.associate`."""
        self._call = (node, title, identity)
        self._plain = plain
        self._association: Any = None
        self._classes: list[str] = []  # that the association takes
        self._asked = 0  # in this association
        self._answered: list[int] = []  # the number of each request, as answers end
        self._came: dict[str, bytes] = {}

    def studies(self, since: date, modality: str) -> list[str]:
        """As `Origin` says."""
        first = f"{since:%Y%m%d}"
        asked = {"StudyDate": f"{first}-", "ModalitiesInStudy": modality}
        found = self._find("STUDY", "StudyInstanceUID", **asked)
        return [uid for uid, it in found.items() if (it.get("StudyDate") or first) >= first]

    def objects(self, study: str, modalities: Collection[str]) -> list[Named]:
        """As `Origin` says."""
        series = self._find("SERIES", "SeriesInstanceUID", StudyInstanceUID=study, Modality="")
        named = []
        for uid, each in series.items():
            modality = each.get("Modality") or None
            if modality is None or modality in modalities:
                where = {"StudyInstanceUID": study, "SeriesInstanceUID": uid}
                found = self._find("IMAGE", "SOPInstanceUID", **where, SOPClassUID="")
                named += [
                    Named(Instance(study, uid, it), modality, its.get("SOPClassUID") or None)
                    for it, its in found.items()
                ]
        return named

    def fetch(self, named: Named) -> bytes:
        """As `Origin` says."""
        asked = _identifier("IMAGE", named.it)
        self._came.clear()
        classes = [named.sop_class] if named.sop_class else list(_USUAL)
        answers, status = self._answers("C-GET", asked, classes)
        if named.it.instance in self._came:
            return self._came.pop(named.it.instance)
        failed = answers[-1][0].get("NumberOfFailedSuboperations") or 0
        raise Refused(f"status {status:#06x}, {failed} failed")

    def close(self) -> None:
        """As `Origin` says."""
        if self._association is not None and self._association.is_established:
            self._association.release()

    def _find(self, level: str, key: str, **asked: str) -> dict[str, Dataset]:
        """All answers of a level by their UID."""
        question = Dataset()
        question.QueryRetrieveLevel = level
        for keyword, value in {key: "", **asked}.items():
            setattr(question, keyword, value)
        answers, status = self._answers("C-FIND", question, [])
        if status != 0:
            raise NoAnswer(f"C-FIND status {status:#06x}")
        found = {}
        for _, it in answers[:-1]:
            if it is None or not it.get(key):
                raise NoAnswer("it names an object without its UID")
            found[str(it[key].value)] = it
        return found

    def _answers(
        self, what: str, question: Dataset, classes: Collection[str]
    ) -> tuple[list[tuple[Dataset, Dataset | None]], int]:
        """What comes to a question, and the last status."""
        association = self._ready(classes)
        model, ask = {
            "C-FIND": (_FIND, association.send_c_find),
            "C-GET": (_GET, association.send_c_get),
        }[what]
        if all(it.abstract_syntax != model for it in association.accepted_contexts):
            raise UserError(
                f"{_OPTION}: the PACS does not offer {what} (study root) to sonode; allow it "
                "there, or give the URL of its DICOMweb service"
            )
        self._asked += 1
        try:
            answers = list(ask(question, model, msg_id=self._number()))
        except RuntimeError:  # closed a moment ago
            answers = []
        return answers, self._check(answers)

    def _ready(self, classes: Collection[str]) -> Any:
        """The association, with contexts for objects of these classes among others."""
        lacking = [it for it in classes if it not in self._classes]
        if lacking and self._association is not None:
            self.close()
        if self._association is None or not self._association.is_established or lacking:
            self._classes = list(dict.fromkeys([*classes, *self._classes, *_USUAL]))[:_CLASSES]
            self._asked, self._answered = 0, []
            self._association = associate(
                *self._call,
                list(_contexts(self._classes)),
                _OPTION,
                plain=self._plain,
                ext_neg=[build_role(it, scp_role=True) for it in self._classes],
                evt_handlers=[
                    (evt.EVT_C_STORE, _taking(self._came)),
                    (evt.EVT_DIMSE_RECV, _noting(self._answered)),
                ],
            )
        return self._association

    def _number(self) -> int:
        """That of the last request, of 16 bits."""
        return (self._asked - 1) % 0xFFFF + 1

    def _check(self, answers: list[tuple[Dataset, Dataset | None]]) -> int:
        """Give the last status. Raises NoAnswer where there is none.

        Or where it may be that of another request: pynetdicom takes the next message that comes for
        the answer, so that one which comes twice would be the answer to what is asked next.
        """
        status = answers[-1][0].get("Status") if answers else None
        if status is None:
            raise NoAnswer("the association was closed, or no answer came in time")
        if len(self._answered) != self._asked or self._answered[-1] != self._number():
            self._association.abort()
            raise NoAnswer("an answer that belongs to no request")
        return int(status)


def _contexts(classes: Collection[str]) -> Iterator[Any]:
    """One for each class and syntax: so an object comes in the syntax that it is stored in."""
    yield build_context(_FIND, list(_PLAIN))
    yield build_context(_GET, list(_PLAIN))
    for it in classes:
        yield from (build_context(it, syntax) for syntax in _SYNTAXES)


def _identifier(level: str, it: Instance) -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel = level
    made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID = it
    return made


def _taking(came: dict[str, bytes]) -> Callable[[Any], int]:
    def take(event: Any) -> int:
        came[str(event.request.AffectedSOPInstanceUID)] = event.encoded_dataset()
        return 0

    return take


def _noting(answered: list[int]) -> Callable[[Any], None]:
    def note(event: Any) -> None:
        command = event.message.command_set
        number = command.get("MessageIDBeingRespondedTo")
        if number is not None and command.get("Status") not in _PENDING:
            answered.append(number)

    return note

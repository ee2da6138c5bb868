"""A PACS over DIMSE: asked by C-FIND, stored to by C-STORE (PS3.4, B and C).

One association serves many objects. One that the PACS has closed meanwhile is opened anew.
"""

from __future__ import annotations

import io
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    ColorSoftcopyPresentationStateStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from pynetdicom import build_context, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from batch.dicom.connections import Identity, NoAnswer, Node, associate
from batch.dicom.destination import AlreadyThere, Instance, Refused
from sonode.console import UserError

_OPTION = "--to"
_FIND = StudyRootQueryRetrieveInformationModelFind
_STORED = (
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    ColorSoftcopyPresentationStateStorage,
)
_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_PENDING = (0xFF00, 0xFF01)
_WARNINGS = (0xB000, 0xB006, 0xB007)  # stored, with a remark: PS3.4, B.2.3
_DUPLICATE = 0x0111


class Peer:
    """A DIMSE node as a `Destination`."""

    def __init__(
        self, node: Node, title: str, identity: Identity, *, plain: bool, blind: bool
    ) -> None:
        """Take the node.

        Args:
            node: whom to call.
            title: the AE title to call as.
            identity: for TLS.
            plain: without TLS.
            blind: a node that answers no C-FIND is said to have nothing.
        """
        self._node, self._title, self._identity = node, title, identity
        self._plain, self._blind = plain, blind
        self._association: Any = None
        self._asked = 0  # in this association
        self._answered: list[int] = []  # the number of each request, as answers come

    def has(self, it: Instance) -> bool:
        """Whether the PACS has an object; raises as `Destination` says."""
        try:
            return self._has(it)
        except NoAnswer:  # a question may be put again
            return self._has(it)

    def store(self, file: bytes) -> str | None:
        """Store an object; give a remark of the PACS; raises as `Destination` says."""
        dataset = pydicom.dcmread(io.BytesIO(file))
        association = self._ready()
        if not self._takes(dataset.SOPClassUID):
            raise Refused("objects of this kind are not taken")
        status = association.send_c_store(dataset, msg_id=self._next()).get("Status")
        self._check_answer(status)
        if status == _DUPLICATE:
            raise AlreadyThere
        if status not in (0, *_WARNINGS):
            raise Refused(f"status {status:#06x}")
        return f"stored with warning {status:#06x}" if status else None

    def close(self) -> None:
        """Release the association."""
        if self._association is not None and self._association.is_established:
            self._association.release()

    def _has(self, it: Instance) -> bool:
        association = self._ready()
        if not self._takes(_FIND):
            if self._blind:
                return False
            raise UserError(
                f"{_OPTION}: the PACS answers no C-FIND, so that it cannot be known whether it has "
                "the images; give --unknown-images to send all the same"
            )
        asked = Dataset()
        asked.QueryRetrieveLevel = "IMAGE"
        asked.StudyInstanceUID, asked.SeriesInstanceUID, asked.SOPInstanceUID = it
        found, status = False, None
        for answer, identifier in association.send_c_find(asked, _FIND, msg_id=self._next()):
            status = answer.get("Status")
            if status in _PENDING and identifier is not None:
                found |= identifier.get("SOPInstanceUID") == it.instance
        self._check_answer(status)
        if status != 0:
            raise NoAnswer(f"C-FIND status {status:#06x}")
        return found

    def _ready(self) -> Any:
        """The association, a new one where it is closed or an answer too many came in it."""
        if self._association is not None and len(self._answered) != self._asked:
            self._association.abort()
        if self._association is None or not self._association.is_established:
            answered: list[int] = []
            self._asked, self._answered = 0, answered

            def note(event: evt.Event) -> None:
                command = event.message.command_set
                if command.get("Status") not in _PENDING:
                    answered.append(command.get("MessageIDBeingRespondedTo"))

            contexts = [build_context(it, list(_SYNTAXES)) for it in (_FIND, *_STORED)]
            self._association = associate(
                self._node,
                self._title,
                self._identity,
                contexts,
                _OPTION,
                plain=self._plain,
                evt_handlers=[(evt.EVT_DIMSE_RECV, note)],
            )
        return self._association

    def _takes(self, sop_class: str) -> bool:
        accepted = self._association.accepted_contexts
        return any(context.abstract_syntax == sop_class for context in accepted)

    def _next(self) -> int:
        """The number of the next request, one of 16 bits."""
        self._asked += 1
        return self._number()

    def _number(self) -> int:
        return (self._asked - 1) % 0xFFFF + 1

    def _check_answer(self, status: int | None) -> None:
        """Raise NoAnswer where there is none, or it may be that of another request.

        pynetdicom takes the next message that comes for the answer: one that a node sends twice
        would be taken for the answer to what is sent next.
        """
        if status is None:
            raise NoAnswer("the association was closed, or no answer came in time")
        if len(self._answered) != self._asked or self._answered[-1] != self._number():
            self._association.abort()
            raise NoAnswer("an answer that belongs to no request")

"""An association with a DIMSE node, which serves many requests (PS3.7; PS3.8).

It is opened anew where it was closed. Its answers are counted: pynetdicom takes the next message
that comes for the answer, so that one that comes twice would be the answer to what is asked next.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from batch.dicom.peers.address import Node, beside
from batch.dicom.peers.answers import TIMEOUT_S, NoAnswer
from batch.dicom.peers.faults import tls_fault
from batch.dicom.peers.identity import Identity
from sonode.console import UserError

_config.LOG_HANDLER_LEVEL = "none"  # it would make the text of each message

FIND = StudyRootQueryRetrieveInformationModelFind
PLAIN_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_PENDING = (0xFF00, 0xFF01)
_CANCELLED = 0xFE00  # Orthanc's answer where there are more than its limit

Answers = list[tuple[Dataset, Dataset | None]]
"""A status and what comes with it; the last one ends them."""


class Association:
    """One with a node; of one thread."""

    def __init__(
        self, node: Node, title: str, identity: Identity, option: str, *, plain: bool
    ) -> None:
        """Take the node.

        Args:
            node: whom to call.
            title: the AE title to call as.
            identity: for TLS.
            option: that gave the node.
            plain: without TLS.
        """
        self.node, self.title, self.option = node, title, option
        self._identity, self._plain = identity, plain
        self._association: Any = None
        self._asked = 0  # in this association
        self._answered: list[int] = []  # the number of each request, as answers end
        self.was_cut = False

    @property
    def is_open(self) -> bool:
        """Whether it can be used: it is not closed, and no answer too many came in it."""
        if self._association is not None and len(self._answered) != self._asked:
            self._association.abort()
        return self._association is not None and self._association.is_established

    def open(self, contexts: Sequence[Any], handlers: Sequence[Any] = (), **more: Any) -> None:
        """Open it anew with these presentation contexts; as `_associated`."""
        self.close()
        self._asked, self._answered = 0, []
        noting = (evt.EVT_DIMSE_RECV, _noting(self._answered))
        self._association = self._associated(
            list(contexts), evt_handlers=[noting, *handlers], **more
        )

    def close(self) -> None:
        """Release it."""
        if self._association is not None and self._association.is_established:
            self._association.release()

    def takes(self, sop_class: str) -> bool:
        """Whether the node takes objects or requests of a class."""
        contexts = self._association.accepted_contexts
        return any(it.abstract_syntax == sop_class for it in contexts)

    def find(self, level: str, keys: Sequence[str], **asked: str) -> list[Dataset]:
        """All answers of C-FIND (study root) at a level, with `keys`. Raises NoAnswer.

        Afterwards `was_cut` says whether the node says that it has more than it names at once.
        """
        question = identifier(level, **dict.fromkeys(keys, ""), **asked)
        answers, status = self.ask("send_c_find", question, FIND)
        self.was_cut = status == _CANCELLED
        if status not in (0, _CANCELLED):
            raise NoAnswer(f"C-FIND status {status:#06x}")
        if any(it is None for _, it in answers[:-1]):
            raise NoAnswer("an answer to C-FIND that cannot be read")
        return [it for _, it in answers[:-1] if it is not None]

    def store(self, dataset: Dataset) -> int:
        """The status of C-STORE. Raises NoAnswer."""
        return self.ask("send_c_store", dataset)[1]

    def ask(self, what: str, *given: Any) -> tuple[Answers, int]:
        """What comes to a request, and its last status; `what` is pynetdicom's method.

        Raises NoAnswer where there is no last status, or it may be that of another request.
        """
        self._asked += 1
        number = (self._asked - 1) % 0xFFFF + 1  # of 16 bits
        try:
            said = getattr(self._association, what)(*given, msg_id=number)
            answers: Answers = [(said, None)] if isinstance(said, Dataset) else list(said)
        except RuntimeError:  # closed a moment ago
            answers = []
        status = answers[-1][0].get("Status") if answers else None
        if status is None:
            raise NoAnswer("the association was closed, or no answer came in time")
        if len(self._answered) != self._asked or self._answered[-1] != number:
            self._association.abort()
            raise NoAnswer("an answer that belongs to no request")
        return answers, int(status)

    def _associated(self, contexts: list[Any], **more: Any) -> Any:
        """Open one.

        Raises:
            UserError: the node refuses the titles, or TLS fails.
            NoAnswer: nobody is there, or it has no room now.
        """
        node = self.node
        entity = AE(self.title)
        entity.connection_timeout, entity.dimse_timeout = TIMEOUT_S
        entity.acse_timeout = entity.network_timeout = TIMEOUT_S[1]
        tls = None if self._plain else (self._identity.tls(), node.host)
        try:
            made = entity.associate(
                node.host, node.port, contexts, node.title, tls_args=tls, **more
            )
        except OSError:
            raise NoAnswer("no such host") from None
        if made.is_established:
            return made
        if made.is_rejected:
            answer = made.acceptor.primitive
            if answer.result == 1:  # rejected permanently, PS3.8, 9.3.4
                raise UserError(
                    f"{self.option}: the PACS does not accept {self.title} calling {node.title} "
                    f"(source {answer.result_source}, reason {answer.diagnostic}); register the "
                    f"title there, or give {beside(self.option, 'title')}"
                )
            raise NoAnswer("association rejected for now")
        raise self._unreached()

    def _unreached(self) -> Exception:
        """Why there is no association, found by one more connection."""
        what = None
        try:
            with socket.create_connection((self.node.host, self.node.port), TIMEOUT_S[0]) as bare:
                if not self._plain:
                    what = "the connection was closed as TLS began"
                    context = self._identity.tls()
                    with context.wrap_socket(bare, server_hostname=self.node.host) as inner:
                        # In TLS 1.3 a refused client certificate shows in the first answer.
                        inner.settimeout(2)
                        inner.recv(1)
        except ssl.SSLError as error:
            return UserError(f"{self.option}: {tls_fault(error)}")
        except TimeoutError:
            return NoAnswer("association aborted")
        except OSError as error:
            return NoAnswer(what or type(error).__name__)
        return NoAnswer("association aborted")


def find_context() -> Any:
    """The presentation context of C-FIND."""
    return build_context(FIND, list(PLAIN_SYNTAXES))


def identifier(level: str, **elements: str) -> Dataset:
    """What a query or a retrieval is about."""
    made = Dataset()
    made.QueryRetrieveLevel = level
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def _noting(answered: list[int]) -> Any:
    def note(event: evt.Event) -> None:
        command = event.message.command_set
        number = command.get("MessageIDBeingRespondedTo")
        if number is not None and command.get("Status") not in _PENDING:
            answered.append(number)

    return note

"""What a PACS sends to sonode by C-MOVE: a storage node that takes what was asked for alone.

C-MOVE asks a PACS to send objects by associations of its own to a title that is registered there
with a host and a port (PS3.4, C.4.2). With TLS the caller must have a certificate that
`SONODE_DICOM_CA` trusts, and sonode's own is that of `SONODE_DICOM_CERT`.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt

from batch.dicom.peers.association import PLAIN_SYNTAXES
from batch.dicom.peers.identity import Identity
from sonode.console import UserError

SYNTAXES = (
    *PLAIN_SYNTAXES,
    ExplicitVRBigEndian,
    RLELossless,
    *JPEGTransferSyntaxes,
    *JPEGLSTransferSyntaxes,
    *JPEG2000TransferSyntaxes,
)
_NOT_AUTHORIZED = 0x0124  # PS3.7, C.5.16


class Receiver:
    """Listens on a port as an AE title until it is closed; for all connections of a pull."""

    def __init__(self, title: str, port: int, identity: Identity, *, plain: bool) -> None:
        """Begin to listen.

        Raises UserError where the port cannot be had, or there is no certificate for TLS.
        """
        self.port = port
        self.was_called = False
        self._changed = threading.Condition()
        self._awaited: dict[str, bytes | None] = {}
        entity = AE(title)
        entity.require_called_aet = True
        for context in AllStoragePresentationContexts:
            # The first one that is offered is taken: plain ones stand first.
            entity.add_supported_context(context.abstract_syntax, list(SYNTAXES))
        tls = None if plain else identity.server_tls()
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._accepted)]
        try:
            self._server = entity.start_server(
                ("", port), block=False, ssl_context=tls, evt_handlers=handlers
            )
        except (OSError, ssl.SSLError) as error:
            raise UserError(
                f"port {port}: cannot be listened on ({error.strerror}); give another one, which "
                "the PACS must know"
            ) from None

    @contextmanager
    def waiting_for(self, instance: str) -> Iterator[Callable[[], bytes | None]]:
        """Take an object while inside; gives what gives it, if it has come.

        One that a PACS has in two studies is taken for one after the other: they differ.
        """
        with self._changed:
            self._changed.wait_for(lambda: instance not in self._awaited)
            self._awaited[instance] = None
        try:
            yield lambda: self._awaited[instance]
        finally:
            with self._changed:
                del self._awaited[instance]
                self._changed.notify_all()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()

    def _accepted(self, event: evt.Event) -> None:
        self.was_called = True

    def _store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        data = event.encoded_dataset()
        with self._changed:
            if uid not in self._awaited:
                return _NOT_AUTHORIZED
            self._awaited[uid] = data
        return 0

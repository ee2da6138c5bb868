"""A connection of uvicorn that keeps no more of what a client sends ahead than one read of it."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol


class _Flow(FlowControl):  # type: ignore[misc]  # not followed: see pyproject.toml
    """Reads on for what a request still lacks, not for what comes after it."""

    def __init__(self, transport: asyncio.Transport, http: h11.Connection) -> None:
        super().__init__(transport)
        self._http = http

    def resume_reading(self) -> None:
        """As `receive` asks each time; until its answer, not for a request that is whole.

        A client that sends many requests without reading the answers would fill the memory: each
        request of 100 bytes that is read would fetch 256 KiB more of them.
        """
        unanswered = self._http.our_state is not h11.DONE
        if unanswered and self._http.their_state is h11.DONE and self._http.trailing_data[0]:
            return
        super().resume_reading()


class Connection(H11Protocol):  # type: ignore[misc]
    """See the module."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """As uvicorn's."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.conn)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, but a head that trickles has no more time than a connection that idles.

        Its timer goes on until a head is whole, and begins with the connection.
        """
        self.conn.receive_data(data)
        self.handle_events()

    def _unsupported_upgrade_warning(self) -> None:
        """Java's client offers HTTP/2 with each connection: no reason to install a package."""

"""The server's sockets, and its end: who has connected is answered."""

import asyncio
import errno
import socket
from contextlib import suppress
from http.client import HTTPResponse
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from archives.asgi import server as asgi_server
from archives.asgi.api import bodies
from archives.asgi.api.app import exactly
from archives.asgi.api.connection import Connection
from archives.asgi.refused import Refused
from archives.asgi.server import Server, accept_all, by_port, listening

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_an_answer_does_not_wait_for_the_clients_word_on_its_head() -> None:
    with listening(0) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()

        async def is_at_once() -> object:
            _, writer = await asyncio.open_connection(sock=server)  # as a server's transport
            found = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            return found

        assert uvloop.run(is_at_once())
        client.close()


def connected(listener: socket.socket, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(listener.getsockname(), 60)
    connection.sendall(data)
    return connection


def answered(connection: socket.socket) -> tuple[int, bool]:
    """The status of an answer, and whether the connection ends with it."""
    with HTTPResponse(connection) as answer:
        answer.begin()
        answer.read()
        return answer.status, answer.will_close


def test_whoever_has_connected_is_answered_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi_server, "LINGER_S", 1000.0)
    ended: dict[str, Any] = {}

    async def run() -> None:
        with listening(0) as listener:
            port, ending = listener.getsockname()[1], asyncio.Event()
            app = by_port({port: PlainTextResponse("yes")}, ending)
            config = uvicorn.Config(app, http="h11", log_config=None, lifespan="off")
            config.load()
            server = Server(config, ending)
            server.lifespan = config.lifespan_class(config)
            await server.startup(sockets=[listener])
            used = connected(listener, REQUEST)
            assert await asyncio.to_thread(answered, used) == (200, False)
            # Nothing is awaited until it ends: these wait in the kernel, unread and not accepted.
            fresh = [connected(listener, REQUEST) for _ in range(4)]
            silent = connected(listener)
            address = listener.getsockname()
            end = asyncio.create_task(server.shutdown([listener]))
            await ending.wait()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            ended["fresh"] = [await asyncio.to_thread(answered, it) for it in fresh]
            for name, connection in (("used", used), ("silent", silent)):
                connection.sendall(REQUEST)
                ended[name] = await asyncio.to_thread(answered, connection)
            await end
            for connection in (*fresh, used, silent):
                connection.close()

    uvloop.run(run())
    assert ended == {"fresh": [(200, True)] * 4, "used": (200, True), "silent": (200, True)}


def test_connections_that_stay_silent_are_closed_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asgi_server, "LINGER_S", 0.1)

    async def run() -> None:
        with listening(0) as listener:
            ending = asyncio.Event()
            config = uvicorn.Config(PlainTextResponse("yes"), http="h11", log_config=None)
            config.load()
            server = Server(config, ending)
            server.lifespan = config.lifespan_class(config)
            await server.startup(sockets=[listener])
            with connected(listener) as silent:
                await server.shutdown([listener])
                assert silent.recv(1) == b""

    uvloop.run(run())


def test_a_head_that_trickles_ends_with_its_time() -> None:
    async def run() -> None:
        with listening(0) as listener:
            ending = asyncio.Event()
            app = PlainTextResponse("yes")
            config = uvicorn.Config(app, http=Connection, log_config=None, timeout_keep_alive=1)
            config.load()
            server = Server(config, ending)
            server.lifespan = config.lifespan_class(config)
            await server.startup(sockets=[listener])

            def trickle(connection: socket.socket) -> None:
                connection.settimeout(0.1)
                with suppress(ConnectionError):  # closed while the next line is sent
                    connection.sendall(REQUEST[:-2])
                    for _ in range(100):
                        try:
                            assert connection.recv(1) == b""
                            return
                        except TimeoutError:
                            connection.sendall(b"X: y\r\n")
                    raise AssertionError("it is still heard")

            with connected(listener) as fresh, connected(listener, REQUEST) as used:
                assert await asyncio.to_thread(answered, used) == (200, False)
                both = (asyncio.to_thread(trickle, it) for it in (fresh, used))
                await asyncio.gather(*both)
            await server.shutdown([listener])

    uvloop.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("last", [errno.EAGAIN, errno.EMFILE])
def test_a_connection_that_cannot_be_accepted_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """One is accepted, one has gone, one more is accepted, and no other can be."""
    with listening(0) as listener:
        mine, theirs = socket.socketpair()
        more, others = socket.socketpair()
        outcomes = iter(
            [(theirs, ""), OSError(errno.ECONNABORTED, ""), (others, ""), OSError(last, "")]
        )

        def accept(_: object) -> tuple[socket.socket, str]:
            outcome = next(outcomes)
            if isinstance(outcome, OSError):
                raise outcome
            return outcome

        monkeypatch.setattr(socket.socket, "accept", accept)
        assert accept_all(listener) == [theirs, others]
    for one in (mine, theirs, more, others):
        one.close()


def test_a_body_without_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.2)

    async def read(request: Request) -> Response:
        try:
            await bodies.read(request.receive, 1 << 20)
        except TimeoutError:
            raise Refused(408, "RequestTimeoutException", "the body did not arrive") from None
        return PlainTextResponse("yes")

    def send(connection: socket.socket) -> None:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + bytes(1 << 16) + b"\r\n")

    async def run() -> None:
        with listening(0) as listener:
            port, ending = listener.getsockname()[1], asyncio.Event()
            app = by_port({port: exactly([Route("/", read, methods=["POST"])])}, ending)
            config = uvicorn.Config(app, http="h11", log_config=None, lifespan="off")
            config.load()
            server = Server(config, ending)
            server.lifespan = config.lifespan_class(config)
            await server.startup(sockets=[listener])
            connection = connected(listener)
            with pytest.raises(ConnectionError):
                await asyncio.to_thread(send, connection)
            connection.close()
            await server.shutdown([listener])

    uvloop.run(run())

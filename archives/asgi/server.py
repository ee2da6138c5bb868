"""The server's process: python -m archives.asgi.server RUN_DIR/server.json"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import uvicorn
import uvloop
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import HANDLED_SIGNALS

from archives.asgi.api.app import Guarded, inference
from archives.asgi.api.connection import Connection
from archives.asgi.api.management import management, metrics_page
from archives.asgi.api.tokens import Tokens
from archives.asgi.logs import open_logs
from archives.asgi.metrics import Metrics
from archives.asgi.models import Models
from archives.asgi.refused import Refused
from archives.asgi.settings import DRAIN_S, ServerSettings
from archives.torchserve.java import HOST
from sonode import traces
from sonode.console import UserError
from sonode.traces import Traces

KEEP_ALIVE_S = 75  # longer than nginx keeps a connection: whoever asks closes it
BACKLOG = 2048


LINGER_S = 2.0
"""How long idle connections are heard once the server ends: a request may be on its way on each."""


class Server(uvicorn.Server):  # type: ignore[misc]  # not followed: see pyproject.toml
    """Hears all who have connected before it ends: uvicorn closes what it has not read yet."""

    def __init__(self, config: uvicorn.Config, ending: asyncio.Event) -> None:
        super().__init__(config)
        self._ending = ending

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, which would raise them again, before workers and spans are seen to."""
        for number in HANDLED_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections, and close the others after their next answer, or when idle."""
        self._ending.set()
        loop = asyncio.get_running_loop()
        # Closing a socket resets those who wait to be accepted. Nothing is awaited in between.
        waiting = [it for listener in sockets or [] for it in accept_all(listener)]
        for server in self.servers:
            server.close()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)
        until = loop.time() + LINGER_S
        while self.server_state.connections and loop.time() < until:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """As uvicorn makes it."""
        made: asyncio.Protocol = self.config.http_protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def accept_all(listener: socket.socket) -> list[socket.socket]:
    """The connections that wait at a socket; fewer where one cannot be accepted."""
    found: list[socket.socket] = []
    while True:
        try:
            connection, _ = listener.accept()
        except ConnectionAbortedError:  # it has gone; the next may wait
            continue
        except OSError:  # none waits, or no more files can be open: those accepted get answers
            return found
        connection.setblocking(False)
        found.append(connection)


def by_port(apps: dict[int, ASGIApp], ending: asyncio.Event) -> ASGIApp:
    """One app for all ports: uvicorn serves one, on any number of sockets.

    Once the server is `ending`, each answer says that its connection closes.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            begins = message["type"] == "http.response.start"
            # 408: what is left of a body that does not end would be read for ever.
            if begins and (ending.is_set() or message["status"] == 408):
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await apps[scope["server"][1]](scope, receive, sending)

    return app


async def serve(config: Path) -> None:
    """Load the models, answer until SIGTERM or until the starter has gone, and end the workers.

    Raises Refused where a model does not load.
    """
    settings = ServerSettings.model_validate_json(config.read_bytes())
    limits = settings.limits
    metrics = Metrics()
    collected = Traces("sonode") if traces.asked() else None
    models = Models(settings, metrics, config, collected)
    lifetime = timedelta(minutes=limits.token_expiration_min)
    try:
        await asyncio.gather(
            *(
                models.register(file, name, all_workers=False)
                for name, file in settings.models.items()
            )
        )
        tokens = Tokens(config.parent / "key_file.json", lifetime)
        apps: dict[int, ASGIApp] = {
            settings.inference_port: Guarded(
                inference(models, limits.max_request_size), tokens, lambda _: "inference", metrics
            ),
            settings.management_port: Guarded(
                management(models, tokens),
                tokens,
                lambda path: "api" if path.startswith("/token") else "management",
                metrics,
            ),
            settings.metrics_port: Guarded(metrics_page(metrics), tokens, lambda _: None, metrics),
        }
        ending = asyncio.Event()
        server = Server(
            uvicorn.Config(
                by_port(apps, ending),
                access_log=False,
                http=Connection,  # of h11: httptools has no limit for a stranger's headers
                log_config=None,
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=DRAIN_S,
                ws="none",
            ),
            ending,
        )
        asyncio.get_running_loop().add_reader(sys.stdin, _end, server)
        with ExitStack() as held:
            await server.serve([held.enter_context(listening(port)) for port in apps])
    finally:
        await models.stop()
        if collected:
            await asyncio.to_thread(collected.close)


def listening(port: int) -> socket.socket:
    """A socket of loopback. Raises OSError where the port is taken."""
    # Where it does not name its protocol asyncio leaves Nagle's algorithm on, and the body of an
    # answer waits 40 ms for the client's word on its head.
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _end(server: uvicorn.Server) -> None:
    """The starter holds the other end of the standard input, and has gone."""
    asyncio.get_running_loop().remove_reader(sys.stdin)
    server.should_exit = True


def main() -> None:
    """Run; the last line of the output says why it could not."""
    config = Path(sys.argv[1])
    os.umask(0o077)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection takes one
    open_logs(config.parent / "logs")
    try:
        uvloop.run(serve(config))  # of a request it saves .6 ms of a core
    except (Refused, UserError) as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"a port cannot be opened ({error.strerror})")


if __name__ == "__main__":
    main()

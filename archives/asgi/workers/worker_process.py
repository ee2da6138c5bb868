"""A worker as the server sees it: started, asked, and ended."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from archives.asgi.workers import frames

LINE_MAX = 2**20  # bytes of a line that a worker writes; the rest of a longer one is dropped
BUFFER = 2**20  # bytes on their way to a worker, or from it
REQUEST = '{"event": "request"'  # begins the line of a request (handlers/telemetry.py)
UNCLEAR = "its answer cannot be made out"

requests_log = logging.getLogger("sonode.requests")
workers_log = logging.getLogger("sonode.workers")


class WorkerFailed(Exception):  # noqa: N818 - it has, and says why
    """A worker has ended, or does not answer in time."""


@dataclass(frozen=True)
class Asked:
    """A request as a handler gets it."""

    id: str
    fields: dict[str, bytes]
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What the handler says to one request."""

    status: int
    headers: dict[str, str]
    body: bytes


class Worker:
    """A process with one archive loaded."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.name = name
        self._reader, self._writer = reader, writer
        self.pid = process.pid
        self.began = time.time()
        self.heads: dict[str, list[str]] = {}
        self.ended = asyncio.ensure_future(process.wait())
        self._process = process
        self._log = asyncio.ensure_future(self._write_log())

    @classmethod
    async def start(
        cls, name: str, folder: Path, config: Path, facts: dict[str, Any], timeout_s: float
    ) -> tuple[Self, list[Any]]:
        """Start one that serves the unpacked archive in `folder`; also its first metrics.

        `config` is the server's file: it says on the command line whose worker it is. Raises
        WorkerFailed where the archive does not serve.
        """
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):  # room for most images: else each waits for the other meanwhile
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "archives.asgi.workers.worker",
                    str(theirs.fileno()),
                    str(config),
                ),
                cwd=folder,
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=LINE_MAX,
            )
        worker = cls(name, process, *await asyncio.open_connection(sock=ours))
        try:
            said, _ = await worker._exchange(facts, [], timeout_s)
            if said["failed"]:
                raise WorkerFailed(said["failed"])
        except BaseException:
            await worker.end()
            raise
        worker.heads = said["heads"]
        return worker, said["metrics"]

    async def ask(
        self, batch: Sequence[Asked], timeout_s: float
    ) -> tuple[list[Answer] | int, list[Any], dict[str, tuple[float, float]]]:
        """Answers to a batch, or the status of its failure; updates of metrics; when its stages
        began and ended, of `time.monotonic`.

        Raises WorkerFailed where the worker ends, or takes longer.
        """
        requests = [{"id": it.id, "fields": list(it.fields), "headers": it.headers} for it in batch]
        blobs = [data for it in batch for data in it.fields.values()]
        said, bodies = await self._exchange({"requests": requests}, blobs, timeout_s)
        if said["failed"]:
            return said["failed"], said["metrics"], {}
        try:
            answers = zip(batch, said["answers"], bodies, strict=True)
            found = [Answer(it["status"], it["headers"], body) for _, it, body in answers]
        except (KeyError, TypeError, ValueError):
            raise WorkerFailed(UNCLEAR) from None
        return found, said["metrics"], said["stages"]

    async def end(self) -> None:
        """Kill it and read what it wrote to the end."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self.ended
        await self._log
        self._writer.close()

    async def _exchange(
        self, facts: dict[str, Any], blobs: Sequence[bytes], timeout_s: float
    ) -> frames.Message:
        try:
            async with asyncio.timeout(timeout_s):
                self._writer.writelines(frames.pack(facts, blobs))
                await self._writer.drain()
                return await frames.receive(self._reader)
        except TimeoutError:
            raise WorkerFailed(f"it does not answer within {timeout_s:g} s") from None
        except (asyncio.IncompleteReadError, OSError):
            raise WorkerFailed("it has died") from None
        except (KeyError, TypeError, ValueError):
            raise WorkerFailed(UNCLEAR) from None

    async def _write_log(self) -> None:
        assert self._process.stdout
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # longer than LINE_MAX
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip("\n")
            if text.startswith(REQUEST):
                requests_log.info("%s", text)
            else:
                workers_log.info("%s %s", self.name, text)

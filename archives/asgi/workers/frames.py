"""Messages between the server and a worker: facts as JSON, then byte strings as they are.

The worker reads them with nothing but the standard library: its other modules are the archive's.
"""

from __future__ import annotations

import json
import struct
from asyncio import StreamReader
from collections.abc import Sequence
from typing import Any, BinaryIO

LENGTH = struct.Struct("!I")

Message = tuple[dict[str, Any], list[bytes]]


def pack(facts: dict[str, Any], blobs: Sequence[bytes] = ()) -> list[bytes]:
    """Return what to write for a message; large byte strings are not copied."""
    head = json.dumps(facts | {"sizes": [len(blob) for blob in blobs]}).encode()
    return [LENGTH.pack(len(head)) + head, *blobs]


def read(file: BinaryIO) -> Message:
    """Read one message. Raises EOFError where the other end has gone."""

    def exactly(size: int) -> bytes:
        data = file.read(size)
        if len(data) < size:
            raise EOFError
        return data

    facts = json.loads(exactly(*LENGTH.unpack(exactly(LENGTH.size))))
    return facts, [exactly(size) for size in facts["sizes"]]


async def receive(reader: StreamReader) -> Message:
    """Read one message. Raises asyncio.IncompleteReadError where the other end has gone."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    facts = json.loads(await reader.readexactly(length))
    return facts, [await reader.readexactly(size) for size in facts["sizes"]]

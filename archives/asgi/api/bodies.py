"""Request bodies: read whole, in memory, and taken apart where they are forms."""

from __future__ import annotations

import asyncio

from multipart import MultipartError, PushMultipartParser, parse_options_header
from starlette.types import Receive

BODY_S = 60.0
"""How long a body may take to arrive."""
PARTS_MOST = 100
"""Of a form: while a million are looked at, all other clients wait."""


class Malformed(Exception):  # noqa: N818
    """The body is not what its Content-Type says, in words for the client."""


class TooLarge(Exception):  # noqa: N818
    """The body is above the limit; it has been read to its end, so that an answer reaches."""


class ClientLeft(Exception):  # noqa: N818
    """The client has gone, or sends no more."""


async def read(receive: Receive, limit: int) -> bytes:
    """The whole body. Raises TooLarge, ClientLeft, TimeoutError."""
    parts, size = [], 0
    async with asyncio.timeout(BODY_S):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientLeft
            size += len(message.get("body", b""))
            if size <= limit:
                parts.append(message.get("body", b""))
            else:
                parts.clear()
            if not message.get("more_body"):
                break
    if size > limit:
        raise TooLarge
    return parts[0] if len(parts) == 1 else b"".join(parts)


def fields(body: bytes, content_type: str, coding: str = "") -> dict[str, bytes]:
    """A row as TorchServe makes it: the fields of a form, or `body`; of two of a name the last.

    A form with a Content-Encoding has no fields, which the handler refuses (415).
    Raises Malformed for a form that is broken, or not whole: a missing field would be another
    request.
    """
    kind, options = parse_options_header(content_type)
    if kind == "application/x-www-form-urlencoded":
        raise Malformed(
            "body: Content-Type says a web form; say what it is, as image/png or "
            "application/octet-stream"
        )
    if kind != "multipart/form-data":
        return {"body": body}
    if coding.strip().lower() not in ("", "identity"):
        return {}
    found: dict[str, bytes] = {}
    try:
        with PushMultipartParser(
            options.get("boundary", ""),
            max_segment_count=PARTS_MOST,
            header_charset="latin-1",  # has all bytes: a file's name may be in any, and is not used
            strict=True,
        ) as parser:
            name, parts = "", []
            for event in parser.parse(body) if body else ():
                if isinstance(event, bytes | bytearray):
                    parts.append(bytes(event))
                elif event is None:
                    found[name] = b"".join(parts)
                else:
                    if not event.name:
                        raise Malformed(
                            "body: a part of the form has no name; give each one a name"
                        )
                    name, parts = event.name, []
        end = f"\r\n--{options.get('boundary', '')}--".encode()
        if body.partition(end)[2].strip():  # the parser reads no part after the last boundary
            raise MultipartError("more than a form")
    except MultipartError:
        raise Malformed(
            "body: not a whole multipart form; send each part with its header and the last boundary"
        ) from None
    return found

"""Undoes an object's Content-Encoding: boto3 returns the bytes as they are stored."""

from __future__ import annotations

from batch.storage.errors import ObjectEncoded, ObjectTooLarge
from handlers.inflate import CODINGS, BadGzip, gunzip


def coding_of(header: str) -> str:
    """The one coding that the bytes are stored in, in lower case; empty where they are plain.

    `aws-chunked` is of the upload: the store has undone it, and some leave the word.
    """
    codings = (one.strip().lower() for one in header.split(","))
    return ", ".join(one for one in codings if one not in ("", "identity", "aws-chunked"))


def decoded(data: bytes, header: str, limit: int | None) -> bytes:
    """The bytes without their Content-Encoding, at most `limit`.

    Raises ObjectEncoded, ObjectTooLarge.
    """
    coding = coding_of(header)
    if not coding:
        return data
    if coding not in CODINGS:
        raise ObjectEncoded(
            f"its Content-Encoding {coding!r} is not decoded here; store it without"
        )
    try:
        inflated = gunzip(data, limit)
    except BadGzip as error:
        raise ObjectEncoded(f"its Content-Encoding is gzip, its bytes are {error}") from None
    if limit is not None and len(inflated) > limit:
        raise ObjectTooLarge(f"the object inflates to more than {limit} bytes; no more are read")
    return inflated

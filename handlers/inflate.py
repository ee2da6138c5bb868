"""gzip, as the Content-Encoding of a request's body or of a stored object."""

from __future__ import annotations

import gzip
import io
import zlib

CODINGS = ("gzip", "x-gzip")
"""Names of gzip in Content-Encoding (RFC 9110, 8.4.1.3)."""


class BadGzip(ValueError):  # noqa: N818 - reads as what it is
    """The bytes are not a gzip stream, or it is damaged."""


def gunzip(data: bytes | bytearray, limit: int | None) -> bytes:
    """The decompressed bytes, checksum verified; at most `limit` + 1 of them.

    Raises BadGzip: says why.
    """
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(data)).read(-1 if limit is None else limit + 1)
    except (OSError, EOFError, zlib.error):
        raise BadGzip("not gzip, or damaged or truncated") from None

"""A PNG without the metadata that nothing here uses, its checksums compared.

Pillow inflates profiles and texts, fails the picture where one is large, and ignores the CRC of the
pixels' chunks. Chunks as in the PNG specification, https://www.w3.org/TR/png-3/.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Beside the critical ones, whose names begin with a capital: transparency, which Pillow applies to
# palettes; the orientation; and the marks of an animation, which is refused.
_USED = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")


class Damaged(ValueError):  # noqa: N818 - reads as what it is
    """A chunk's bytes are not those that were written, or the end of the file is missing."""


def lean(png: bytes) -> bytes:
    """The same pixels without unused metadata (profiles, texts, previews, times).

    Of the orientation, what `eXIf` says is kept, what a text says (as some tools write) is not.

    Raises Damaged: a chunk that is used has another CRC than is written beside it, or the file ends
    before the chunk that ends a PNG: Pillow asks for neither once it has all pixels.
    """
    return SIGNATURE + b"".join(_used_chunks(png))


def _used_chunks(png: bytes) -> Iterator[bytes]:
    at = len(SIGNATURE)
    while (end := at + 12 + int.from_bytes(png[at : at + 4])) <= len(png):
        name = png[at + 4 : at + 8]
        if name[:1].isupper() or name in _USED:
            if zlib.crc32(png[at + 4 : end - 4]) != int.from_bytes(png[end - 4 : end]):
                raise Damaged(
                    f"damaged: the checksum of a chunk {name.decode(errors='replace')} differs"
                )
            yield png[at:end]
        if name == b"IEND":
            return
        at = end
    raise Damaged("damaged or truncated: its end is missing")

"""Which bytes of encapsulated pixel data (PS3.5, A.4) are one frame's.

What can be counted is counted: one fragment a frame, or the codestreams' own beginnings. An offset
table decides only where nothing else does, and a warning says that one is wrong.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from pydicom.encaps import parse_fragments

from model_def.images.dicom.file import Reader
from model_def.images.errors import UnreadableImage

_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
"""Of JPEG and JPEG-LS (SOI), JPEG 2000 (SOC and SIZ), and JPEG 2000 in a file of its own."""


def frame_bytes(body: Reader, number: int, frames: int, extended: bytes, notes: list[str]) -> bytes:
    """Frame `number` of `frames`; `body` is positioned at the first item of the pixel data.

    Args:
        extended: the value of ExtendedOffsetTable, or nothing.

    Raises UnreadableImage: fragments truncated, too few, or not assignable to frames.
    """
    data = memoryview(body.data)
    try:
        _, items = parse_fragments(body)
    except ValueError:
        raise UnreadableImage(
            "image: PixelData has damaged fragments; give the complete file"
        ) from None
    spans = [(at + 8, at + 8 + struct.unpack("<I", data[at + 4 : at + 8])[0]) for at in items]
    if not spans or spans[-1][1] > len(data):
        raise UnreadableImage("image: PixelData is truncated; give the complete file")
    table, fragments = data[slice(*spans[0])], spans[1:]
    if bytes(table[:12]).startswith(_STARTS):  # there is no table: the first item is a fragment
        table, fragments = data[:0], spans
    origin = fragments[0][0] if fragments else 0
    offsets = [start - origin for start, _ in fragments]
    stated = _table(bytes(table), extended)
    heads = [bytes(data[a : min(a + 12, b)]) for a, b in fragments]
    starts = [index for index, head in enumerate(heads) if head.startswith(_STARTS)]
    beginnings = _counted(starts, len(fragments), frames)
    if beginnings is None and len(stated) == frames and _fits(stated, offsets):
        index_of = {at: index for index, at in enumerate(offsets)}
        by_table = [index_of[at] for at in stated]
        beginnings = by_table if set(starts) <= set(by_table) else None
    if beginnings is None:
        raise UnreadableImage(
            f"image: NumberOfFrames is {frames}, PixelData has {len(fragments)} fragments, and no "
            "offset table assigns them to frames; export it again"
        )
    if stated and stated != [offsets[index] for index in beginnings]:
        notes.append("offset_table_ignored")
    first, end = [*beginnings, len(fragments)][number : number + 2]
    return b"".join(data[a:b] for a, b in fragments[first:end])


def _counted(starts: list[int], fragments: int, frames: int) -> list[int] | None:
    """The index of each frame's first fragment, where the fragments alone decide it.

    Args:
        starts: which of the fragments begin a codestream.
    """
    if len(starts) == frames and starts[0] == 0:
        return starts
    if fragments == frames and not starts:
        return list(range(frames))
    if frames == 1 and not starts and fragments:
        return [0]
    return None


def _table(basic: bytes, extended: bytes) -> list[int]:
    """The offsets that the file states, counted from the first fragment."""
    word, table = ("Q", extended) if extended else ("I", basic)
    size = struct.calcsize(f"<{word}")
    return [at for (at,) in struct.iter_unpack(f"<{word}", table[: len(table) // size * size])]


def _fits(stated: list[int], offsets: list[int]) -> bool:
    """Whether each entry is a fragment's, in rising order from the first on."""
    return (
        stated[0] == 0
        and all(before < after for before, after in pairwise(stated))
        and set(stated) <= set(offsets)
    )

"""Whether a JPEG holds its whole picture: by its markers, and by what libjpeg warns of.

libjpeg fills up with grey what it cannot read, and warns; Pillow drops the warnings. Some damage
leaves a stream that reads as another picture without a warning: no decoder can tell.

Structure and names as in ITU-T T.81, annex B.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import simplejpeg

MAX_SCANS = 100
"""Usual are 1 to 11, and each goes over all pixels, which it may hold in a few bytes."""

# Stuffed zeros, restart markers and TEM have no segment; below 0xC0 nothing is defined.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_EOI, _SOS = 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})


class TooManyScans(ValueError):  # noqa: N818 - reads as what it is
    """It has more scans than `MAX_SCANS`; says so."""


class Damaged(ValueError):  # noqa: N818
    """It does not hold its whole picture; says what is wrong."""


class Unverifiable(ValueError):  # noqa: N818
    """Its kind cannot be checked here; says which."""


class _Segment(NamedTuple):
    marker: int
    start: int
    """Where its payload begins, behind its length; of EOI the end of the picture."""
    payload: bytes


def _segments(jpeg: bytes) -> Iterator[_Segment]:
    """The segments of the first picture; what lies behind its end marker is no part of it."""
    at = 2
    while found := _MARKER.search(jpeg, at):
        marker, at = jpeg[found.end() - 1], found.end()
        if marker == _EOI:
            yield _Segment(marker, at, b"")
            return
        length = max(2, int.from_bytes(jpeg[at : at + 2]))
        yield _Segment(marker, at + 2, jpeg[at + 2 : at + length])
        at += length


def count_scans(jpeg: bytes) -> int:
    """Scans of the first picture."""
    return sum(segment.marker == _SOS for segment in _segments(jpeg))


def pixels(jpeg: bytes) -> int:
    """Width times height as the frame header states them; 0 where there is none."""
    for segment in _segments(jpeg):
        if segment.marker in _FRAMES:
            return int.from_bytes(segment.payload[1:3]) * int.from_bytes(segment.payload[3:5])
    return 0


def check(jpeg: bytes) -> None:
    """Make sure that a JPEG of 8 bits a sample, in DCT mode, holds its whole first picture.

    Costs about half of a decoding: all of the entropy-coded data is read, few pixels are made.

    Raises:
        TooManyScans, Damaged, Unverifiable.
    """
    segments = list(_segments(jpeg))
    scans = [segment for segment in segments if segment.marker == _SOS]
    if len(scans) > MAX_SCANS:
        raise TooManyScans(f"{len(scans)} JPEG scans; the limit is {MAX_SCANS}")
    if not segments or segments[-1].marker != _EOI:
        raise Damaged("the JPEG has no end marker")
    frame = next((segment for segment in segments if segment.marker in _FRAMES), None)
    if frame is None:
        raise Damaged("the JPEG has no frame header")
    progressive = frame.marker in _PROGRESSIVE
    if _lacks_scans(frame, scans, progressive):
        raise Damaged("the JPEG lacks scans")
    picture = bytearray(jpeg[: segments[-1].start])
    if not progressive:
        for scan in scans:  # some cameras write other values there, of which libjpeg only warns
            end = scan.start + len(scan.payload)
            picture[end - 3 : end] = b"\x00\x3f\x00"
    _read(bytes(picture))


def _lacks_scans(frame: _Segment, scans: list[_Segment], progressive: bool) -> bool:
    """Whether a component, or some bits of its coefficients, are in no scan.

    libjpeg takes them as zero and does not warn. T.81 does not ask that all be sent; encoders do.
    """
    identifiers = frame.payload[6::3]
    lacking = {component: set(range(64)) for component in identifiers}
    for scan in scans:
        count, *parameters = scan.payload
        components = parameters[: 2 * count : 2]
        first, last, approximation = parameters[2 * count : 2 * count + 3]
        whole = range(first, last + 1) if progressive else range(64)
        if approximation & 15 == 0 or not progressive:
            for component in components:
                lacking.get(component, set()).difference_update(whole)
    return any(lacking.values())


def _read(picture: bytes) -> None:
    """Read all of its data by libjpeg-turbo, which raises on its first warning."""
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(picture)
        target = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
        simplejpeg.decode_jpeg(picture, target, min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        if "subsampling" in str(error):  # decoded as well, but not by the interface that warns
            raise Unverifiable("an unusual chroma subsampling; write it anew in grey") from None
        raise Damaged(f"the JPEG's data ({error})") from None

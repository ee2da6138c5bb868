"""Whether a JPEG holds its whole picture: by its markers, and by what libjpeg warns of.

libjpeg fills up with grey what it cannot read, and warns; Pillow drops the warnings. Some damage
leaves a stream that reads as another picture without a warning: no decoder can detect it.

Structure and names as in ITU-T T.81, annex B.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import simplejpeg

from model_def.limits import MAX_SCANS

# Stuffed zeros, restart markers and TEM have no segment; below 0xC0 nothing is defined.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_EOI, _SOS = 0xD9, 0xDA
_METADATA = (*range(0xE0, 0xF0), 0xFE)  # applications' segments and comments
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})


class TooManyScans(ValueError):  # noqa: N818 - reads as what it is
    """It has more scans than `MAX_SCANS`; says so."""


class Damaged(ValueError):  # noqa: N818
    """It does not hold its whole picture; says what is wrong, to be read after "the image is"."""

    def __init__(self, what: str) -> None:
        super().__init__(f"damaged: {what}")


class Unverifiable(ValueError):  # noqa: N818
    """Its kind cannot be checked here; says which."""


class _Segment(NamedTuple):
    marker: int
    start: int
    """Where its marker begins."""
    end: int
    payload: bytes
    """What stands between its length and its end."""


def _segments(jpeg: bytes) -> Iterator[_Segment]:
    """The segments of the first picture; what lies behind its end marker is no part of it."""
    at = 2
    while found := _MARKER.search(jpeg, at):
        start, marker = found.start(), jpeg[found.end() - 1]
        at = found.end()
        if marker != _EOI:
            at += max(2, int.from_bytes(jpeg[at : at + 2]))
        yield _Segment(marker, start, at, jpeg[start + 4 : at])
        if marker == _EOI:
            return


def count_scans(jpeg: bytes) -> int:
    """Scans of the first picture."""
    return sum(segment.marker == _SOS for segment in _segments(jpeg))


def pixels(jpeg: bytes) -> int:
    """Width times height as the frame header states them; 0 where there is none."""
    for segment in _segments(jpeg):
        if segment.marker in _FRAMES:
            return int.from_bytes(segment.payload[1:3]) * int.from_bytes(segment.payload[3:5])
    return 0


def says_ycbcr(jpeg: bytes) -> bool:
    """Whether its three components are YCbCr by JFIF's marker, or by Adobe's."""
    components = 0
    marked = False
    for marker, _, _, payload in _segments(jpeg):
        if marker in _FRAMES:
            components = int.from_bytes(payload[5:6])
        marked |= marker == 0xE0 and payload.startswith(b"JFIF\0")
        marked |= marker == 0xEE and payload.startswith(b"Adobe") and payload[11:12] == b"\1"
    return marked and components == 3


def check(jpeg: bytes) -> None:
    """Make sure that a JPEG of 8 bits a sample, in DCT mode, holds its whole first picture.

    Costs about half of a decoding: all of the entropy-coded data is read, few pixels are made.

    Raises TooManyScans, Damaged, Unverifiable.
    """
    segments = list(_segments(jpeg))
    scans = [segment for segment in segments if segment.marker == _SOS]
    if len(scans) > MAX_SCANS:
        raise TooManyScans(f"the JPEG has {len(scans)} scans; the limit is {MAX_SCANS}")
    if not segments or segments[-1].marker != _EOI:
        raise Damaged("the JPEG has no end marker")
    frame = next((segment for segment in segments if segment.marker in _FRAMES), None)
    if frame is None:
        raise Damaged("the JPEG has no frame header")
    progressive = frame.marker in _PROGRESSIVE
    try:
        lacking = _lacks_scans(frame, scans, progressive)
    except ValueError:
        raise Damaged("the JPEG has a scan header that is cut short") from None
    if lacking:
        raise Damaged("the JPEG lacks scans")
    _read(_bare(jpeg, segments, progressive))


def _bare(jpeg: bytes, segments: list[_Segment], progressive: bool) -> bytes:
    """The first picture without what libjpeg may warn of although all pixels are there.

    That is metadata, and scan parameters that only progressive JPEGs have and that some cameras
    write wrongly in others.
    """
    kept, at = [], 0
    for segment in segments:
        if segment.marker in _METADATA:
            kept.append(jpeg[at : segment.start])
            at = segment.end
        elif segment.marker == _SOS and not progressive:
            kept += [jpeg[at : segment.end - 3], b"\x00\x3f\x00"]
            at = segment.end
    return b"".join([*kept, jpeg[at : segments[-1].end]])


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
        _decode(picture)
    except ValueError as error:
        if "subsampling" in str(error):  # decoded as well, but not by the interface that warns
            raise Unverifiable("unsupported JPEG chroma subsampling; export it in grey") from None
        if "before marker 0xd9" not in str(error):
            raise Damaged(f"the JPEG's data ({error})") from None
        try:  # of padding before the end marker nothing is needed
            _decode(picture[:-2].rstrip(b"\x00\xff") + picture[-2:])
        except ValueError:
            raise Damaged(f"the JPEG's data ({error})") from None


def _decode(picture: bytes) -> None:
    _, _, colours, _ = simplejpeg.decode_jpeg_header(picture)
    target = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
    simplejpeg.decode_jpeg(picture, target, min_height=1, min_width=1, min_factor=8)

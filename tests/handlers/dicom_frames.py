"""Frames in every encoding that is tried, made without the decoders that are under test."""

import io
import struct
from itertools import groupby

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset

from tests.handlers.dicoms import write

WIDTH, HEIGHT = 128, 96
FLOW = slice(104, 120)
"""Columns in colour, whole cells of 16 pixels with as much grey beside them in the frame."""


def ramps(*, colour: bool) -> np.ndarray:
    """Three frames, (3, H, W) or (3, H, W, 3): every grey from left to right, and back, and
    downwards; in colour with a stripe of red over `FLOW`.
    """
    across = np.tile(np.arange(WIDTH, dtype=np.uint8) * 2, (HEIGHT, 1))
    down = np.tile(np.arange(HEIGHT, dtype=np.uint8)[:, None] * 2, (1, WIDTH))
    grey = np.stack([across, 255 - across, down])
    if not colour:
        return grey
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    rgb[:, :, FLOW] = (200, 60, 40)
    return rgb


def ybr(rgb: np.ndarray) -> np.ndarray:
    """YBR_FULL by its definition (PS3.3, C.7.6.3.1.2), in whole numbers."""
    matrix = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    return np.rint(rgb @ np.array(matrix).T + [0, 128, 128]).clip(0, 255).astype(np.uint8)


def planes(samples: np.ndarray) -> np.ndarray:
    """Pixel by pixel -> plane by plane, of frames (N, H, W, 3)."""
    return np.ascontiguousarray(np.moveaxis(samples, -1, 1))


def halved(samples: np.ndarray) -> np.ndarray:
    """YBR_FULL_422 of frames (N, H, W, 3) of even width: Y1 Y2 Cb Cr of each two pixels."""
    left, right = samples[:, :, ::2], samples[:, :, 1::2]
    return np.stack([left[..., 0], right[..., 0], left[..., 1], left[..., 2]], axis=-1)


def rle(frame: np.ndarray) -> bytes:
    """An RLE frame (PS3.5, annex G) of (H, W) or (H, W, 3), 8 or 16 bits: runs and literals of one
    row at a time.
    """
    samples = frame[..., None] if frame.ndim == 2 else frame
    size = frame.dtype.itemsize
    octets = [band.astype(f">u{size}").view(np.uint8) for band in np.moveaxis(samples, -1, 0)]
    planes = [rows[:, part::size] for rows in octets for part in range(size)]
    segments = [b"".join(map(_packed, rows)) for rows in planes]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    starts = 64 + np.cumsum([0, *map(len, segments)])[:-1]
    header = [len(segments), *starts.tolist(), *[0] * (15 - len(segments))]
    return struct.pack("<16I", *header) + b"".join(segments)


def _packed(row: np.ndarray) -> bytes:
    packed = b""
    for value, run in groupby(row.tolist()):
        left = len(list(run))
        while left:
            length = min(left, 128)
            packed += bytes([0, value]) if length == 1 else bytes([257 - length, value])
            left -= length
    return packed


JPEGS = ("jfif", "adobe", "halved", "123", "012", "rgb", "adobe rgb", "rgb 123")


def jpeg(frame: np.ndarray, kind: str) -> bytes:
    """A JPEG of RGB, or of grey, whose markers and component ids are one of `JPEGS`:

    "jfif", "adobe": YCbCr by that marker; "halved": YCbCr, no marker, chroma subsampled; "123",
    "012": YCbCr, no marker, those component ids; "rgb": RGB by its ids, no marker; "adobe rgb": RGB
    by the marker; "rgb 123": RGB, no marker, ids as of YCbCr.
    """
    is_rgb, buffer = "rgb" in kind and frame.ndim == 3, io.BytesIO()
    sampling = 2 if kind == "halved" else 0
    Image.fromarray(frame).save(buffer, "JPEG", quality=100, subsampling=sampling, keep_rgb=is_rgb)
    made = buffer.getvalue()
    if frame.ndim == 2 or kind == "jfif":
        return made
    made = _without_markers(made)
    if kind.startswith("adobe"):
        body = b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0 if is_rgb else 1)
        made = made[:2] + b"\xff\xee" + struct.pack(">H", len(body) + 2) + body + made[2:]
    ids = {"012": b"\0\1\2", "rgb 123": b"\1\2\3"}.get(kind)
    return _renumbered(made, ids) if ids else made


def _without_markers(made: bytes) -> bytes:
    at, kept = 2, made[:2]
    while made[at + 1] != 0xDA:
        (length,) = struct.unpack(">H", made[at + 2 : at + 4])
        if not 0xE0 <= made[at + 1] <= 0xEF:
            kept += made[at : at + 2 + length]
        at += 2 + length
    return kept + made[at:]


def _renumbered(made: bytes, ids: bytes) -> bytes:
    changed = bytearray(made)
    frame, scan = made.index(b"\xff\xc0"), made.index(b"\xff\xda")
    for index, number in enumerate(ids):
        changed[frame + 10 + 3 * index] = changed[scan + 5 + 2 * index] = number
    return bytes(changed)


def j2k(frame: np.ndarray, *, mixed: bool) -> bytes:
    """A lossless JPEG 2000 codestream, whose components are mixed (RCT) or not."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG2000", no_jp2=True, mct=int(mixed))
    return buffer.getvalue()


TABLES = ("right", "empty", "zeros", "one entry", "absolute", "shifted", "extended")


def encapsulated(made: Dataset, frames: list[bytes], syntax: str, table: str) -> bytes:
    """The file's bytes with encoded frames, one a fragment, and one of `TABLES`."""
    frames = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    right = np.cumsum([0, *(len(frame) + 8 for frame in frames)])[:-1]
    entries = {
        "right": right,
        "zeros": 0 * right,
        "one entry": right[:1],
        "absolute": right + 1234,
        "shifted": [*right[1:], right[-1] + 8 + len(frames[-1])],
    }.get(table, [])
    if table == "extended":
        made.ExtendedOffsetTable = np.asarray(right, "<u8").tobytes()
        made.ExtendedOffsetTableLengths = np.array(list(map(len, frames)), "<u8").tobytes()
    items = [np.asarray(entries, "<u4").tobytes(), *frames]
    made.PixelData = b"".join(
        struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items
    ) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return write(made, syntax)

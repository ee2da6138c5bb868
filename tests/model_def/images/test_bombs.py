"""Small files that would take a worker's memory or minutes, each refused with its code."""

import binascii
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from pydicom import uid

from handlers.errors import RowError
from model_def import limits
from model_def.images.decode import decode
from tests.handlers import dicoms
from tests.handlers.dicoms import GREY, compressed, dataset, encoded, write

ZEROS = zlib.compress(bytes(100 * 2**20), 9)


def chunk(kind: bytes, data: bytes) -> bytes:
    return (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", binascii.crc32(kind + data))
    )


def png(*chunks: bytes, side: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(9 * 8)))
    parts = (chunk(b"IHDR", header), *chunks, rows, chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    given = {256: (4, 1, 64), 257: (4, 1, 64), 258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 1)}
    given |= {277: (3, 1, 1), **{tag: rest for tag, *rest in entries}}
    rows = [struct.pack("<HHII", tag, *given[tag]) for tag in sorted(given)]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4096)


def jpeg_claiming(side: int) -> bytes:
    made = bytearray(encoded(GREY, "JPEG"))
    at = made.index(b"\xff\xc0")
    made[at + 5 : at + 9] = struct.pack(">HH", side, side)
    return bytes(made)


def jpeg_of_many_scans() -> bytes:
    made = encoded(np.zeros((64, 64), np.uint8), "JPEG", progressive=True)
    scan = made[made.rindex(b"\xff\xda") : -2]
    return made[:-2] + scan * 200 + made[-2:]


def inflating() -> bytes:
    file = write(dataset(GREY, "MONOCHROME2"), uid.DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(file[140:144], "little")  # behind the meta group
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(257)) + packer.flush()
    return file[:start] + bomb


def of_many_items() -> bytes:
    made = write(dataset(GREY, "MONOCHROME2"))
    # In front of the first element of the data set: an endless sequence of empty items.
    at = made.index(struct.pack("<HH2s", 0x0008, 0x0016, b"UI"))
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * limits.MAX_READS
    return made[:at] + struct.pack("<HH2sHI", 8, 8, b"SQ", 0, 0xFFFFFFFF) + items + made[at:]


def of_deep_items() -> bytes:
    made = write(dataset(GREY, "MONOCHROME2"))
    at = made.index(struct.pack("<HH2s", 0x0008, 0x0016, b"UI"))
    level = struct.pack("<HH2sHIHHI", 8, 8, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    return made[:at] + level * 50_000 + made[at:]


def rle() -> bytes:
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 100_000
    return compressed(dataset(GREY, "MONOCHROME2"), [frame], uid.RLELossless)


def segmented() -> bytes:
    palette = {
        name: value for name, value in dicoms.palette().items() if name.endswith("Descriptor")
    }
    segments = struct.pack("<HHH", 0, 1, 7) + struct.pack("<HHH", 1, 65535, 9) * 20_000
    for colour in ("Red", "Green", "Blue"):
        palette[f"Segmented{colour}PaletteColorLookupTableData"] = segments
    return write(dataset(GREY, "PALETTE COLOR", **palette))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: png(side=2**31 - 1), "image_too_large"),
        (lambda: tiff((273, 4, 2**31, 8), (279, 4, 2**31, 8)), "unreadable_image"),
        (lambda: tiff((277, 3, 1, 65535), (273, 4, 1, 8), (279, 4, 1, 8)), "unsupported_image"),
        (
            lambda: tiff(
                *((t, 4, 1, v) for t, v in ((322, 40000), (323, 40000), (324, 9), (325, 9)))
            ),
            "unsupported_image",
        ),
        (lambda: jpeg_claiming(60_000), "image_too_large"),
        (jpeg_of_many_scans, "image_too_large"),
        (inflating, "image_too_large"),
        (of_many_items, "image_too_large"),
        (of_deep_items, "unreadable_image"),
        (
            lambda: write(dataset(GREY, "MONOCHROME2", Rows=60_000, Columns=60_000)),
            "image_too_large",
        ),
        (lambda: write(dataset(GREY, "MONOCHROME2", NumberOfFrames=10**9)), "image_too_large"),
        (
            lambda: write(
                dataset(GREY, "MONOCHROME2", RedPaletteColorLookupTableData=bytes(2**19))
            ),
            "image_too_large",
        ),
        (
            lambda: compressed(
                dataset(GREY, "MONOCHROME2"), [jpeg_claiming(60_000)], uid.JPEGBaseline8Bit
            ),
            "unreadable_image",
        ),
        (rle, "unreadable_image"),
        (segmented, "unsupported_image"),
    ],
)
def test_a_bomb_is_refused_before_it_goes_off(
    make: Callable[[], bytes], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make()
    monkeypatch.setattr(Image.Image, "convert", lambda self, mode: pytest.fail("decoded"))
    with pytest.raises(RowError) as caught:
        decode(data, 0)
    assert (caught.value.code, caught.value.field) == (code, "image")


@pytest.mark.parametrize(
    "metadata", [(b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")]
)
def test_a_bomb_in_metadata_does_not_go_off_and_leaves_the_pixels(
    metadata: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, head = metadata
    monkeypatch.setattr(PngImagePlugin, "_safe_zlib_decompress", lambda s: pytest.fail("inflated"))
    assert (decode(png(chunk(name, head + ZEROS))).grey_HW == np.zeros((8, 8))).all()


def test_files_over_the_limits_on_bytes() -> None:
    for data in (bytes(limits.MAX_BYTES + 1), bytes(128) + b"DICM" + bytes(limits.MAX_DICOM_BYTES)):
        with pytest.raises(RowError, match="the limit is") as caught:
            decode(data)
        assert caught.value.code == "image_too_large"

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from model_def.images import png_checks

PIXELS = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def encode(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def names(data: bytes) -> list[bytes]:
    found, at = [], 8
    while at < len(data):
        found.append(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4])
    return found


def test_large_metadata_does_not_fail_the_pixels_and_is_not_inflated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = zlib.compress(bytes(3_000_000))
    plain = encode(Image.fromarray(PIXELS))
    header, rest = plain[:33], plain[33:]
    metadata = chunk(b"iCCP", b"p\0\0" + large) + chunk(b"zTXt", b"k\0\0" + large)
    metadata += chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + large) + chunk(b"tEXt", b"k\0v")
    with pytest.raises(ValueError, match="too large"):
        Image.open(io.BytesIO(header + metadata + rest))
    monkeypatch.setattr(PngImagePlugin, "_safe_zlib_decompress", lambda s: pytest.fail("inflated"))
    kept = png_checks.lean(header + metadata + rest[:-12] + metadata + rest[-12:])
    assert names(kept) == [b"IHDR", b"IDAT", b"IEND"]
    assert (np.asarray(Image.open(io.BytesIO(kept))) == PIXELS).all()


def test_what_lies_behind_the_end_is_no_part_of_it() -> None:
    data = encode(Image.fromarray(PIXELS))
    behind = chunk(b"IDAT", b"another's")
    assert png_checks.lean(data + behind[:-1] + b"?") == data


def test_transparency_orientation_and_animation_are_kept() -> None:
    palette = Image.fromarray(PIXELS).convert("P")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert names(png_checks.lean(encode(palette, transparency=3, exif=exif))) == [
        *(b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")
    ]
    moving = encode(palette, save_all=True, append_images=[Image.new("P", palette.size, 9)])
    assert Image.open(io.BytesIO(png_checks.lean(moving))).is_animated


def test_a_flipped_bit_of_the_pixels_is_refused_wherever_it_is() -> None:
    data = encode(Image.fromarray(PIXELS))
    begin = data.index(b"IDAT")
    for at in range(begin, len(data) - 12):
        flipped = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        if at < begin + 4 and flipped[begin : begin + 1].islower():
            continue  # the name says then that it may be passed over: Pillow misses the pixels
        with pytest.raises(png_checks.Damaged):
            png_checks.lean(flipped)

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from model_def.images import formats, jpeg_checks, tiff_checks

NOISE = np.random.default_rng(3).integers(0, 256, (300, 400), dtype=np.uint8)


def encode(compression: str, mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(buffer, "TIFF", compression=compression)
    return buffer.getvalue()


def check(data: bytes) -> None:
    with formats.opened(data) as image:
        formats.check_whole(image, data)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("compression", ["jpeg", "tiff_adobe_deflate", "tiff_deflate", "tiff_lzw"])
def test_an_intact_file_passes(compression: str, mode: str) -> None:
    check(encode(compression, mode))


@pytest.mark.parametrize("compression", ["jpeg", "tiff_adobe_deflate"])
def test_a_zeroed_stretch_is_damage_in_every_strip(compression: str) -> None:
    data = encode(compression)
    with formats.opened(data) as image:
        strips = list(zip(image.tag_v2[273], image.tag_v2[279], strict=True))  # type: ignore[attr-defined]
    assert len(strips) > 1
    for start, size in strips:
        at = start + size // 2
        with pytest.raises(jpeg_checks.Damaged):
            check(data[:at] + bytes(512) + data[at + 512 :])


def plain_tiff(compression: int, strips: list[bytes], side: int = 8, photometric: int = 1) -> bytes:
    """Little-endian, grey or (2) RGB; a strip that stands twice is stored once."""
    at = 8 + 2 + 9 * 12 + 4 + 8 * len(strips)
    places: dict[bytes, int] = {}
    body = b""
    for strip in strips:
        if strip not in places:
            places[strip] = at + len(body)
            body += strip
    count = len(strips)
    arrays = struct.pack(f"<{2 * count}I", *(places[s] for s in strips), *map(len, strips))
    base = at - 8 * count
    tags = [(256, side), (257, side * count), (258, 8), (259, compression)]
    tags.append((262, photometric))
    rows = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    rows += [
        struct.pack("<HHII", 273, 4, count, base),
        struct.pack("<HHII", 277, 4, 1, 3 if photometric == 2 else 1),
        struct.pack("<HHII", 278, 4, 1, side),
        struct.pack("<HHII", 279, 4, count, base + 4 * count),
    ]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + b"".join(rows) + bytes(4) + arrays + body


def test_strips_that_would_take_minutes_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check(plain_tiff(8, [zlib.compress(bytes(64)), zlib.compress(b"a" * 64)]))
    with pytest.raises(jpeg_checks.Damaged, match="overlap"):
        check(plain_tiff(8, [zlib.compress(bytes(64))] * 500))
    monkeypatch.setattr(tiff_checks, "MAX_TILE_PIXELS", 4096)
    with pytest.raises(jpeg_checks.Damaged, match="larger than the image"):
        check(plain_tiff(8, [zlib.compress(bytes(3 * 2**20)), zlib.compress(b"a" * 64)]))
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG")
    with pytest.raises(jpeg_checks.Damaged, match="larger than the image"):
        check(plain_tiff(7, [buffer.getvalue(), b"another"]))


def test_a_jpeg_of_another_colour_space_than_its_tags_is_refused() -> None:
    frame = Image.merge("RGB", [Image.new("L", (8, 8), grey) for grey in (200, 100, 50)])

    def encoded(**options: object) -> bytes:
        strips = []
        for comment in ("first", "second"):
            buffer = io.BytesIO()
            frame.save(buffer, "JPEG", quality=100, comment=comment, **options)
            strips.append(buffer.getvalue())
        return plain_tiff(7, strips, photometric=2)

    with pytest.raises(jpeg_checks.Unverifiable, match=r"RGB.*YCbCr"):
        check(encoded())  # JFIF's marker; by the tags alone it were (124, 75, 182)
    sound = encoded(keep_rgb=True)
    check(sound)
    with formats.opened(sound) as image:
        pixel = formats.stored_pixels(image)[0].getpixel((0, 0))
    assert pixel == pytest.approx((200, 100, 50), abs=1)

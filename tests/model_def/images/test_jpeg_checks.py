"""Sound JPEGs of every kind pass; what libjpeg fills up with grey does not."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from model_def.images import jpeg_checks

NOISE = np.random.default_rng(7).integers(0, 256, (90, 121), dtype=np.uint8)
PICTURE = Image.fromarray(NOISE)
END = b"\xff\xd9"


def encode(mode: str = "L", **options: object) -> bytes:
    buffer = io.BytesIO()
    PICTURE.convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def scan_starts(data: bytes) -> list[int]:
    """Where its scans' markers begin; in coded data a 0xFF is followed by 0."""
    return [found.start() for found in re.finditer(b"\xff\xda", data)]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {}),
        ("L", {"optimize": True, "restart_marker_blocks": 5}),
        ("L", {"exif": b"Exif\0\0" + b"\xff\xda" * 500 + END}),
        ("L", {"quality": 1}),
        *(("RGB", {"subsampling": sampling}) for sampling in (0, 1, 2)),
        ("RGB", {"keep_rgb": True}),
        ("CMYK", {}),
    ],
)
def test_an_intact_file_passes(mode: str, options: dict[str, object], progressive: bool) -> None:
    data = encode(mode, progressive=progressive, **options)
    jpeg_checks.check(data)
    jpeg_checks.check(data + b"\xff\xda" * 500 + b"a film behind the picture" + data)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_data_that_is_cut_zeroed_or_left_out_is_damage(mode: str, progressive: bool) -> None:
    data = encode(mode, progressive=progressive)
    begin, stop = scan_starts(data)[0] + 20, len(data) - 2
    for share in (0.1, 0.5, 0.9):
        at = begin + int(share * (stop - begin))
        with pytest.raises(jpeg_checks.Damaged):
            jpeg_checks.check(data[:at] + END)
        with pytest.raises(jpeg_checks.Damaged):
            jpeg_checks.check(data[:at])
    middle = (begin + stop) // 2
    with pytest.raises(jpeg_checks.Damaged):
        jpeg_checks.check(data[: middle - 500] + bytes(1000) + data[middle + 500 :])
    with pytest.raises(jpeg_checks.Damaged):
        jpeg_checks.check(data[: middle - 500] + data[middle + 500 :])


def test_a_progressive_file_that_ends_between_two_scans_is_damage() -> None:
    data = encode(progressive=True)
    starts = scan_starts(data)
    assert len(starts) == 6
    for start in starts[1:]:
        with pytest.raises(jpeg_checks.Damaged, match="lacks scans"):
            jpeg_checks.check(data[:start] + END)


def test_scans_of_the_picture_are_counted_not_bytes_in_it_or_behind_it() -> None:
    data = encode("RGB", progressive=True, comment=b"\xff\xda" * 200)
    assert jpeg_checks.count_scans(data + b"\xff\xda" * 200) == 10
    scan = data[scan_starts(data)[-1] : -2]
    with pytest.raises(jpeg_checks.TooManyScans, match="101 scans; the limit is 100"):
        jpeg_checks.check(data[:-2] + scan * 91 + END)


def test_scan_parameters_that_cameras_write_wrongly_are_no_damage() -> None:
    data = bytearray(encode())
    parameters = scan_starts(data)[0] + 7
    assert data[parameters : parameters + 3] == b"\x00\x3f\x00"
    data[parameters : parameters + 3] = bytes(3)
    jpeg_checks.check(bytes(data))
    assert (
        np.asarray(Image.open(io.BytesIO(data))) == np.asarray(Image.open(io.BytesIO(encode())))
    ).all()


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2) + payload


@pytest.mark.parametrize(
    "metadata",
    [
        segment(0xE2, b"ICC_PROFILE\0\x03\x02of two parts the third"),
        segment(0xE0, b"JFIF\0\x02\x01\0\0\1\0\1\0\0"),
        segment(0xFE, b"\xff\xd9 \xff\xda"),
        b"\xff\xff\xff",  # fill bytes
    ],
)
def test_odd_metadata_is_no_damage(metadata: bytes) -> None:
    data = encode()
    jpeg_checks.check(data[:2] + metadata + data[2:])


@pytest.mark.parametrize("padding", [bytes(100), b"\xff\x00" * 50, b"\xff" * 9, b"\xff\xd0"])
def test_padding_before_the_end_marker_is_no_damage(padding: bytes) -> None:
    data = encode()
    jpeg_checks.check(data[:-2] + padding + END)
    with pytest.raises(jpeg_checks.Damaged):  # but does not stand for data that are not there
        jpeg_checks.check(data[:-400] + padding + END)
    with pytest.raises(jpeg_checks.Damaged, match="extraneous"):
        jpeg_checks.check(data[:-2] + b"remains" * 5 + padding + END)


def test_a_scan_header_that_is_cut_short_is_damage() -> None:
    data = encode()
    at = scan_starts(data)[0]
    with pytest.raises(jpeg_checks.Damaged, match="scan header"):
        jpeg_checks.check(data[:at] + segment(0xDA, b"") + END)


def test_what_the_warning_interface_does_not_take_is_refused() -> None:
    with pytest.raises(jpeg_checks.Unverifiable, match="subsampling"):
        jpeg_checks.check(encode("CMYK", subsampling=2))

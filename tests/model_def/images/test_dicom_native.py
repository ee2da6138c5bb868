"""Layouts of native pixels, and what says how the data set is encoded."""

import struct

import numpy as np
import pytest
from pydicom import uid

from handlers.errors import RowError, UnreadableImage, UnsupportedImage
from model_def.images.decode import decode
from tests.handlers.dicom_frames import planes, ybr
from tests.handlers.dicoms import COLOUR, GREY, dataset, write

EXPLICIT, IMPLICIT = uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian


def odd(frames: int) -> np.ndarray:
    """Frames of 5 x 7 in grey, as RGB: (N, 5, 7, 3); neighbours share no grey."""
    grey = np.arange(frames * 35, dtype=np.uint8).reshape(frames, 5, 7) * 2
    return np.repeat(grey[..., None], 3, axis=-1)


def pairs(luminances: list[int]) -> bytes:
    """Y1 Y2 Cb Cr of grey, an even number of them."""
    both = zip(luminances[::2], luminances[1::2], strict=True)
    return b"".join(bytes([first, second, 128, 128]) for first, second in both)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("form", ["full", "full in planes", "padded rows", "rows run on"])
@pytest.mark.parametrize("syntax", [EXPLICIT, uid.ExplicitVRBigEndian], ids=["little", "big"])
def test_422_of_odd_width_by_its_length(form: str, frames: int, syntax: uid.UID) -> None:
    pixels = odd(frames)
    made = dataset(pixels if frames > 1 else pixels[0], "YBR_FULL_422", frames=frames)
    rows = pixels[..., 0].tolist()
    run_on = [[grey for row in frame for grey in row] for frame in rows]
    if form == "padded rows":  # the last pixel of a row twice
        value = b"".join(pairs([*row, row[-1]]) for frame in rows for row in frame)
    elif form == "rows run on":
        value = b"".join(pairs([*frame, frame[-1]]) for frame in run_on)
    else:
        made.PlanarConfiguration = int(form == "full in planes")
        samples = ybr(pixels)
        value = (planes(samples) if form == "full in planes" else samples).tobytes()
    made.PixelData = value + b"\0" * (len(value) % 2)
    for number, frame in enumerate(pixels):
        decoded = decode(write(made, syntax), number)
        assert (decoded.grey_HW == frame[..., 0]).all()
        assert decoded.warnings == (("ybr_422_stored_in_full",) if "full" in form else ())


def test_422_that_fits_no_layout_is_refused() -> None:
    made = dataset(odd(1)[0], "YBR_FULL_422")
    for length in (70, 76, 82, 104, 108):  # 72: run on, 80: padded, 105: in full
        made.PixelData = bytes(length)
        with pytest.raises(UnreadableImage, match=r"PixelData has .* YBR_FULL_422"):
            decode(write(made))
    made.PixelData, made.PlanarConfiguration = bytes(80), 1
    with pytest.raises(UnsupportedImage, match="PlanarConfiguration is 1"):
        decode(write(made))


def test_pixels_that_are_too_few_or_too_many() -> None:
    loop = np.stack([GREY, 255 - GREY])
    made = dataset(loop, "MONOCHROME2", frames=2)
    made.PixelData = loop.tobytes() + loop.tobytes()[: GREY.size]
    decoded = decode(write(made), 1)  # three frames where the header has two
    assert (decoded.grey_HW == loop[1]).all()
    assert decoded.warnings == ("pixel_data_too_long",)
    made.PixelData = loop.tobytes() + bytes(10)  # where does the second begin?
    with pytest.raises(UnreadableImage, match=r"PixelData has .* multiple"):
        decode(write(made), 1)
    made.PixelData = loop.tobytes()[:-2]
    with pytest.raises(UnreadableImage, match=r"382 bytes.* 384"):
        decode(write(made), 0)


def test_a_missing_planar_configuration_is_refused_where_it_matters() -> None:
    made = dataset(COLOUR, "RGB")
    del made.PlanarConfiguration
    with pytest.raises(UnsupportedImage, match="PlanarConfiguration"):
        decode(write(made))


def test_16_bits_of_ybr_are_converted_as_8() -> None:
    made = dataset(ybr(COLOUR).astype(np.uint16) * 256 + 7, "YBR_FULL")
    assert np.abs(np.asarray(decode(write(made)).colour).astype(int) - COLOUR).max() <= 1


def relabelled(file: bytes, before: str, after: str) -> bytes:
    """The file with another transfer syntax in its meta group."""
    text = before.encode() + b"\0" * (len(before) % 2)
    value = after.encode() + b"\0" * (len(after) % 2)
    at = file.index(text) - 2
    changed = file[:at] + struct.pack("<H", len(value)) + value + file[at + 2 + len(text) :]
    length = changed.index(struct.pack("<HH2sH", 2, 0, b"UL", 4)) + 8
    (group,) = struct.unpack("<I", changed[length : length + 4])
    group += len(value) - len(text)
    return changed[:length] + struct.pack("<I", group) + changed[length + 4 :]


NATIVE = (EXPLICIT, IMPLICIT, uid.ExplicitVRBigEndian)


@pytest.mark.parametrize("real", NATIVE, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("stated", NATIVE, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("bits", [8, 16])
def test_the_first_element_decides_how_the_data_are_encoded(
    real: uid.UID, stated: uid.UID, bits: int
) -> None:
    pixels = GREY.astype(f"u{bits // 8}") * (257 if bits == 16 else 1)
    file = relabelled(write(dataset(pixels, "MONOCHROME2"), real), real, stated)
    decoded = decode(file)
    assert (decoded.grey_HW == GREY).all()
    assert decoded.warnings == (() if real == stated else ("transfer_syntax_contradicted",))


def test_compression_that_the_syntax_and_the_pixels_see_otherwise_is_refused() -> None:
    file = write(dataset(GREY, "MONOCHROME2"))
    for stated in (uid.JPEGBaseline8Bit, uid.RLELossless):
        with pytest.raises(UnsupportedImage, match="TransferSyntaxUID and PixelData"):
            decode(relabelled(file, EXPLICIT, stated))
    with pytest.raises(UnsupportedImage, match="TransferSyntaxUID"):
        decode(relabelled(file, EXPLICIT, "1.2.3"))


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
def test_a_file_without_preamble_or_meta_group(syntax: uid.UID) -> None:
    file = write(dataset(GREY, "MONOCHROME2"), syntax)
    decoded = decode(file[132:])  # no preamble
    assert (decoded.grey_HW == GREY).all()
    assert decoded.warnings == ()
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    data_set = file[file.index(struct.pack(f"{order}HH", 0x0008, 0x0016)) :]
    for headless in (data_set, file[:132] + data_set):
        decoded = decode(headless)
        assert (decoded.grey_HW == GREY).all()
        assert decoded.warnings == ("transfer_syntax_assumed",)


def test_what_is_no_dicom_is_not_taken_for_it() -> None:
    for data in (b"", b"\x08\0", b"\x08\0\x05\0\xff\xff\xff\xff", b"GIF89a-------"):
        with pytest.raises(RowError, match="unsupported format"):
            decode(data)

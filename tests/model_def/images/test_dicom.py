import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.pixels.common import CoderBase
from pydicom.sequence import Sequence

from handlers.errors import (
    InvalidFrame,
    MissingDecoder,
    RowError,
    UnreadableImage,
    UnsupportedImage,
)
from handlers.images.prepare import prepare
from handlers.requests import ScoringRequest
from model_def.images.decode import decode
from model_def.images.dicom import header as dicom_header
from model_def.preprocessing import Preprocessing, RoI
from tests.handlers import dicoms
from tests.handlers.dicoms import COLOUR, GREY, compressed, dataset, encoded, region, write


def real(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path).read_bytes()


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R 601-2 by its definition, in whole numbers as Pillow documents it."""
    red, green, blue = (rgb[..., band].astype(np.int64) for band in range(3))
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("examples_ybr_color.dcm", 17),  # JPEG baseline, YBR_FULL_422, 30 frames
        ("examples_jpeg2k.dcm", None),
        ("examples_rgb_color.dcm", None),
        ("ExplVR_BigEnd.dcm", None),
        ("SC_rgb_rle_2frame.dcm", 1),
        ("SC_rgb_rle.dcm", None),
        ("SC_ybr_full_422_uncompressed.dcm", 0),
        ("SC_ybr_full_uncompressed.dcm", 0),
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", None),
        ("SC_rgb_small_odd_big_endian.dcm", None),
        ("US1_J2KI.dcm", None),
        ("US1_UNCR.dcm", None),
        ("color3d_jpeg_baseline.dcm", 60),
    ],
)
def test_colour_files_give_the_pixels_of_the_reference(name: str, frame: int | None) -> None:
    rgb = pixel_array(get_testdata_file(name, download=False), index=frame or 0)
    decoded = decode(real(name), frame)
    assert decoded.colour is not None
    assert (np.asarray(decoded.colour) == rgb).all()
    assert (decoded.grey_HW == luma(rgb)).all()


@pytest.mark.parametrize(
    "name",
    ["examples_palette.dcm", "OBXXXX1A.dcm", "OBXXXX1A_rle_2frame.dcm", "gdcm-US-ALOKA-16.dcm"],
)
def test_palettes_give_the_colours_of_the_reference(name: str) -> None:
    file = pydicom.dcmread(get_testdata_file(name, download=False))
    rgb = apply_color_lut(pixel_array(file, index=0), file)
    rgb = (rgb >> 8).astype(np.uint8) if rgb.dtype == np.uint16 else rgb
    assert (np.asarray(decode(real(name), 0).colour) == rgb).all()


@pytest.mark.parametrize(
    ("little", "big"),
    [
        ("gdcm-US-ALOKA-16.dcm", "gdcm-US-ALOKA-16_big.dcm"),  # segmented palette, 16 bits
        ("OBXXXX1A.dcm", "OBXXXX1A_expb.dcm"),
        ("MR_small.dcm", "MR_small_bigendian.dcm"),
        ("MR_small.dcm", "MR_small_RLE.dcm"),
        ("MR_small.dcm", "MR_small_jp2klossless.dcm"),
    ],
)
def test_the_encoding_does_not_change_the_pixels(little: str, big: str) -> None:
    assert (decode(real(little)).grey_HW == decode(real(big)).grey_HW).all()


def test_deflated_grey_of_8_bits_is_as_stored() -> None:
    stored = pixel_array(pydicom.dcmread(get_testdata_file("image_dfl.dcm", download=False)))
    assert (decode(real("image_dfl.dcm")).grey_HW == stored).all()


def test_every_kind_by_hand() -> None:
    files = dicoms.all_kinds()
    for name in ("grey", "deflated"):
        assert (decode(files[name]).grey_HW == GREY).all(), name
    assert (decode(files["implicit"]).grey_HW == 255 - GREY).all()  # MONOCHROME1
    for name in ("big endian", "rle", "jpeg 2000"):
        assert (np.asarray(decode(files[name]).colour) == COLOUR).all(), name
    palette = np.asarray(decode(files["palette"]).colour)
    index = GREY.astype(int)
    assert (palette == np.stack([index, 255 - index, index * index % 256], axis=-1)).all()
    for number, frame in enumerate([GREY, 255 - GREY, GREY.T.reshape(12, 16)]):
        assert (decode(files["loop"], number).grey_HW == frame).all()
        with Image.open(io.BytesIO(encoded(frame, "JPEG", quality=95))) as image:
            expected = np.asarray(image)
        for name in ("jpeg loop", "jpeg loop without table"):
            assert (decode(files[name], number).grey_HW == expected).all()


def grey_of(values: list[int], kind: type = np.uint16, **elements: object) -> list[int]:
    pixels = np.array([values], kind)
    return decode(write(dataset(pixels, "MONOCHROME2", **elements))).grey_HW[0].tolist()


def test_16_bits_become_8_by_the_range_of_bits_stored_never_by_the_image() -> None:
    assert grey_of([0, 257, 65535]) == [0, 1, 255]
    assert grey_of([0, 2048, 4095], BitsStored=12, HighBit=11) == [0, 128, 255]  # 127.53
    assert grey_of([-32768, 0, 32767], np.int16) == [0, 128, 255]  # 127.50
    assert grey_of([7, 7, 7]) == [0, 0, 0]


def test_a_window_is_applied() -> None:
    # LINEAR (PS3.3, C.11.2.1.2): 0 up to 99.5 - 49.5 = 50, full from 149 on.
    window = {"WindowCenter": 100, "WindowWidth": 100}
    assert grey_of([0, 50, 83, 149, 9999], **window) == [0, 0, 85, 255, 255]
    assert grey_of([0, 50, 83, 149, 255], np.uint8, **window) == [0, 0, 85, 255, 255]
    # The rescale comes first: 2 x 91 - 99 = 83.
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -99}
    assert grey_of([91], **window, **rescale) == [85]
    # A negative slope turns dark into bright, with a window and without.
    assert grey_of([17], RescaleSlope=-1, RescaleIntercept=100, **window) == [85]
    assert grey_of([0, 65535], RescaleSlope=-1, RescaleIntercept=0) == [255, 0]
    # The first of several windows is the default.
    assert grey_of([83], WindowCenter=[100, 5], WindowWidth=[100, 5]) == [85]


def test_a_voi_lut_is_applied() -> None:
    item = pydicom.Dataset()
    item.LUTDescriptor = [4, 10, 12]
    item.add_new("LUTData", "US", [0, 1365, 2730, 4095])
    lut = {"VOILUTSequence": Sequence([item]), "BitsStored": 12, "HighBit": 11}
    assert grey_of([3, 10, 11, 12, 13, 99], **lut) == [0, 0, 85, 170, 255, 255]


def test_a_loop_needs_a_frame_that_it_has() -> None:
    loop = dicoms.all_kinds()["jpeg loop"]
    with pytest.raises(InvalidFrame, match="0 to 2") as caught:
        decode(loop)
    assert (caught.value.status, caught.value.field) == (422, "frame")
    with pytest.raises(InvalidFrame, match="0 to 2"):
        decode(loop, 3)
    for still in (dicoms.all_kinds()["grey"], encoded(GREY, "JPEG")):
        with pytest.raises(InvalidFrame):
            decode(still, 1)
        assert decode(still, 0).grey_HW.shape == decode(still).grey_HW.shape


def test_only_the_frame_asked_for_is_decoded() -> None:
    made = dataset(np.stack([GREY] * 3), "MONOCHROME2", frames=3)
    frames = [b"no JPEG at all", encoded(GREY, "JPEG", quality=95), b"nor this"]
    file = compressed(made, frames, uid.JPEGBaseline8Bit)
    assert abs(decode(file, 1).grey_HW.astype(int) - GREY).mean() < 5
    with pytest.raises(UnreadableImage):
        decode(file, 0)


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("MR_small_jpeg_ls_lossless.dcm", "JPEG-LS Lossless"),
        ("SC_rgb_jpeg_gdcm.dcm", "JPEG Lossless"),
        ("JPEG-lossy.dcm", "JPEG Extended"),
    ],
)
def test_compression_that_needs_a_package_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, syntax: str
) -> None:
    installed = CoderBase.available_plugins.fget
    only = property(lambda coder: [it for it in installed(coder) if it == "pillow"])
    monkeypatch.setattr(CoderBase, "available_plugins", only)  # the extra `dicom` brings pyjpegls
    with pytest.raises(MissingDecoder, match=f"{syntax}.*pylibjpeg.*python-gdcm") as caught:
        decode(real(name))
    assert (caught.value.status, caught.value.code) == (415, "missing_decoder")


@pytest.mark.parametrize(
    ("elements", "error"),
    [
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, UnsupportedImage),
        ({"HighBit": 5}, UnsupportedImage),
        ({"PhotometricInterpretation": "ARGB"}, UnsupportedImage),
        ({"PhotometricInterpretation": "RGB"}, UnreadableImage),
        ({"ModalityLUTSequence": Sequence([pydicom.Dataset()])}, UnsupportedImage),
        ({"RedPaletteColorLookupTableDescriptor": [1, 0, 8]}, UnsupportedImage),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, UnreadableImage),
        ({"Rows": 13}, UnreadableImage),  # more pixels than there are
    ],
)
def test_what_is_not_taken(elements: dict[str, object], error: type[RowError]) -> None:
    with pytest.raises(error):
        decode(write(dataset(GREY, "MONOCHROME2", **elements)))


def test_a_video_and_a_report_are_no_images() -> None:
    video = compressed(dataset(COLOUR, "YBR_FULL_422"), [b"\0\0\1\xb3"], uid.MPEG2MPML)
    for file in (video, real("reportsi.dcm")):
        with pytest.raises(UnsupportedImage):
            decode(file)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", list(dicoms.all_kinds()))
def test_a_file_cut_short_is_refused(name: str, share: float) -> None:
    data = dicoms.all_kinds()[name]
    with pytest.raises(RowError):
        decode(data[: int(share * len(data))], 2 if "loop" in name else 0)


def warnings_of(file: bytes, roi: RoI | None) -> tuple[RoI, set[str]]:
    prepared = prepare(ScoringRequest(file, roi, None), Preprocessing(size=32))
    return prepared.roi, set(prepared.warnings)


TISSUE = region(1, 1, 2, 1, 13, 10)
EVERYTHING = RoI(0, 0, 16, 12)


@pytest.mark.parametrize(
    ("regions", "roi", "warning"),
    [
        ([TISSUE, region(3, 3, 0, 0, 15, 11)], RoI(2, 1, 14, 11), "ultrasound_region_used"),
        ([TISSUE, region(1, 1, 0, 0, 99, 9)], RoI(2, 1, 14, 11), "ultrasound_region_used"),
        ([TISSUE, region(1, 1, 0, 0, 5, 5)], EVERYTHING, "whole_frame"),  # which of the two?
        ([region(1, 1, 0, 0, 16, 11)], EVERYTHING, "whole_frame"),  # exceeds the frame by one
        ([region(2, 1, 0, 0, 9, 9)], EVERYTHING, "whole_frame"),  # M-mode
        ([pydicom.Dataset()], EVERYTHING, "whole_frame"),
        ([], EVERYTHING, "whole_frame"),
    ],
)
def test_the_one_usable_region_stands_in_for_a_roi(
    regions: list[pydicom.Dataset], roi: RoI, warning: str
) -> None:
    file = write(dataset(GREY, "MONOCHROME2", SequenceOfUltrasoundRegions=Sequence(regions)))
    used, warnings = warnings_of(file, None)
    assert used == roi
    assert warnings & {"ultrasound_region_used", "whole_frame"} == {warning}
    used, warnings = warnings_of(file, RoI(1, 1, 9, 9))
    assert used == (1, 1, 9, 9)
    assert not warnings


def test_colour_flow_in_the_roi_shows_by_region_or_by_pixels() -> None:
    flow = Sequence([region(1, 2, 8, 0, 15, 11)])
    file = write(dataset(GREY, "MONOCHROME2", SequenceOfUltrasoundRegions=flow))
    assert "colour_doppler" in warnings_of(file, RoI(0, 0, 9, 12))[1]
    assert "colour_doppler" not in warnings_of(file, RoI(0, 0, 8, 12))[1]
    doppler = np.repeat(GREY[..., None], 3, axis=2)
    doppler[:, 8:] = (200, 30, 20)
    file = write(dataset(doppler, "RGB"))
    assert "colour_doppler" in warnings_of(file, RoI(0, 0, 9, 12))[1]
    assert "colour_doppler" not in warnings_of(file, RoI(0, 0, 8, 12))[1]


def test_another_modality_is_flagged() -> None:
    assert "modality_not_us" in decode(real("MR_small.dcm")).warnings
    assert decode(write(dataset(GREY, "MONOCHROME2", Modality=""))).warnings == ()


def test_the_reader_keeps_no_name() -> None:
    # What is never read cannot leak.
    assert not [
        tag for tag in dicom_header.KEYWORDS if tag.startswith(("Patient", "Study", "Institution"))
    ]


def test_a_jpeg_frame_that_libjpeg_fills_up_with_grey_is_refused() -> None:
    noise = np.random.default_rng(5).integers(0, 256, GREY.shape, dtype=np.uint8)
    made = dataset(noise, "MONOCHROME2")
    whole = encoded(noise, "JPEG")
    decode(compressed(made, [whole], uid.JPEGBaseline8Bit), None)
    cut_and_closed = whole[:-60] + b"\xff\xd9"
    file = compressed(made, [cut_and_closed], uid.JPEGBaseline8Bit)
    with pytest.raises(UnreadableImage, match="JPEG"):
        decode(file, None)

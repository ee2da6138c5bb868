"""Headers that are not as they should be: what is plain is taken, and said; the rest is named."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from handlers.errors import RowError, UnreadableImage, UnsupportedImage
from model_def.images.decode import decode
from tests.handlers.dicom_frames import encapsulated, j2k, jpeg
from tests.handlers.dicoms import COLOUR, GREY, dataset, write

WINDOW = {"WindowCenter": 100, "WindowWidth": 100}


def shown(values: list[int], kind: type = np.uint16, **elements: object) -> tuple[list[int], set]:
    """Greys of one row of pixels, and the warnings; an element that is None is left out."""
    made = dataset(np.array([values], kind), "MONOCHROME2")
    for keyword, value in elements.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    decoded = decode(write(made))
    return decoded.grey_HW[0].tolist(), set(decoded.warnings)


@pytest.mark.parametrize(
    ("elements", "greys", "warning"),
    [
        ({"RescaleSlope": "", "RescaleIntercept": ""}, [0, 83, 255], "rescale_ignored"),
        ({"RescaleSlope": 1, "RescaleIntercept": ""}, [0, 83, 255], "rescale_ignored"),
        ({"RescaleIntercept": 0}, [0, 83, 255], "rescale_ignored"),
        ({"WindowCenter": 7, "WindowWidth": 0}, [0, 83, 255], "window_ignored"),
        ({"WindowCenter": 7, "WindowWidth": 0.5}, [0, 83, 255], "window_ignored"),
        ({"WindowCenter": 7, "WindowWidth": ""}, [0, 83, 255], "window_ignored"),
        ({"WindowCenter": "", "WindowWidth": ""}, [0, 83, 255], None),
        # 83 is a third of the way from 50 to 149.
        ({**WINDOW, "VOILUTFunction": " linear "}, [0, 85, 255], "code_string_mended"),
        ({**WINDOW, "VOILUTFunction": ""}, [0, 85, 255], None),
        # From 50 to 150: 83 is at 0.33, which is 84.15.
        ({**WINDOW, "VOILUTFunction": "LINEAR_EXACT"}, [0, 84, 255], None),
        ({"WindowCenter": 83, "WindowWidth": 1}, [0, 255, 255], None),  # above 82.5
        ({"PhotometricInterpretation": "monochrome2"}, [0, 83, 255], "code_string_mended"),
        ({"PhotometricInterpretation": "MONOCHROME2\0\0"}, [0, 83, 255], None),
        ({"PhotometricInterpretation": "MONOCHROME2 "}, [0, 83, 255], None),
        ({"PixelRepresentation": None}, [0, 83, 255], "pixel_representation_assumed"),
        ({"PixelRepresentation": ""}, [0, 83, 255], "pixel_representation_assumed"),
        ({"BitsStored": None, "HighBit": None}, [0, 83, 255], "bits_stored_assumed"),
        ({"SamplesPerPixel": None}, [0, 83, 255], "samples_per_pixel_assumed"),
        ({"VOILUTSequence": Sequence([Dataset()])}, [0, 83, 255], "voi_lut_ignored"),
        ({"VOILUTSequence": Sequence([Dataset()]), **WINDOW}, [0, 85, 255], "voi_lut_ignored"),
        ({"VOILUTSequence": Sequence()}, [0, 83, 255], None),
        ({"ModalityLUTSequence": Sequence()}, [0, 83, 255], None),
        ({"NumberOfFrames": ""}, [0, 83, 255], None),
    ],
)
def test_what_is_plain_is_taken_and_reported(
    elements: dict[str, object], greys: list[int], warning: str | None
) -> None:
    expected = {warning} if warning else set()
    assert shown([0, 83, 255], np.uint8, **elements) == (greys, expected)


@pytest.mark.parametrize(
    ("elements", "tag"),
    [
        ({"RescaleSlope": 2, "RescaleIntercept": ""}, "RescaleIntercept"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "RescaleSlope"),
        ({"WindowCenter": 7, "WindowWidth": -9}, "WindowWidth"),
        ({**WINDOW, "VOILUTFunction": "CUBIC"}, "VOILUTFunction"),
        ({"PixelRepresentation": None}, "PixelRepresentation"),  # of 16 bits
        ({"PixelRepresentation": 2}, "PixelRepresentation"),
        ({"BitsStored": None}, "BitsStored"),
        ({"BitsAllocated": None}, "BitsAllocated"),
        ({"HighBit": 3}, "HighBit"),
        ({"PhotometricInterpretation": None}, "PhotometricInterpretation"),
        ({"PhotometricInterpretation": ""}, "PhotometricInterpretation"),
        ({"SamplesPerPixel": 3}, "SamplesPerPixel"),
        ({"Rows": 0}, "Rows"),
        ({"ModalityLUTSequence": Sequence([Dataset()])}, "ModalityLUTSequence"),
    ],
)
def test_what_is_not_plain_is_refused_by_its_tag(elements: dict[str, object], tag: str) -> None:
    with pytest.raises(RowError, match=f"image: .*{tag}") as caught:
        shown([0, 83, 255], **elements)
    assert "Error" not in str(caught.value)


@pytest.mark.parametrize("keyword", ["WindowWidth", "RescaleSlope", "NumberOfFrames"])
def test_text_where_a_number_should_be(keyword: str) -> None:
    made = dataset(GREY, "MONOCHROME2", **WINDOW, RescaleSlope=1, RescaleIntercept=0)
    made.NumberOfFrames = 1
    value = str(made[keyword].value)
    file = write(made)
    vr = made[keyword].VR.encode()
    tag = made[keyword].tag
    at = file.index(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + vr)
    file = file[: at + 8] + b"x" * len(value) + file[at + 8 + len(value) :]
    with pytest.raises(UnreadableImage, match=f"image: {keyword} "):
        decode(file)


def voi_lut(entries: list[int], vr: str, depth: int, *, first: int = 10) -> dict[str, object]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, depth])
    raw = bytes(entries) if vr == "bytes" else np.array(entries, "<u2").tobytes()
    item.add_new("LUTData", "US" if vr == "US" else "OW", entries if vr == "US" else raw)
    return {"VOILUTSequence": Sequence([item])}


def test_a_voi_lut_of_8_bits_in_words_or_in_bytes() -> None:
    entries, values, greys = [0, 85, 170, 255], [3, 10, 11, 12, 13, 99], [0, 0, 85, 170, 255, 255]
    for vr in ("US", "OW"):
        assert shown(values, **voi_lut(entries, vr, 8)) == (greys, set())
    assert shown(values, **voi_lut(entries, "bytes", 8)) == (greys, {"voi_lut_in_bytes"})


def test_a_voi_lut_of_8_bits_has_more_than_256_entries() -> None:
    """The index of such a table must not be taken modulo 256."""
    entries = [index // 4 for index in range(1024)]
    greys, warnings = shown([9, 10, 10 + 400, 10 + 1023, 4000], **voi_lut(entries, "US", 8))
    assert (greys, warnings) == ([0, 0, 100, 255, 255], set())


def test_a_voi_lut_whose_first_value_is_negative() -> None:
    item = voi_lut([0, 85, 170, 255], "US", 8, first=2**16 - 2)  # -2, written without sign
    assert shown([-9, -2, -1, 0, 1, 9], np.int16, **item)[0] == [0, 0, 85, 170, 255, 255]


@pytest.mark.parametrize(("entries", "depth"), [([0, 300], 8), ([0, 1], 17), ([0, 1], 0)])
def test_a_voi_lut_that_contradicts_itself(entries: list[int], depth: int) -> None:
    with pytest.raises(UnreadableImage, match="LUTDescriptor"):
        shown([0, 83, 255], **voi_lut(entries, "US", depth))


def test_colour_is_never_signed() -> None:
    for representation in (None, 1):
        made = dataset(COLOUR, "RGB", PixelRepresentation=representation)
        decoded = decode(write(made))
        assert (np.asarray(decoded.colour) == COLOUR).all()
        assert decoded.warnings == ("pixel_representation_assumed",)


def test_planes_are_no_matter_where_pixels_are_compressed() -> None:
    made = dataset(COLOUR, "RGB")
    del made.PlanarConfiguration
    file = encapsulated(made, [j2k(COLOUR, mixed=True)], "1.2.840.10008.1.2.4.90", "right")
    decoded = decode(file)
    assert (np.asarray(decoded.colour) == COLOUR).all()
    assert decoded.warnings == ()


@pytest.mark.parametrize(
    ("elements", "tag"),
    [
        ({"Rows": 11}, "Rows is 11, the compressed frame has 12"),
        ({"Columns": 17}, "Columns is 17, the compressed frame has 16"),
        ({"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}, "BitsStored is 12"),
    ],
)
def test_a_compressed_frame_that_the_header_contradicts(
    elements: dict[str, object], tag: str
) -> None:
    for syntax, frame in (("50", jpeg(GREY, "jfif")), ("90", j2k(GREY, mixed=False))):
        made = dataset(GREY, "MONOCHROME2", **elements)
        with pytest.raises(UnreadableImage, match=tag):
            decode(encapsulated(made, [frame], f"1.2.840.10008.1.2.4.{syntax}", "right"))
    made = dataset(COLOUR, "RGB")
    with pytest.raises(UnreadableImage, match="SamplesPerPixel is 3, the compressed frame has 1"):
        decode(encapsulated(made, [jpeg(GREY, "jfif")], "1.2.840.10008.1.2.4.50", "right"))


def test_lossless_grey_of_fewer_bits_is_shown_by_its_window_alone() -> None:
    frame = j2k(GREY, mixed=False)  # 8 bits, where the header has 12
    bits = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
    made = dataset(GREY, "MONOCHROME2", **bits, WindowCenter=64.5, WindowWidth=128)
    shown = decode(encapsulated(made, [frame], "1.2.840.10008.1.2.4.90", "right"))
    # From 0.5 on, full at 127.5: a window of 127 levels.
    expected = np.rint(((GREY - 0.5) / 127).clip(0, 1) * 255)
    assert (shown.grey_HW == expected).all()


def test_a_header_that_cannot_be_decided_by_pixels_is_refused() -> None:
    """Noise is neither grey RGB nor of neutral chrominance, and nothing else tells."""
    for tag in ("YBR_RCT", "YBR_ICT"):
        with pytest.raises(UnreadableImage, match=f"PhotometricInterpretation is {tag}"):
            decode(write(dataset(COLOUR, tag)))
    file = encapsulated(
        dataset(COLOUR, "RGB"), [jpeg(COLOUR, "123")], "1.2.840.10008.1.2.4.50", "right"
    )
    with pytest.raises(UnreadableImage, match="PhotometricInterpretation is RGB"):
        decode(file)


def test_unsupported_and_absent_pixels_are_named() -> None:
    made = dataset(GREY, "MONOCHROME2")
    del made.PixelData
    with pytest.raises(UnreadableImage, match="PixelData"):
        decode(write(made))
    made.add_new("FloatPixelData", "OF", bytes(4 * GREY.size))
    with pytest.raises(UnsupportedImage, match="not integers"):
        decode(write(made))

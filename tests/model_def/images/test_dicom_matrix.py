"""The same ramp in every form that a DICOM file may give it: its greys are the ramp's, each time.

What is expected is computed from the ramp, never by a decoder.
"""

from collections.abc import Callable

import numpy as np
import pytest
from pydicom import uid

from model_def.images.decode import decode
from tests.handlers import dicom_frames
from tests.handlers.dicom_frames import FLOW, TABLES, encapsulated, halved, j2k, jpeg, planes, ybr
from tests.handlers.dicoms import dataset, palette, write

RGB, GREY = dicom_frames.ramps(colour=True), dicom_frames.ramps(colour=False)
MONOCHROMES = ("MONOCHROME1", "MONOCHROME2")
YBR_TAGS = ("YBR_FULL", "YBR_FULL_422")
COLOURS = ("RGB", *YBR_TAGS, "YBR_RCT", "YBR_ICT")
SMEARED = [FLOW.start - 2, FLOW.start - 1, FLOW.start, FLOW.stop - 1, FLOW.stop, FLOW.stop + 1]
"""Columns where halved chrominance of two colours meets."""


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R 601 by its definition."""
    return np.asarray(rgb @ np.array([0.299, 0.587, 0.114]))


def difference(file: bytes, frame: np.ndarray, number: int, warnings: set[str]) -> np.ndarray:
    """How far a frame's greys and colours are from `frame`, (H, W); its warnings are those."""
    decoded = decode(file, number)
    assert set(decoded.warnings) == warnings
    if frame.ndim == 2:
        assert decoded.colour is None
        return np.asarray(abs(decoded.grey_HW - frame.astype(float)))
    assert decoded.colour is not None
    shown = np.asarray(decoded.colour).astype(float)
    # Greys by the colours as they are shown: half a level is the rounding's.
    assert abs(decoded.grey_HW - luma(shown)).max() <= 0.51
    return np.asarray(abs(shown - frame).max(axis=-1))


def header_of(frames: np.ndarray, tag: str, planar: int | None, **elements: object) -> object:
    made = dataset(frames if len(frames) > 1 else frames[0], tag, frames=len(frames), **elements)
    if planar is not None:
        made.PlanarConfiguration = planar
    return made


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ExplicitVRLittleEndian,
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    ],
    ids=lambda syntax: syntax.name,
)
@pytest.mark.parametrize(
    ("form", "planar"),
    [(form, None) for form in (*MONOCHROMES, "PALETTE COLOR")]
    + [(form, planar) for form in ("RGB", "YBR_FULL", "422 in full") for planar in (0, 1)]
    + [("YBR_FULL_422", 0)],
)
def test_native(syntax: uid.UID, form: str, planar: int | None) -> None:
    tag = "YBR_FULL_422" if form == "422 in full" else form
    for frames in (GREY, GREY[:1]) if planar is None else (RGB, RGB[:1]):
        samples = ybr(frames) if tag in YBR_TAGS else frames
        made = header_of(samples, tag, planar, **palette() if tag == "PALETTE COLOR" else {})
        if planar is not None:
            stored = halved(samples) if form == "YBR_FULL_422" else samples
            made.PixelData = (planes(samples) if planar else stored).tobytes()
        file = write(made, syntax)
        for number, frame in enumerate(frames.astype(int)):
            shown = 255 - frame if tag == "MONOCHROME1" else frame
            if tag == "PALETTE COLOR":
                shown = np.stack([frame, 255 - frame, frame * frame % 256], axis=-1)
            warnings = {"ybr_422_stored_in_full"} if form == "422 in full" else set()
            # To YBR and back: each is rounded, and that half a level comes back 1.772 times.
            assert difference(file, shown, number, warnings).max() <= (tag in YBR_TAGS)


def cross(
    source: np.ndarray,
    encode: Callable[[np.ndarray], bytes],
    syntax: uid.UID,
    tag: str,
    *,
    contradicted: bool = False,
    off: int = 0,
    bits: int = 8,
) -> None:
    """Planar configuration x offset table x one frame and a loop, of one compressed form."""
    for frames in (source, source[:1]):
        encoded = [encode(frame) for frame in frames]
        loop = len(frames) > 1
        wrong = {"absolute", "shifted", *(("zeros", "one entry") if loop else ())}
        for planar in (None,) if frames.ndim == 3 else (0, 1):
            for table in TABLES:
                header = header_of(frames.astype(f"u{bits // 8}"), tag, planar)
                file = encapsulated(header, encoded, syntax, table)
                warnings = {"colour_space_contradicted"} if contradicted else set()
                warnings |= {"offset_table_ignored"} if table in wrong else set()
                for number in {0, len(frames) - 1}:
                    frame = frames[number].astype(int)
                    shown = 255 - frame if tag == "MONOCHROME1" else frame
                    found = difference(file, shown, number, warnings)
                    if off and frames.ndim == 4:
                        found[:, SMEARED] = 0
                    assert found.max() <= off, (planar, table, number)


@pytest.mark.parametrize("tag", MONOCHROMES)
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_rle(tag: str, bits: int) -> None:
    def encode(frame: np.ndarray) -> bytes:
        return dicom_frames.rle(frame if bits == 8 else frame.astype(np.uint16) * 257)

    cross(GREY, encode, uid.RLELossless, tag, bits=bits)


@pytest.mark.parametrize("tag", MONOCHROMES)
def test_grey_jpeg_and_jpeg_2000(tag: str) -> None:
    cross(GREY, lambda frame: jpeg(frame, "jfif"), uid.JPEGBaseline8Bit, tag, off=1)
    cross(GREY, lambda frame: j2k(frame, mixed=False), uid.JPEG2000Lossless, tag)


@pytest.mark.parametrize("tag", COLOURS)
def test_colour_rle(tag: str) -> None:
    """A segment a sample; transforms of JPEG 2000 tell nothing here, and the grey pixels do."""
    for is_ybr in (True, False) if tag in ("YBR_RCT", "YBR_ICT") else (tag in YBR_TAGS,):

        def encode(frame: np.ndarray, is_ybr: bool = is_ybr) -> bytes:
            return dicom_frames.rle(ybr(frame) if is_ybr else frame)

        contradicted = tag in ("YBR_RCT", "YBR_ICT")
        cross(RGB, encode, uid.RLELossless, tag, contradicted=contradicted, off=int(is_ybr))


@pytest.mark.parametrize("tag", COLOURS)
@pytest.mark.parametrize("kind", dicom_frames.JPEGS)
def test_colour_jpeg(kind: str, tag: str) -> None:
    is_ybr = "rgb" not in kind
    cross(
        RGB,
        lambda frame: jpeg(frame, kind),
        uid.JPEGBaseline8Bit,
        tag,
        contradicted=tag not in (YBR_TAGS if is_ybr else ("RGB",)),
        off=1,
    )


@pytest.mark.parametrize("tag", COLOURS)
@pytest.mark.parametrize("form", ["mixed", "RGB", "YBR"])
def test_colour_jpeg_2000(form: str, tag: str) -> None:
    fitting = {"mixed": ("RGB", "YBR_RCT", "YBR_ICT"), "RGB": ("RGB",), "YBR": YBR_TAGS}[form]
    cross(
        RGB,
        lambda frame: j2k(ybr(frame) if form == "YBR" else frame, mixed=form == "mixed"),
        uid.JPEG2000Lossless,
        tag,
        contradicted=tag not in fitting,
        off=int(form == "YBR"),
    )

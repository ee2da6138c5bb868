"""No path of a decoder works longer than its frame's bytes and pixels justify."""

import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import dcmread, read_dataset
from pydicom.sequence import Sequence

from handlers.errors import ImageTooLarge, RowError, UnreadableImage
from model_def import limits
from model_def.images.decode import decode
from model_def.images.dicom import decoders as dicom_decoders
from model_def.images.dicom import file as dicom_file
from tests.handlers.dicom_frames import encapsulated, j2k, rle
from tests.handlers.dicoms import GREY, dataset, encoded, write

CPU_SECONDS = 3.0
"""Far above what any of these takes, and far below what they took: it is CPU time of the process,
so that a loaded machine changes nothing."""


def decode_in_time(file: bytes) -> None:
    began = time.process_time()
    try:
        decode(file, 0)
    finally:
        assert time.process_time() - began < CPU_SECONDS


def rle_of(offsets: list[int], body: bytes, pixels: np.ndarray) -> bytes:
    header = struct.pack("<16I", len(offsets), *offsets, *[0] * (15 - len(offsets)))
    made = dataset(pixels, "RGB" if pixels.ndim == 3 else "MONOCHROME2")
    return encapsulated(made, [header + body], uid.RLELossless, "right")


NOTHING = b"\x80" * 2**23
"""PackBits that unpacks to nothing, byte by byte."""
COLOUR = np.repeat(GREY[..., None], 3, axis=-1)


@pytest.mark.parametrize(
    "offsets", [[64, 64, 64], [64, 2**22, 64], [2**22, 64, 2**22], [64, 2**30, 2**31], [0, 64, 99]]
)
def test_rle_segments_that_overlap_are_not_unpacked(
    offsets: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "frombytes", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(UnreadableImage, match="RLE segments"):
        decode_in_time(rle_of(offsets, NOTHING, COLOUR))


def test_rle_that_unpacks_to_nothing() -> None:
    with pytest.raises(UnreadableImage, match="Rows x Columns"):
        decode_in_time(rle_of([64], NOTHING, GREY))
    with pytest.raises(UnreadableImage, match="Rows x Columns"):
        decode_in_time(rle_of([64, 2**20, 2**21], NOTHING, COLOUR))
    # As much in front of the pixels: the pixels are there.
    whole = rle(GREY)
    file = rle_of([64], NOTHING + whole[64:], GREY)
    began = time.process_time()
    assert (decode(file).grey_HW == GREY).all()
    assert time.process_time() - began < CPU_SECONDS


def test_of_native_pixels_one_frame_is_read() -> None:
    loop = np.zeros((8000, 32, 64), np.uint8)
    loop[7000] = 9
    file = write(dataset(loop, "MONOCHROME2", frames=8000))
    del loop
    tracemalloc.start()
    try:
        assert (decode(file, 7000).grey_HW == 9).all()
        assert tracemalloc.get_traced_memory()[1] < 2**20  # of 16 MiB
    finally:
        tracemalloc.stop()


def codestream(**changed: int) -> bytes:
    """A JPEG 2000 frame of 2000 x 2000 in one byte a packet, with fields of its header changed."""
    made = bytearray(j2k(np.zeros((2000, 2000), np.uint8), mixed=False))
    size, style = made.index(b"\xff\x51"), made.index(b"\xff\x52")
    fields = {
        "tile": (size + 22, ">I"),
        "tile_height": (size + 26, ">I"),
        "layers": (style + 6, ">H"),
        "levels": (style + 9, ">B"),
        "block": (style + 10, ">B"),
        "block_height": (style + 11, ">B"),
    }
    for name, value in changed.items():
        at, kind = fields[name]
        made[at : at + struct.calcsize(kind)] = struct.pack(kind, value)
    return bytes(made)


def with_component_style() -> bytes:
    """The same with small blocks in the component's own style (COC), in the tile's header."""
    made = codestream()
    style, data = made.index(b"\xff\x52"), made.index(b"\xff\x93")
    levels = made[style + 9]
    own = b"\xff\x53" + struct.pack(">HBB5B", 9, 0, 0, levels, 0, 0, 0, made[style + 13])
    part = made.index(b"\xff\x90") + 6
    (length,) = struct.unpack(">I", made[part : part + 4])
    longer = struct.pack(">I", length + len(own) if length else 0)
    return made[:part] + longer + made[part + 4 : data] + own + made[data:]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: codestream(tile=8, tile_height=8), "62500 tiles"),
        (lambda: codestream(block=0, block_height=0), "code blocks"),
        (with_component_style, "code blocks"),
        (lambda: codestream(tile=50, tile_height=50, layers=65535), "packets"),
    ],
)
def test_jpeg_2000_that_is_small_and_costly(
    make: Callable[[], bytes], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = dataset(np.zeros((2000, 2000), np.uint8), "MONOCHROME2")
    decode_in_time(encapsulated(made, [codestream()], uid.JPEG2000, "right"))
    file = encapsulated(made, [make()], uid.JPEG2000, "right")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(ImageTooLarge, match=what):
        decode_in_time(file)


def test_the_boxes_of_a_jpeg_2000_file_are_not_walked_through() -> None:
    """A box of length 0 reaches to the file's end; who adds that length never ends."""
    boxed = encoded(GREY, "JPEG2000")
    signature = boxed[:12]
    file = signature + struct.pack(">I4s", 0, b"free") + boxed[12:]
    made = dataset(GREY, "MONOCHROME2")
    assert (decode(encapsulated(made, [file], uid.JPEG2000Lossless, "right")).grey_HW == GREY).all()


def test_jpeg_of_many_scans() -> None:
    many = encoded(np.zeros((64, 64), np.uint8), "JPEG", progressive=True)
    scan = many[many.rindex(b"\xff\xda") : -2]
    many = many[:-2] + scan * limits.MAX_SCANS + many[-2:]
    made = dataset(np.zeros((64, 64), np.uint8), "MONOCHROME2")
    with pytest.raises(ImageTooLarge, match="JPEG scans"):
        decode_in_time(encapsulated(made, [many], uid.JPEGBaseline8Bit, "right"))


def test_jpeg_ls_is_measured_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_decoders, "_check_decoder", lambda _: None)  # as if installed
    monkeypatch.setattr(dicom_decoders, "_by_pydicom", lambda *_: pytest.fail("decoded"))
    path = get_testdata_file("JPEGLSNearLossless_08.dcm", download=False)
    assert isinstance(path, str)
    real = dcmread(io.BytesIO(Path(path).read_bytes()))
    frame = get_frame(real.PixelData, 0, number_of_frames=1)
    at = frame.index(b"\xff\xf7")
    huge = frame[: at + 5] + struct.pack(">HH", 60_000, 60_000) + frame[at + 9 :]
    scan = frame.index(b"\xff\xda")
    many = frame[:scan] + frame[scan : scan + 10] * 200 + frame[scan:]
    made = dataset(np.zeros((real.Rows, real.Columns), np.uint8), "MONOCHROME2")
    for syntax in (uid.JPEGLSNearLossless, uid.JPEGLosslessSV1):
        with pytest.raises(UnreadableImage, match="the compressed frame has 60000"):
            decode_in_time(encapsulated(made, [huge], syntax, "right"))
        with pytest.raises(ImageTooLarge, match="JPEG scans"):
            decode_in_time(encapsulated(made, [many], syntax, "right"))


def test_deflated_data_that_inflate_to_nothing() -> None:
    whole = write(dataset(GREY, "MONOCHROME2"), uid.DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(whole[140:144], "little")
    for body in (b"\0\0\0\xff\xff" * 2**21, b"", b"\x07" * 9):
        with pytest.raises(UnreadableImage, match="deflated DICOM"):
            decode_in_time(whole[:start] + body)
    inflated = zlib.decompress(whole[start:], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    decode_in_time(whole[:start] + packer.compress(inflated) + packer.flush())


def test_a_loop_of_empty_fragments() -> None:
    made = dataset(GREY, "MONOCHROME2")
    with pytest.raises(ImageTooLarge, match="DICOM header"):
        decode_in_time(encapsulated(made, [b""] * 300_000, uid.JPEGBaseline8Bit, "empty"))


def test_elements_without_an_end_are_not_looked_for_again_and_again() -> None:
    made = write(dataset(GREY, "MONOCHROME2"))
    at = made.index(struct.pack("<HH2s", 0x0008, 0x0016, b"UI"))
    sequence = struct.pack("<HH2sHI", 8, 8, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    item += struct.pack("<HH2sHI", 9, 0x10, b"OB", 0, 0xFFFFFFFF)
    file = made[:at] + sequence + item * 2000 + bytes(2**22)
    reader = dicom_file.Reader(file)
    reader.seek(at)
    with pytest.raises(ImageTooLarge, match="DICOM header"):
        read_dataset(reader, False, True)
    assert reader.reads < 5_000  # of 8 KiB at most: the file twice is 1,000
    with pytest.raises(ImageTooLarge, match="DICOM header"):
        decode_in_time(file)


def test_a_long_table_of_many_fragments() -> None:
    fragments, frames = 150_000, 9_000
    table = np.r_[0, 8 * np.arange(fragments - frames + 1, fragments)].astype("<u4").tobytes()
    made = dataset(GREY, "MONOCHROME2", NumberOfFrames=frames)
    made.PixelData = struct.pack("<HHI", 0xFFFE, 0xE000, len(table)) + table
    made.PixelData += struct.pack("<HHI", 0xFFFE, 0xE000, 0) * fragments
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    with pytest.raises(UnreadableImage, match="RLE segments"):
        decode_in_time(write(made, uid.RLELossless))


def test_a_table_in_an_item_is_as_small_as_any_element() -> None:
    item = Dataset()
    item.LUTDescriptor = [0, 0, 8]
    item.add_new("LUTData", "OW", bytes(2**19))
    sequence = Sequence([item])
    sequence.is_undefined_length = True
    for undefined in (True, False):
        made = dataset(GREY, "MONOCHROME2", VOILUTSequence=Sequence([item]))
        made["VOILUTSequence"].is_undefined_length = undefined
        with pytest.raises(ImageTooLarge, match="header element"):
            decode_in_time(write(made))


def test_what_is_refused_names_no_exception() -> None:
    """Whatever a decoder raises, a client reads words."""
    rng = np.random.default_rng(3)
    made = dataset(GREY, "MONOCHROME2")
    for syntax, frame in (
        (uid.RLELossless, rle(GREY)),
        (uid.JPEGBaseline8Bit, encoded(GREY, "JPEG")),
        (uid.JPEG2000Lossless, j2k(GREY, mixed=False)),
    ):
        file = encapsulated(made, [frame], syntax, "right")
        for _ in range(150):
            broken = bytearray(file)
            for at in rng.integers(132, len(file), 6):
                broken[at] = rng.integers(256)
            try:
                decode(bytes(broken), 0)
            except RowError as refused:
                assert "Error" not in str(refused)
                assert "Exception" not in str(refused)

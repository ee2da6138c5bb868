"""Which fragments of encapsulated pixel data are a frame's."""

import struct

import numpy as np
import pytest
from pydicom import uid

from handlers.errors import UnreadableImage
from model_def.images.decode import decode
from tests.handlers.dicom_frames import j2k, jpeg, rle
from tests.handlers.dicoms import GREY, dataset, write

LOOP = np.stack([GREY, 255 - GREY, GREY.T.reshape(12, 16)])
ENCODERS = {
    uid.JPEGBaseline8Bit: lambda frame: jpeg(frame, "jfif"),
    uid.JPEG2000Lossless: lambda frame: j2k(frame, mixed=False),
    uid.RLELossless: rle,
}


def item(value: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value


END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def file_of(syntax: str, frames: int, *items: bytes) -> bytes:
    made = dataset(LOOP[:frames] if frames > 1 else LOOP[0], "MONOCHROME2", frames=frames)
    made.PixelData = b"".join(map(item, items))  # pydicom writes the end
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return write(made, syntax)


def cut(frame: bytes, pieces: int) -> list[bytes]:
    """A frame in fragments of even length."""
    size = len(frame) // pieces // 2 * 2
    frame += b"\0" * (len(frame) % 2)
    ends = [*(size * piece for piece in range(1, pieces)), len(frame)]
    return [frame[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def check(file: bytes, *warnings: str) -> None:
    for number, frame in enumerate(LOOP):
        decoded = decode(file, number)
        assert abs(decoded.grey_HW.astype(int) - frame).max() <= 1
        assert decoded.warnings == warnings


@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda syntax: syntax.name)
def test_frames_of_several_fragments(syntax: uid.UID) -> None:
    encoded = [
        cut(ENCODERS[syntax](frame), pieces) for frame, pieces in zip(LOOP, (2, 1, 3), strict=True)
    ]
    fragments = [fragment for frame in encoded for fragment in frame]
    starts = np.cumsum([0, *(sum(8 + len(part) for part in frame) for frame in encoded)])[:-1]
    table = np.asarray(starts, "<u4").tobytes()
    check(file_of(syntax, 3, table, *fragments))
    wrong = [
        np.asarray(entries, "<u4").tobytes() for entries in (0 * starts, starts[:1], starts + 8)
    ]
    # Every entry is a fragment's, but not a frame's first: the codestreams tell.
    every = np.cumsum([0, *(8 + len(part) for part in fragments)])
    wrong.append(np.asarray([0, every[1], every[3]], "<u4").tobytes())
    if syntax == uid.RLELossless:  # it has one fragment a frame, and nothing else that tells
        for bad in (b"", *wrong[:3]):
            with pytest.raises(
                UnreadableImage, match="NumberOfFrames is 3, PixelData has 6 fragments"
            ):
                decode(file_of(syntax, 3, bad, *fragments), 1)
        return
    check(file_of(syntax, 3, b"", *fragments))
    for bad in wrong:
        check(file_of(syntax, 3, bad, *fragments), "offset_table_ignored")


@pytest.mark.parametrize("syntax", list(ENCODERS)[:2], ids=lambda syntax: syntax.name)
def test_the_first_item_may_be_a_frame(syntax: uid.UID) -> None:
    encoded = [cut(ENCODERS[syntax](frame), 1)[0] for frame in LOOP]
    check(file_of(syntax, 3, *encoded))
    assert abs(decode(file_of(syntax, 1, encoded[0])).grey_HW.astype(int) - LOOP[0]).max() <= 1


@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda syntax: syntax.name)
def test_fragments_that_are_no_frames(syntax: uid.UID) -> None:
    encoded = [cut(ENCODERS[syntax](frame), 1)[0] for frame in LOOP]
    for frames, items in ((3, encoded[:2]), (2, encoded), (3, [])):
        with pytest.raises(UnreadableImage, match=rf"is {frames}, PixelData has {len(items)} frag"):
            decode(file_of(syntax, frames, b"", *items), 0)
    whole = file_of(syntax, 3, b"", *encoded)
    check(whole[: -len(END)])  # the end is not marked
    with pytest.raises(UnreadableImage, match="PixelData"):
        decode(whole[: -len(END) - 2], 2)
    with pytest.raises(UnreadableImage, match="PixelData"):
        decode(whole[: -len(END)] + bytes(range(8)), 0)


@pytest.mark.parametrize("syntax", list(ENCODERS)[:2], ids=lambda syntax: syntax.name)
def test_a_table_that_fits_but_hides_a_frame_is_refused(syntax: uid.UID) -> None:
    """NumberOfFrames and the table say two, the codestreams three."""
    encoded = [cut(ENCODERS[syntax](frame), 1)[0] for frame in LOOP]
    table = np.array([0, 8 + len(encoded[0])], "<u4").tobytes()
    with pytest.raises(UnreadableImage, match="NumberOfFrames is 2, PixelData has 3"):
        decode(file_of(syntax, 2, table, *encoded), 1)
    with pytest.raises(UnreadableImage, match="NumberOfFrames is 1, PixelData has 3"):
        decode(file_of(syntax, 1, bytes(4), *encoded), 0)

import io

import numpy as np
import pytest
from PIL import Image

from model_def import limits
from model_def.images.decode import decode
from model_def.images.errors import ImageTooLarge, UnreadableImage, UnsupportedImage
from tests.conftest import encode


def test_lossless_webp_gives_the_stored_pixels(frame: np.ndarray) -> None:
    assert (decode(encode(frame, "WEBP", lossless=True)).grey_HW == frame).all()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_stored_pixels(frame: np.ndarray, kind: str) -> None:
    assert (decode(encode(frame, kind)).grey_HW == frame).all()


def test_jpeg_gives_nearly_the_stored_pixels(frame: np.ndarray) -> None:
    smooth = np.tile(np.arange(120, dtype=np.uint8), (80, 1))
    assert abs(decode(encode(smooth, "JPEG", quality=95)).grey_HW.astype(int) - smooth).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_does_not_move_the_stored_frame(
    frame: np.ndarray, kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"lossless": True} if kind == "WEBP" else {}
    stored = decode(encode(frame, kind, **how))
    turned = decode(encode(frame, kind, exif=exif, **how))
    assert (turned.grey_HW == stored.grey_HW).all()
    assert turned.warnings == (() if orientation == 1 else ("exif_orientation_ignored",))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_cut_short_is_refused_not_filled_up(
    frame: np.ndarray, kind: str, share: float
) -> None:
    data = encode(frame, kind)
    with pytest.raises((UnreadableImage, UnsupportedImage)):
        decode(data[: int(share * len(data))])


@pytest.mark.parametrize("missing", [1, 8, 12, 20])
def test_a_png_without_its_end_is_refused_though_all_pixels_are_there(
    frame: np.ndarray, missing: int
) -> None:
    with pytest.raises(UnreadableImage, match="complete file"):
        decode(encode(frame)[:-missing])


def test_a_jpeg_that_libjpeg_fills_up_with_grey_is_refused(frame: np.ndarray) -> None:
    whole = encode(frame, "JPEG")
    cut_and_closed = whole[: 2 * len(whole) // 3] + b"\xff\xd9"
    filled = np.asarray(Image.open(io.BytesIO(cut_and_closed)))
    assert filled[-8:].std() < 1  # what Pillow gives, without a word
    with pytest.raises(UnreadableImage, match="JPEG"):
        decode(cut_and_closed)


def test_the_first_picture_of_a_jpeg_is_taken_whatever_lies_behind_it(frame: np.ndarray) -> None:
    first = encode(frame, "JPEG")
    alone = decode(first)
    assert alone.warnings == ()
    filmed = decode(first + b"\x00\x00\x00\x18ftypmp42" + b"\xff\xda\xff" * 10_000)
    assert (filmed.grey_HW == alone.grey_HW).all()
    assert filmed.warnings == ()
    several = encode(frame, "MPO", save_all=True, append_images=[Image.new("L", (40, 30))])
    second = several.rindex(b"\xff\xd8\xff")
    for data in (several, several[:second]):  # a program that cut the second kept the index
        listed = decode(data)
        assert (listed.grey_HW == alone.grey_HW).all()
        assert listed.warnings == ("further_pictures_ignored",)
    with pytest.raises(UnreadableImage, match="no end marker"):
        decode(several[: second // 2])


def test_formats_and_depths_that_are_not_taken(frame: np.ndarray) -> None:
    with pytest.raises(UnsupportedImage, match="PNG, JPEG, BMP, TIFF"):
        decode(b"GIF89a" + bytes(100))
    with pytest.raises(UnsupportedImage, match="8 or 16 bits"):
        decode(encode(frame.astype(np.float32), "TIFF"))
    frames = [Image.fromarray(frame)] * 2
    with pytest.raises(UnsupportedImage, match="several frames"):
        decode(encode(frame, "TIFF", save_all=True, append_images=frames))


def test_limits_are_checked_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = encode(np.zeros((7000, 7000), np.uint8))  # 49 Mpx in a few kB
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageTooLarge, match="7000 x 7000"):
        decode(bomb)
    with pytest.raises(ImageTooLarge, match="bytes"):
        decode(bytes(limits.MAX_BYTES + 1))

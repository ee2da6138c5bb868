"""A heat map drawn over a grey picture, with its scale, as a small PNG.

Colours come in bands, as on a map of heights, so that a place can be read off the scale below the
picture. Bands and greys share one palette of 256 colours: a paletted PNG is encoded several times
faster than one in true colour, and a heat map shall cost little beside the score.

Shapes in names: H, W of the picture as drawn; h, w of the map.
"""

from __future__ import annotations

import struct
import zlib
from functools import cache, lru_cache
from typing import NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from PIL import Image, ImageDraw, ImageFont

from model_def.preprocessing import Pixels, RoI

CROP_SIDE = 288  # pixels of the longer side of a crop as drawn: about that of the network's input
FRAME_SIDE = 384  # and of a whole frame
MIN_WIDTH = 288  # narrower pictures stand on a black ground, so that the scale can be read
LINE_HEIGHT = 16
BAR_HEIGHT = 11
BAR_GREY = 200  # the grey that the bar shows its colours over

Map = npt.NDArray[np.float32]


class _Colours(NamedTuple):
    """A palette, and which of its entries stands for each value over each grey."""

    index_VG: Pixels
    """Value of the map (0 to 255), grey (0 to 255) -> palette index."""
    plain_G: Pixels
    """Grey without colour -> palette index."""
    palette: bytes


# Lightness of a colour over black: a map must show within an anechoic lesion, too. Pure red and
# blue, of which the eye makes less, need more.
DARKEST, DARKEST_SIGNED = 0.4, 0.8
GREY_STEPS = 63  # greys where there is no colour; the eye does not see a step of 4 in speckle
OUTLINE = 255  # palette index of the lesion's box
_OUTLINE_RGB = (0, 255, 255)  # cyan: in neither scale near its end


def _colours(
    colours_B3: npt.NDArray[np.float64], opacities: list[float], steps: list[int], darkest: float
) -> _Colours:
    """Bands of equal width; each takes on the lightness of the greys below it, in so many steps.

    So the lesion's outline stays the lesion's and is not drawn by the edge of the colours.
    """
    palette = np.zeros((256, 3))
    index_NG = np.zeros((len(steps), 256), np.uint8)
    start = 0
    for band, (colour_3, opacity, count) in enumerate(
        zip(colours_B3, opacities, steps, strict=True)
    ):
        index_NG[band] = start + np.arange(256) * count // 256
        grey_n = np.linspace(0, 255, count)[:, None]
        colour_n3 = 255 * colour_3 * (darkest + (1 - darkest) / 255 * grey_n)
        palette[start : start + count] = (1 - opacity) * grey_n + opacity * colour_n3
        start += count
    assert start <= OUTLINE
    palette[OUTLINE] = _OUTLINE_RGB
    band_V = np.arange(256) * len(steps) // 256
    plain_G = index_NG[opacities.index(0.0)]
    return _Colours(index_NG[band_V], plain_G, palette.round().astype(np.uint8).tobytes())


def _magnitude_bands() -> tuple[npt.NDArray[np.float64], list[float]]:
    """Ten bands of a tenth: none below a tenth of the maximum, then blue to red.

    Blue to red as in the paper's figures, without the false edges of jet (Mikhailov 2019,
    https://research.google/blog/turbo-an-improved-rainbow-colormap-for-visualization/).
    """
    centres = (np.arange(10) + 0.5) / 10
    # The ends of turbo are so dark that they would be lost in a lesion.
    colours_B3 = matplotlib.colormaps["turbo"](0.08 + 0.82 * centres)[:, :3]
    return colours_B3, [0.0, *(0.25 + 0.45 * centres[1:])]


MAGNITUDE_BANDS = _magnitude_bands()
"""Colours and opacities of a map >= 0, from its lowest tenth to its highest."""


def _signed() -> _Colours:
    """Eleven bands from -max to max: blues for what lowers the logit, reds for what raises it."""
    centres = np.linspace(-1, 1, 11)
    colours_B3 = matplotlib.colormaps["bwr"](0.5 + 0.5 * np.sign(centres) * 0.85)[:, :3]
    opacities = [0.75 * abs(centre) for centre in centres]
    return _colours(colours_B3, opacities, [19] * 5 + [GREY_STEPS] + [19] * 5, DARKEST_SIGNED)


_MAGNITUDE = _colours(*MAGNITUDE_BANDS, [GREY_STEPS, *[32] * 3, *[16] * 6], DARKEST)
_SIGNED = _signed()


class Canvas:
    """A grey picture that any number of maps can be drawn over."""

    def __init__(self, grey_HW: Pixels, box: RoI, outline: RoI | None = None) -> None:
        """`box` is where maps go, `outline` the lesion's box to draw, in pixels of the picture."""
        self.grey_HW, self.box, self.outline = grey_HW, box, outline
        self.width = max(grey_HW.shape[1], MIN_WIDTH)
        self.left = (self.width - grey_HW.shape[1]) // 2

    @classmethod
    def of_crop(cls, crop_HW: Pixels) -> Canvas:
        """The crop in its own aspect, wholly under the map."""
        grey_HW, _ = _fit(crop_HW, CROP_SIDE)
        return cls(grey_HW, RoI(0, 0, grey_HW.shape[1], grey_HW.shape[0]))

    @classmethod
    def of_frame(cls, frame_HW: Pixels, box: RoI, roi: RoI) -> Canvas:
        """The stored frame with a map in `box`, the widened RoI, and the RoI itself outlined."""
        grey_HW, scale = _fit(frame_HW, FRAME_SIDE)
        return cls(grey_HW, _scaled(box, scale, grey_HW), _scaled(roi, scale, grey_HW))

    def draw(self, map_hw: Map, caption: str, *, signed: bool = False) -> bytes:
        """PNG of the picture with the map over it and the scale below, the caption line by line.

        The map is scaled by its own largest absolute value, which is written at the scale's end:
        colours compare places within one image, not images. A map that is zero everywhere leaves
        the picture grey.
        """
        colours = _SIGNED if signed else _MAGNITUDE
        peak = float(np.abs(map_hw).max())
        height, width = self.grey_HW.shape
        strip_HW = _strip(self.width, colours, caption, peak, signed)
        picture_HW = np.full((height + len(strip_HW), self.width), colours.plain_G[0])
        inside_HW = picture_HW[:height, self.left : self.left + width]
        x_min, y_min, x_max, y_max = self.box
        if peak == 0 or (x_max - x_min, y_max - y_min) != (width, height):
            inside_HW[:] = colours.plain_G.take(self.grey_HW)
        if peak > 0:
            scaled_hw = (map_hw / peak + 1) * 127.5 if signed else map_hw / peak * 255
            value_HW = _enlarged(scaled_hw.round().astype(np.uint8), x_max - x_min, y_max - y_min)
            grey_HW = self.grey_HW[y_min:y_max, x_min:x_max]
            inside_HW[y_min:y_max, x_min:x_max] = _look_up(colours.index_VG, value_HW, grey_HW)
        if self.outline:
            _draw_outline(inside_HW, self.outline)
        picture_HW[height:] = strip_HW
        return _png(picture_HW, colours.palette)


def overlay(crop_HW: Pixels, cam_hw: Map) -> bytes:
    """PNG of the crop with a Grad-CAM, or another map >= 0, over it; see `Canvas.draw`."""
    return Canvas.of_crop(crop_HW).draw(cam_hw, "")


def _png(index_HW: Pixels, palette: bytes) -> bytes:
    """A PNG of 8-bit palette indices (https://www.w3.org/TR/png-3/).

    ISA-L deflates in an eighth of the time that Pillow takes, and Pillow cannot be given another
    deflate.
    """
    height, width = index_HW.shape
    rows_HW = np.zeros((height, 1 + width), np.uint8)  # a row begins with its filter: 0, none
    rows_HW[:, 1:] = index_HW
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits, palette
    chunks = {
        b"IHDR": header,
        b"PLTE": palette,
        b"IDAT": isal_zlib.compress(rows_HW, 1),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )


def _fit(picture_HW: Pixels, side: int) -> tuple[Pixels, float]:
    """The picture with its longer side at `side` pixels, and by how much it was scaled."""
    height, width = picture_HW.shape
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # reducing_gap: a frame of many megapixels is first reduced by a whole number, which is fast.
    fitted = Image.fromarray(picture_HW).resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
    return np.asarray(fitted), scale


def _scaled(box: RoI, scale: float, picture_HW: Pixels) -> RoI:
    """The box in the fitted picture, at least one pixel a side."""
    height, width = picture_HW.shape
    x_min = min(round(box.x_min * scale), width - 1)
    y_min = min(round(box.y_min * scale), height - 1)
    x_max = min(max(round(box.x_max * scale), x_min + 1), width)
    y_max = min(max(round(box.y_max * scale), y_min + 1), height)
    return RoI(x_min, y_min, x_max, y_max)


def _enlarged(cells_hw: Pixels, width: int, height: int) -> Pixels:
    """What Pillow's bicubic `resize` gives upwards, within a step of 255, in a third of the time.

    Upwards Pillow takes the sum for each pixel by itself; here it is a product of matrices.
    """
    wide = Image.fromarray(cells_hw).resize((width, len(cells_hw)), Image.Resampling.BICUBIC)
    value_HW = _upwards(len(cells_hw), height) @ np.asarray(wide, np.float32)
    value_HW += 0.5  # round
    return value_HW.clip(0, 255, out=value_HW).astype(np.uint8)


@lru_cache(maxsize=256)
def _upwards(cells: int, height: int) -> Map:
    """Weight of each cell of a column for each pixel of it: (height, cells)."""
    columns = Image.fromarray(np.eye(cells, dtype=np.float32))
    return np.asarray(columns.resize((cells, height), Image.Resampling.BICUBIC))


def _look_up(index_VG: Pixels, value_HW: Pixels, grey_HW: Pixels) -> Pixels:
    """`index_VG[value_HW, grey_HW]` in a quarter of the time."""
    return index_VG.ravel().take((value_HW.astype(np.uint16) << 8) | grey_HW)


def _draw_outline(picture_HW: Pixels, box: RoI) -> None:
    """Two pixels wide, on the inside."""
    x_min, y_min, x_max, y_max = box
    for edge in (slice(x_min, x_min + 2), slice(max(x_min, x_max - 2), x_max)):
        picture_HW[y_min:y_max, edge] = OUTLINE
    for edge in (slice(y_min, y_min + 2), slice(max(y_min, y_max - 2), y_max)):
        picture_HW[edge, x_min:x_max] = OUTLINE


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=11)


@lru_cache(maxsize=256)
def _text(text: str) -> Pixels:
    """White on black, (LINE_HEIGHT, as wide as it gets)."""
    image = Image.new("L", (max(1, round(_font().getlength(text))), LINE_HEIGHT))
    ImageDraw.Draw(image).text((0, 0), text, font=_font(), fill=255)
    return np.asarray(image)


def _write(ground_HW: Pixels, line: int, left: int, text_HW: Pixels) -> None:
    """Write text on a line of the ground, cut at its right edge."""
    text_HW = text_HW[:, : ground_HW.shape[1] - left]
    ground_HW[line * LINE_HEIGHT :, left : left + text_HW.shape[1]][:LINE_HEIGHT] = text_HW


def _strip(width: int, colours: _Colours, caption: str, peak: float, signed: bool) -> Pixels:
    """Palette indices (height, width) of the scale as its colours look over a light grey.

    First line: the bar between its ends. Then what is shown. Last: what the scale is good for.
    """
    texts = [*caption.split("\n"), "colours relative to this map's own maximum"]
    grey_HW = np.zeros(((1 + len(texts)) * LINE_HEIGHT, width), np.uint8)
    low = _text(f"{-peak:.2g}" if signed and peak else "0")
    high = _text(f"{peak:+.2g}" if signed and peak else f"{peak:.2g}")
    bar_left, bar_right = low.shape[1] + 10, width - high.shape[1] - 10
    _write(grey_HW, 0, 4, low)
    _write(grey_HW, 0, bar_right + 6, high)
    for line, text in enumerate(texts, start=1):
        _write(grey_HW, line, 4, _text(text))
    strip_HW = colours.plain_G[grey_HW]
    value_W = np.linspace(0, 255, bar_right - bar_left).round().astype(np.uint8)
    strip_HW[3 : 3 + BAR_HEIGHT, bar_left:bar_right] = colours.index_VG[value_W, BAR_GREY]
    return strip_HW

"""LabelImg boxes as Pascal VOC XML or YOLO text, and their one conversion to the half-open RoI."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeVar
from xml.etree.ElementTree import Element, ElementTree, ParseError, SubElement, indent

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from model_def.preprocessing import RoI
from train.import_values import FormatError, number, whole

T = TypeVar("T", int, float)

_VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Drawn(NamedTuple):
    """The boxes of an annotation file, in its order, in pixels of the frame."""

    boxes: list[RoI]
    size: tuple[int | None, int | None]
    """Width and height of the frame that they were drawn on; None where the file does not say."""


class AnnotationError(ValueError):
    """An annotation file that cannot be read as one of LabelImg's two formats."""


def from_voc(x_min: int, y_min: int, x_max: int, y_max: int) -> RoI:
    """1-based inclusive corners -> 0-based half-open: the lower corners move by one."""
    return RoI(x_min - 1, y_min - 1, x_max, y_max)


def write_voc(path: Path, image_name: str, width: int, height: int, roi: RoI) -> None:
    """Write one box of class `lesion` the way LabelImg does."""
    root = Element("annotation")
    SubElement(root, "filename").text = image_name
    size = SubElement(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 1)):
        SubElement(size, tag).text = str(value)
    item = SubElement(root, "object")
    SubElement(item, "name").text = "lesion"
    box = SubElement(item, "bndbox")
    corners = (roi.x_min + 1, roi.y_min + 1, roi.x_max, roi.y_max)
    for tag, value in zip(_VOC_CORNERS, corners, strict=True):
        SubElement(box, tag).text = str(value)
    indent(root, "\t")
    ElementTree(root).write(path)


def read_voc(path: Path) -> Drawn:
    """What one annotation file holds; a `<size>` that is none, 0 for some tools, is unknown.

    Raises:
        AnnotationError: not XML, an XML bomb, or a box without its four whole numbers.
    """
    try:
        root: Element = defusedxml.ElementTree.fromstring(path.read_bytes())
        boxes = [
            from_voc(*(_given(whole(box.findtext(tag, ""))) for tag in _VOC_CORNERS))
            for box in root.iterfind("object/bndbox")
        ]
        return Drawn(boxes, (_side(root, "width"), _side(root, "height")))
    except (ParseError, DefusedXmlException, ValueError, LookupError, OSError) as error:
        raise AnnotationError(  # LookupError: an encoding that nobody knows
            f"{path.name}: not a LabelImg Pascal VOC box file ({type(error).__name__})"
        ) from error


def _side(root: Element, name: str) -> int | None:
    text = (root.findtext(f"size/{name}") or "").strip()
    return (int(text) or None) if text.isascii() and text.isdigit() and len(text) < 10 else None


def from_yolo(centre_x: float, centre_y: float, w: float, h: float, size: tuple[int, int]) -> RoI:
    """Centre and size as fractions of the frame -> pixels, half-open.

    `size` is the frame's (width, height) in pixels. Each edge is rounded to the nearest border
    between pixels (a half to the even one): the six decimals that LabelImg writes are off by less
    than 0.001 pixel in a frame of 1000 and give back the edges that it had.
    """
    width, height = size
    return RoI(
        round((centre_x - w / 2) * width),
        round((centre_y - h / 2) * height),
        round((centre_x + w / 2) * width),
        round((centre_y + h / 2) * height),
    )


def read_yolo(path: Path, size: tuple[int, int]) -> list[RoI]:
    """All boxes of one `class cx cy w h` file, whatever their class, in its order.

    `size` is the frame's (width, height) in pixels. A box may reach outside the frame here: that
    is the cohort's check.

    Raises:
        AnnotationError: no text, not five numbers in a line, or one outside 0..1.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [_yolo_line(line, size) for line in lines if line.strip()]
    except (ValueError, OSError) as error:
        raise AnnotationError(
            f"{path.name}: not a YOLO box file ({type(error).__name__})"
        ) from error


def _yolo_line(line: str, size: tuple[int, int]) -> RoI:
    category, *fields = line.split()
    _given(whole(category))
    x, y, w, h = (_given(number(field)) for field in fields)
    if not all(0 <= value <= 1 for value in (x, y, w, h)):
        raise FormatError("fractions of the frame lie between 0 and 1")
    return from_yolo(x, y, w, h, size)


def _given(value: T | None) -> T:
    if value is None:
        raise FormatError("a number is missing")
    return value

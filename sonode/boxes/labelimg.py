"""Boxes as Pascal VOC XML or YOLO text, and their one conversion to the half-open RoI.

VOC corners mean two things, and the file's own marks decide between them:

* By the letter of the standard (VOC 2012 development kit, section 4.2) they are numbers of pixels,
  counted from 1, the last one within the box: `xmin - 1`, `ymin - 1`, `xmax`, `ymax` here.
* LabelImg (1.8.6, `libs/labelFile.py`) writes the borders between pixels that it writes to YOLO,
  too, counted from 0, and 1 in place of 0: `xmin`, `ymin`, `xmax`, `ymax` here. A box that was
  drawn from the very border of the frame so begins one pixel within it, in both of its formats.

A file with LabelImg's marks (`path`, or the database `Unknown`), as other tools write them after
it, holds borders; so does one with a fraction or a zero, which no number of a pixel is.
"""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import NamedTuple
from xml.etree.ElementTree import Element, ElementTree, ParseError, SubElement, indent

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from sonode.boxes.dicom_rois import Box

_MAX = 2**31 - 1  # of a number of pixels
_VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Drawn(NamedTuple):
    """The boxes of a VOC file, in its order, in pixels of the frame."""

    boxes: list[Box]
    size: tuple[int | None, int | None]
    """Width and height of the frame that they were drawn on; None where the file has none."""
    by_the_letter: bool
    """Whether the corners are numbers of pixels from 1, as the standard says."""
    image: str
    """The image's name without folders and ending, "" where the file has none."""
    names: list[str]
    """The class of each box."""


class YoloBoxes(NamedTuple):
    """The boxes of a YOLO file, in its order, in pixels of the frame."""

    boxes: list[Box]
    outlines: int
    """How many of them are the bounding box of an outline of points."""
    confidences: int
    """How many lines hold a confidence, which is not used."""
    classes: list[int]
    """The class of each box."""


class AnnotationError(ValueError):
    """An annotation file that does not hold boxes in one of the two formats."""


def from_voc(x_min: int, y_min: int, x_max: int, y_max: int) -> Box:
    """1-based inclusive corners -> 0-based half-open: the lower corners move by one."""
    return x_min - 1, y_min - 1, x_max, y_max


def write_voc(path: Path, image_name: str, width: int, height: int, roi: Box) -> None:
    """Write one box of class `lesion` by the letter of the standard."""
    root = Element("annotation")
    SubElement(root, "filename").text = image_name
    size = SubElement(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 1)):
        SubElement(size, tag).text = str(value)
    item = SubElement(root, "object")
    SubElement(item, "name").text = "lesion"
    box = SubElement(item, "bndbox")
    corners = (roi[0] + 1, roi[1] + 1, roi[2], roi[3])
    for tag, value in zip(_VOC_CORNERS, corners, strict=True):
        SubElement(box, tag).text = str(value)
    indent(root, "\t")
    ElementTree(root).write(path)


def read_voc(path: Path) -> Drawn:
    """What one annotation file holds; a `<size>` that is none, 0 for some tools, is unknown.

    Raises AnnotationError: no VOC file, or an object that is no upright box.
    """
    root = _parsed(path)
    texts = [_corners(item, f"{path.name}: object {place}") for place, item in _objects(root)]
    size = (_side(root, "width"), _side(root, "height"))
    by_the_letter = (
        root.find("path") is None
        and root.findtext("source/database") != "Unknown"
        and all(text.isdigit() for corners in texts for text in corners)
        and all(int(text) > 0 for corners in texts for text in corners[:2])
    )
    boxes = [
        (a, b, c, d) for a, b, c, d in ((round(float(it)) for it in corners) for corners in texts)
    ]
    return Drawn(
        [from_voc(*box) for box in boxes] if by_the_letter else boxes,
        size,
        by_the_letter,
        PureWindowsPath((root.findtext("filename") or "").strip()).stem,  # has / for a folder, too
        [" ".join((item.findtext("name") or "").split()) for _, item in _objects(root)],
    )


def _parsed(path: Path) -> Element:
    try:
        root: Element = defusedxml.ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError as error:
        raise AnnotationError(f"{path.name}: no such file") from error
    except OSError as error:
        raise AnnotationError(f"{path.name}: cannot be read ({error.strerror})") from error
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        # LookupError: an encoding that nobody knows
        raise AnnotationError(f"{path.name}: not valid XML") from error
    if root.tag != "annotation":
        raise AnnotationError(
            f"{path.name}: begins with <{root.tag[:20]}>, where Pascal VOC has <annotation>; "
            "export it as Pascal VOC"
        )
    return root


def _objects(root: Element) -> list[tuple[int, Element]]:
    return list(enumerate(root.iterfind("object"), start=1))


def _corners(item: Element, where: str) -> list[str]:
    """The four corners of an upright box, each the text of a number."""
    box = item.find("bndbox")
    if len(item.findall("bndbox")) > 1:
        raise AnnotationError(f"{where}: has several `bndbox`; give each box an object of its own")
    if item.find("robndbox") is not None:
        raise AnnotationError(f"{where}: `robndbox`, roLabelImg's rotated box; draw an upright one")
    if box is None:
        raise AnnotationError(f"{where}: has no `bndbox`; draw a box")
    for attribute in item.iterfind("attributes/attribute"):
        if attribute.findtext("name") == "rotation" and _value(attribute.findtext("value")) != 0:
            raise AnnotationError(f"{where}: `rotation` (CVAT) is not 0; draw an upright box")
    texts = [(box.findtext(tag) or "").strip() for tag in _VOC_CORNERS]
    for tag, text in zip(_VOC_CORNERS, texts, strict=True):
        if _value(text) is None:
            raise AnnotationError(f"{where}: {tag} is `{text[:20]}`; give a number of pixels")
    return texts


def _value(text: str | None) -> float | None:
    """A number that an image's side may have, else None."""
    text = (text or "").strip()
    try:
        value = float(text)
    except ValueError:
        return None
    plain = text.isascii() and "_" not in text
    return value if plain and abs(value) <= _MAX else None  # neither of NaN nor of infinity


def _side(root: Element, name: str) -> int | None:
    text = (root.findtext(f"size/{name}") or "").strip()
    return (int(text) or None) if text.isascii() and text.isdigit() and len(text) < 10 else None


def from_yolo(centre_x: float, centre_y: float, w: float, h: float, size: tuple[int, int]) -> Box:
    """Centre and size as fractions of the frame -> pixels, half-open.

    `size` is the frame's (width, height) in pixels. Each edge is rounded to the nearest border
    between pixels (a half to the even one): the six decimals that LabelImg writes are off by less
    than 0.001 pixel in a frame of 1000 and give back the edges that it had.
    """
    width, height = size
    return (
        round((centre_x - w / 2) * width),
        round((centre_y - h / 2) * height),
        round((centre_x + w / 2) * width),
        round((centre_y + h / 2) * height),
    )


def read_yolo(path: Path, size: tuple[int, int]) -> YoloBoxes:
    """All boxes of one file of YOLO lines, in its order.

    A line is `class cx cy w h` or the points of an outline, `class x1 y1 x2 y2 x3 y3 x4 y4 ...`, of
    four at least, whose bounding box counts (also of a rotated box, which is four points);
    either may end with a confidence. `size` is the frame's (width, height) in pixels. A box may
    reach outside the frame here: that is the cohort's check.

    Raises AnnotationError: no text, or a line of other numbers, or one outside 0..1.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise AnnotationError(f"{path.name}: no such file") from error
    except OSError as error:
        raise AnnotationError(f"{path.name}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise AnnotationError(f"{path.name}: not UTF-8 text") from error
    boxes, outlines, confidences, classes = [], 0, 0, []
    for place, line in enumerate(lines, start=1):
        if not (fields := line.split()):
            continue
        values = _fractions(fields, f"{path.name} line {place}")
        classes.append(int(float(fields[0])))
        confidences += len(values) % 2
        values = values[: len(values) - len(values) % 2]
        outlines += len(values) > 4
        box = values if len(values) == 4 else _around(values)
        boxes.append(from_yolo(box[0], box[1], box[2], box[3], size))
    return YoloBoxes(boxes, outlines, confidences, classes)


def _fractions(fields: list[str], where: str) -> list[float]:
    """The numbers after the class: 4 or 5 of a box, 8 or more of an outline."""
    if len(fields) in (7, 8):
        raise AnnotationError(
            f"{where}: {len(fields)} fields may be a box with a confidence and a track, or three "
            "points; give `class cx cy w h`"
        )
    if len(fields) < 5:
        raise AnnotationError(f"{where}: {len(fields)} fields; YOLO has `class cx cy w h`")
    known = [value for field in fields if (value := _value(field)) is not None]
    if len(known) < len(fields):
        raise AnnotationError(f"{where}: must have numbers only")
    if not known[0].is_integer():
        raise AnnotationError(f"{where}: the class must be an integer")
    if not all(0 <= value <= 1 for value in known[1:]):
        raise AnnotationError(f"{where}: has a number outside 0..1; give fractions of the frame")
    return known[1:]


def _around(points: list[float]) -> list[float]:
    """x1, y1, x2, y2, ... -> centre and size of the upright box around them."""
    x, y = points[::2], points[1::2]
    return [
        (min(x) + max(x)) / 2,
        (min(y) + max(y)) / 2,
        max(x) - min(x),
        max(y) - min(y),
    ]

"""LabelImg boxes as Pascal VOC XML, and their one conversion to the half-open RoI."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, ParseError, SubElement, indent

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from model_def.preprocessing import RoI


class AnnotationError(ValueError):
    """An annotation file that cannot be read as LabelImg's Pascal VOC."""


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
    for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
        SubElement(box, tag).text = str(value)
    indent(root, "\t")
    ElementTree(root).write(path)


def read_voc(path: Path) -> list[RoI]:
    """All boxes of one annotation file, in its order, in pixels of the frame.

    Raises:
        AnnotationError: not XML, an XML bomb, or a box without its four whole numbers.
    """
    try:
        root: Element = defusedxml.ElementTree.fromstring(path.read_bytes())
        return [
            from_voc(*(int(box.findtext(tag, "")) for tag in ("xmin", "ymin", "xmax", "ymax")))
            for box in root.iterfind("object/bndbox")
        ]
    except (ParseError, DefusedXmlException, ValueError, OSError) as error:
        raise AnnotationError(
            f"{path.name}: not a LabelImg Pascal VOC box file ({type(error).__name__})"
        ) from error

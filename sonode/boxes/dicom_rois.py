"""The boxes that a DICOM SR or presentation state draws on images, as training and batch read them.

A box is the upright one around a closed polyline, a circle or an ellipse. The coordinates of both
are fractions of pixels of the stored image, and 0\\0 is the top left corner of its top left pixel
(PS3.3, C.18.6.1.2 and C.10.5.1.2), so that each edge is rounded to the nearest border between
pixels. A point, a distance or any open line encloses nothing and is no box.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydicom.dataset import Dataset

Box = tuple[int, int, int, int]
"""`x_min, y_min, x_max, y_max` in pixels of the full stored frame, half-open."""


class DrawnBox(NamedTuple):
    """A box on an image."""

    instance: str
    """The SOPInstanceUID of the image."""
    frame: int | None
    """From 0; None where no frame is named, which is every frame of the image."""
    box: Box
    """It may reach outside the image, whose size is not known here."""


class Drawings(NamedTuple):
    """What an object draws."""

    boxes: list[DrawnBox]
    """In its order, each once: a report repeats a region for each of its measurements."""
    not_boxes: int
    """Drawings that enclose no pixel, or are not in pixels of an image."""
    by_sonode: bool
    """Whether sonode made the object. It then has no boxes here: they are what was asked for."""


class UnreadableDrawings(ValueError):  # noqa: N818 - reads as what it is
    """An object whose drawings cannot be read; the message quotes nothing of it."""


def read(dataset: Dataset) -> Drawings:
    """Read the boxes of an SR (as of TID 1500) or a presentation state (as a GSPS).

    Any other object has none.

    Raises UnreadableDrawings: it is damaged.
    """
    if str(dataset.get("Manufacturer") or "") == "sonode":
        return Drawings([], 0, True)
    try:
        found = [*_of_report(dataset), *_of_presentation(dataset)]
    except Exception:  # pydicom raises many types on damaged files
        raise UnreadableDrawings("the drawings cannot be read") from None
    boxes = list(dict.fromkeys(it for it in found if it is not None))
    return Drawings(boxes, sum(it is None for it in found), False)


def _of_report(report: Dataset) -> Iterator[DrawnBox | None]:
    waiting = [report]
    while waiting:
        item = waiting.pop(0)
        waiting.extend(item.get("ContentSequence") or ())
        if item.get("ValueType") == "SCOORD":
            box = _around(str(item.GraphicType), item.GraphicData)
            yield from _on_images(box, list(_selected_from(item, report)))
        elif item.get("ValueType") == "SCOORD3D":
            yield None


def _selected_from(item: Dataset, report: Dataset) -> Iterator[Dataset]:
    """The references to images that a drawing is on."""
    for child in item.get("ContentSequence") or ():
        if child.get("RelationshipType") == "SELECTED FROM":
            if path := child.get("ReferencedContentItemIdentifier"):  # by reference (PS3.3, C.17.3)
                child = report  # noqa: PLW2901
                for number in list(path)[1:]:
                    child = child.ContentSequence[number - 1]  # noqa: PLW2901
            yield from child.ReferencedSOPSequence


def _of_presentation(state: Dataset) -> Iterator[DrawnBox | None]:
    for annotation in state.get("GraphicAnnotationSequence") or ():
        images = annotation.get("ReferencedImageSequence") or [  # none: on all that the state shows
            image
            for series in state.get("ReferencedSeriesSequence") or ()
            for image in series.ReferencedImageSequence
        ]
        for drawing in annotation.get("GraphicObjectSequence") or ():
            in_pixels = drawing.GraphicAnnotationUnits == "PIXEL"
            box = _around(str(drawing.GraphicType), drawing.GraphicData) if in_pixels else None
            yield from _on_images(box, images)


def _on_images(box: Box | None, images: list[Dataset]) -> Iterator[DrawnBox | None]:
    if box is None or not images:
        yield None
        return
    for image in images:
        frames = image.get("ReferencedFrameNumber")
        several = hasattr(frames, "__iter__") and not isinstance(frames, str)
        numbers = [None] if not frames else frames if several else [frames]
        for number in numbers:
            frame = None if number is None else int(number) - 1
            yield DrawnBox(str(image.ReferencedSOPInstanceUID), frame, box)


def _around(kind: str, data: Any) -> Box | None:
    """The box around a drawing of a kind (PS3.3, C.18.6.1.2 and C.10.5.1.1), None around a line."""
    numbers = [float(number) for number in data]
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    if kind == "CIRCLE":  # its centre, and a point on it
        (x, y), on_it = points
        radius = math.dist((x, y), on_it)
        edges = (x - radius, y - radius, x + radius, y + radius)
    elif kind == "ELLIPSE":  # the ends of its two axes
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = points
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        w, h = math.hypot(x1 - x0, x3 - x2) / 2, math.hypot(y1 - y0, y3 - y2) / 2
        edges = (x - w, y - h, x + w, y + h)
    elif kind in ("POLYLINE", "INTERPOLATED") and len(points) > 3 and points[0] == points[-1]:
        xs, ys = numbers[::2], numbers[1::2]
        edges = (min(xs), min(ys), max(xs), max(ys))
    else:
        return None
    x_min, y_min, x_max, y_max = map(round, edges)
    return (x_min, y_min, x_max, y_max) if x_min < x_max and y_min < y_max else None

"""Boxes of SRs and presentation states that are written here by hand, element by element."""

import pytest
from pydicom.dataset import Dataset

from sonode.boxes import dicom_rois
from sonode.boxes.dicom_rois import DrawnBox

IMAGE, OTHER = "1.2.3.1", "1.2.3.2"
RECTANGLE = [10.0, 20.0, 50.0, 20.0, 50.0, 45.0, 10.0, 45.0, 10.0, 20.0]
LINE = [10.0, 20.0, 50.0, 45.0]


def item(**elements: object) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def image(uid: str = IMAGE, frames: object = None) -> Dataset:
    made = item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.6.1", ReferencedSOPInstanceUID=uid)
    if frames is not None:
        made.ReferencedFrameNumber = frames
    return made


def drawn(kind: str, data: list[float], *images: Dataset) -> Dataset:
    """An item of an SR with its images below it."""
    below = [
        item(RelationshipType="SELECTED FROM", ValueType="IMAGE", ReferencedSOPSequence=[it])
        for it in images
    ]
    return item(
        RelationshipType="CONTAINS",
        ValueType="SCOORD",
        GraphicType=kind,
        GraphicData=data,
        ContentSequence=below,
    )


def report(*items: Dataset) -> Dataset:
    """An SR with a measurement group that holds the items."""
    group = item(RelationshipType="CONTAINS", ValueType="CONTAINER", ContentSequence=[*items])
    return item(ValueType="CONTAINER", ContentSequence=[group])


def state(units: str, *drawings: tuple[str, list[float]], on: list[Dataset] | None) -> Dataset:
    """A presentation state of two images; `on` are those that the drawings name."""
    graphics = [
        item(GraphicAnnotationUnits=units, GraphicType=kind, GraphicData=data)
        for kind, data in drawings
    ]
    annotation = item(GraphicObjectSequence=graphics)
    if on is not None:
        annotation.ReferencedImageSequence = on
    series = item(ReferencedImageSequence=[image(), image(OTHER)])
    return item(ReferencedSeriesSequence=[series], GraphicAnnotationSequence=[annotation])


@pytest.mark.parametrize(
    ("kind", "data", "box"),
    [
        ("POLYLINE", RECTANGLE, (10, 20, 50, 45)),
        ("POLYLINE", [0.4, 0.6, 9.6, 3.0, 4.0, 8.4, 0.4, 0.6], (0, 1, 10, 8)),
        ("CIRCLE", [10.0, 20.0, 13.0, 24.0], (5, 15, 15, 25)),
        ("ELLIPSE", [2.0, 10.0, 22.0, 10.0, 12.0, 5.0, 12.0, 15.0], (2, 5, 22, 15)),
        # Turned by atan(3/4): semi-axes (8, 6) and (-3, 4), so sqrt(73) and sqrt(52) from (20, 20).
        ("ELLIPSE", [12.0, 14.0, 28.0, 26.0, 23.0, 16.0, 17.0, 24.0], (11, 13, 29, 27)),
    ],
)
def test_a_closed_drawing_has_a_box(
    kind: str, data: list[float], box: tuple[int, int, int, int]
) -> None:
    found = dicom_rois.read(report(drawn(kind, data, image())))
    assert found == ([DrawnBox(IMAGE, None, box)], 0, False)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("POINT", [3.0, 4.0]),
        ("MULTIPOINT", RECTANGLE),
        ("POLYLINE", LINE),
        ("POLYLINE", RECTANGLE[:-2]),
        ("POLYLINE", [5.0, 5.0, 5.2, 5.0, 5.2, 5.2, 5.0, 5.0]),
    ],
)
def test_what_encloses_no_pixel_is_counted(kind: str, data: list[float]) -> None:
    assert dicom_rois.read(report(drawn(kind, data, image()))) == ([], 1, False)


def test_a_report_repeats_a_region_and_names_frames() -> None:
    region = drawn("POLYLINE", RECTANGLE, image(frames=3))
    several = drawn("POLYLINE", RECTANGLE, image(OTHER, [1, 2]))
    found = dicom_rois.read(report(region, region, several, drawn("POLYLINE", LINE, image())))
    box = (10, 20, 50, 45)
    assert found.boxes == [
        DrawnBox(IMAGE, 2, box),
        DrawnBox(OTHER, 0, box),
        DrawnBox(OTHER, 1, box),
    ]
    assert found.not_boxes == 1


def test_an_image_by_reference() -> None:
    region = drawn("POLYLINE", RECTANGLE)
    region.ContentSequence = [
        item(RelationshipType="SELECTED FROM", ReferencedContentItemIdentifier=[1, 1, 2])
    ]
    listed = item(ValueType="IMAGE", ReferencedSOPSequence=[image(OTHER)])
    made = report(region, listed)
    assert dicom_rois.read(made).boxes == [DrawnBox(OTHER, None, (10, 20, 50, 45))]


def test_a_state_draws_on_the_images_that_it_names_or_on_all() -> None:
    drawings = (("POLYLINE", RECTANGLE), ("POLYLINE", LINE))
    box = (10, 20, 50, 45)
    named = dicom_rois.read(state("PIXEL", *drawings, on=[image(OTHER, 2)]))
    assert named == ([DrawnBox(OTHER, 1, box)], 1, False)
    every = dicom_rois.read(state("PIXEL", drawings[0], on=None))
    assert every.boxes == [DrawnBox(IMAGE, None, box), DrawnBox(OTHER, None, box)]
    assert dicom_rois.read(state("DISPLAY", drawings[0], on=None)) == ([], 1, False)


def test_what_sonode_made_is_no_reader_of_images() -> None:
    made = report(drawn("POLYLINE", RECTANGLE, image()))
    made.Manufacturer = "sonode"
    assert dicom_rois.read(made) == ([], 0, True)


def test_an_image_draws_nothing_and_damage_is_named() -> None:
    assert dicom_rois.read(item(Modality="US", Rows=4)) == ([], 0, False)
    cut = report(drawn("CIRCLE", [10.0, 20.0], image()))
    with pytest.raises(dicom_rois.UnreadableDrawings):
        dicom_rois.read(cut)

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_def.preprocessing import RoI
from sonode.boxes.labelimg import (
    AnnotationError,
    from_voc,
    from_yolo,
    read_voc,
    read_yolo,
    write_voc,
)


def test_labelimg_is_one_based_and_inclusive() -> None:
    # A box over the first pixel alone is 1,1,1,1 there and [0, 1) here.
    assert from_voc(1, 1, 1, 1) == RoI(0, 0, 1, 1)
    # The full 120 x 80 frame.
    assert from_voc(1, 1, 120, 80) == RoI(0, 0, 120, 80)


def test_labelimg_file_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(
        "<annotation><filename>a.png</filename><size><width>9</width></size>"
        "<object><name>x</name><pose>Unspecified</pose><bndbox><xmin>2</xmin><ymin>3</ymin>"
        "<xmax>5</xmax><ymax>7</ymax></bndbox></object></annotation>"
    )
    assert read_voc(path)[:3] == ([RoI(1, 2, 5, 7)], (9, None), True)


def test_the_frame_that_boxes_were_drawn_on(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    for text, size in (
        ("<size><width>120</width><height>80</height><depth>1</depth></size>", (120, 80)),
        ("<size><width>0</width><height>0</height></size>", (None, None)),
        ("<size/>", (None, None)),
        ("", (None, None)),
    ):
        path.write_text(f"<annotation>{text}</annotation>")
        assert read_voc(path)[:2] == ([], size)
    for odd in ("wide", "-1", "80px", "9" * 5000):
        path.write_text(f"<annotation><size><width>{odd}</width></size></annotation>")
        assert read_voc(path)[:2] == ([], (None, None))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    write_voc(path, "a.png", 360, 300, RoI(0, 10, 360, 20))
    assert "<xmin>1</xmin>" in path.read_text()
    assert read_voc(path)[:3] == ([RoI(0, 10, 360, 20)], (360, 300), True)


# One drawing, x 13..57 and y 0..41 of 60 x 50, as LabelImg 1.8.6 writes it in both formats: the
# canvas's borders between pixels, 1 in place of 0 (`convert_points_to_bnd_box`).
LABELIMG_VOC = """<annotation>
\t<folder>images</folder>
\t<filename>a.png</filename>
\t<path>/home/me/images/a.png</path>
\t<source>
\t\t<database>Unknown</database>
\t</source>
\t<size>
\t\t<width>60</width>
\t\t<height>50</height>
\t\t<depth>1</depth>
\t</size>
\t<segmented>0</segmented>
\t<object>
\t\t<name>lesion</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>1</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>13</xmin>
\t\t\t<ymin>1</ymin>
\t\t\t<xmax>57</xmax>
\t\t\t<ymax>41</ymax>
\t\t</bndbox>
\t</object>
</annotation>
"""
LABELIMG_YOLO = "0 0.583333 0.420000 0.733333 0.800000\n"


def test_both_writers_of_labelimg_give_one_box(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(LABELIMG_VOC)
    (tmp_path / "a.txt").write_text(LABELIMG_YOLO)
    box = RoI(13, 1, 57, 41)
    assert read_voc(tmp_path / "a.xml")[:3] == ([box], (60, 50), False)
    assert read_yolo(tmp_path / "a.txt", (60, 50)) == ([box], 0, 0, [0])
    # By the letter, without LabelImg's marks, the same numbers begin a pixel before.
    text = LABELIMG_VOC.replace("<path>/home/me/images/a.png</path>", "")
    (tmp_path / "a.xml").write_text(text.replace("Unknown", "The VOC2012 Database"))
    assert read_voc(tmp_path / "a.xml")[:3] == ([RoI(12, 0, 57, 41)], (60, 50), True)
    for mark in (text, LABELIMG_VOC.replace("Unknown", "ours")):
        (tmp_path / "a.xml").write_text(mark)
        assert read_voc(tmp_path / "a.xml").boxes == [box]


def voc(corners: tuple[object, ...], more: str = "") -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<annotation><object>{more}<bndbox>{box}</bndbox></object></annotation>"


def test_fractions_and_zeros_are_borders(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    for corners, box in (
        (("2.0", "3.0", "5.0", "7.0"), (2, 3, 5, 7)),  # CVAT writes these
        ((1.6, 2.4, 5, 7.51), (2, 2, 5, 8)),
        ((0, 3, 5, 7), (0, 3, 5, 7)),
        ((-1, 3, 5, 7), (-1, 3, 5, 7)),  # the cohort refuses it
    ):
        path.write_text(voc(corners))
        assert read_voc(path)[:3] == ([RoI(*box)], (None, None), False)
    unturned = "<attributes><attribute><name>rotation</name><value>0.0</value></attribute>"
    path.write_text(voc((1, 1, 5, 7), unturned + "</attributes>"))
    assert read_voc(path).boxes == [RoI(0, 0, 5, 7)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not valid XML"),
        ("no xml", "not valid XML"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', "not valid XML"),
        ("<annotations/>", "begins with <annotations>, where Pascal VOC has <annotation>; export"),
        (
            "<annotation><object><bndbox><xmin>2</xmin></bndbox></object></annotation>",
            "object 1: ymin is ``; give a number of pixels",
        ),
        (voc((1, "two", 3, 4)), "object 1: ymin is `two`; give a number of pixels"),
        (voc((1, 2, 3, 2**31)), "object 1: ymax is `2147483648`; give a number of pixels"),
        ("<annotation><object/></annotation>", "object 1: has no `bndbox`; draw a box"),
        (
            voc((1, 1, 2, 2)).replace("<bndbox>", "<bndbox/><bndbox>"),
            "object 1: has several `bndbox`; give each box an object of its own",
        ),
        (
            voc((1, 1, 2, 2)).replace("</annotation>", "<object><robndbox/></object></annotation>"),
            "object 2: `robndbox`, roLabelImg's rotated box; draw an upright one",
        ),
        (
            voc(
                (1, 1, 2, 2),
                "<attributes><attribute><name>rotation</name><value>30.5</value></attribute>"
                "</attributes>",
            ),
            "object 1: `rotation` (CVAT) is not 0; draw an upright box",
        ),
    ],
)
def test_what_is_no_box_file_is_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=re.escape(f"a.xml: {what}")):
        read_voc(path)
    with pytest.raises(AnnotationError, match=r"none\.xml: no such file"):
        read_voc(tmp_path / "none.xml")


def test_yolo_by_hand(tmp_path: Path) -> None:
    # 120 x 80: centre (30, 20), 40 wide and 20 high -> x 10..50, y 10..30.
    assert from_yolo(0.25, 0.25, 1 / 3, 0.25, (120, 80)) == RoI(10, 10, 50, 30)
    path = tmp_path / "a.txt"
    # As LabelImg writes it, with six decimals; the second box is the whole frame.
    path.write_text("15 0.250000 0.250000 0.333333 0.250000\n\n0 0.5 0.5 1 1\n")
    assert read_yolo(path, (120, 80)) == ([RoI(10, 10, 50, 30), RoI(0, 0, 120, 80)], 0, 0, [15, 0])
    # Edges at 0.4 and 3.6 pixels of 10 go to the nearest border: 0 and 4.
    assert from_yolo(0.2, 0.2, 0.32, 0.32, (10, 10)) == RoI(0, 0, 4, 4)


def test_outlines_and_confidences(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(
        "0 0.25 0.25 0.333333 0.25 0.87\n"  # with a confidence
        "0 0.5 0.1 0.9 0.5 0.5 0.75 0.2 0.5\n"  # a rhombus: x .2 to .9, y .1 to .75
        "0 0.5 0.1 0.9 0.5 0.5 0.75 0.2 0.5 0.99\n"
        "0 0.1 0.1 0.3 0.1 0.5 0.3 0.3 0.5 0.1 0.3\n"
    )
    rhombus = RoI(24, 8, 108, 60)
    boxes = [RoI(10, 10, 50, 30), rhombus, rhombus, RoI(12, 8, 60, 40)]
    assert read_yolo(path, (120, 80)) == (boxes, 3, 2, [0] * 4)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("0 0.5 0.5 0.5", "4 fields; YOLO has `class cx cy w h`"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5", "7 fields may be a box with a confidence and a track, or"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.9", "8 fields may be a box with a confidence and a track"),
        ("0 0.5 0.5 0.5 wide", "must have numbers only"),
        ("lesion 0.5 0.5 0.5 0.5", "must have numbers only"),
        ("0.5 0.5 0.5 0.5 0.5", "the class must be an integer"),
        ("0 30 20 40 20", "has a number outside 0..1"),
        ("0 0.5 0.5 0.5 0.5 1.57", "has a number outside 0..1"),  # an angle
    ],
)
def test_other_yolo_lines_are_refused(tmp_path: Path, line: str, what: str) -> None:
    (tmp_path / "a.txt").write_text(f"0 0.5 0.5 1 1\n{line}\n")
    with pytest.raises(AnnotationError, match=re.escape(f"a.txt line 2: {what}")):
        read_yolo(tmp_path / "a.txt", (120, 80))
    with pytest.raises(AnnotationError, match=r"none\.txt: no such file"):
        read_yolo(tmp_path / "none.txt", (120, 80))


@given(st.data())
def test_six_decimals_give_back_every_edge(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(2, 4000)), data.draw(st.integers(2, 4000))
    x = sorted(data.draw(st.lists(st.integers(0, width), min_size=2, max_size=2, unique=True)))
    y = sorted(data.draw(st.lists(st.integers(0, height), min_size=2, max_size=2, unique=True)))
    numbers = (
        (x[0] + x[1]) / 2 / width,
        (y[0] + y[1]) / 2 / height,
        (x[1] - x[0]) / width,
        (y[1] - y[0]) / height,
    )
    written = [float(f"{number:.6f}") for number in numbers]
    assert from_yolo(*written, (width, height)) == RoI(x[0], y[0], x[1], y[1])


LINES = st.one_of(
    st.binary(),
    st.lists(st.sampled_from(["0", "1", ".5", "0.25", "-1", "nan", "1e9", "x", "\n", "٣"])).map(
        lambda words: " ".join(words).encode()
    ),
)


@given(LINES)
def test_any_yolo_file_gives_boxes_or_the_annotation_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(data)
    try:
        boxes = read_yolo(path, (640, 480)).boxes
    except AnnotationError as error:
        assert str(error).startswith("any.txt")
        return
    for x_min, y_min, x_max, y_max in boxes:
        assert -320 <= x_min <= x_max <= 960
        assert -240 <= y_min <= y_max <= 720


XML = st.one_of(
    st.binary(),
    st.text().map(
        lambda text: (
            "<annotation><object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>"
            f"{text}</ymax></bndbox></object></annotation>"
        ).encode("utf-8", "replace")
    ),
    st.sampled_from([b'<?xml version="1.0" encoding="foo"?><a/>', b"\xff\xfe<"]),
)


@given(XML)
def test_any_voc_file_gives_boxes_or_the_annotation_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.xml"
    path.write_bytes(data)
    try:
        boxes = read_voc(path).boxes
    except AnnotationError as error:
        assert str(error).startswith("any.xml: ")
        return
    assert all(abs(value) <= 2**31 for box in boxes for value in box)

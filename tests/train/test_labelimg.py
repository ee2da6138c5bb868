from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_def.preprocessing import RoI
from train.labelimg import AnnotationError, from_voc, from_yolo, read_voc, read_yolo, write_voc


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
    assert read_voc(path) == ([RoI(1, 2, 5, 7)], (9, None))


def test_the_frame_that_boxes_were_drawn_on(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    for text, size in (
        ("<size><width>120</width><height>80</height><depth>1</depth></size>", (120, 80)),
        ("<size><width>0</width><height>0</height></size>", (None, None)),
        ("<size/>", (None, None)),
        ("", (None, None)),
    ):
        path.write_text(f"<annotation>{text}</annotation>")
        assert read_voc(path) == ([], size)
    for odd in ("wide", "-1", "80px", "9" * 5000):
        path.write_text(f"<annotation><size><width>{odd}</width></size></annotation>")
        assert read_voc(path) == ([], (None, None))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    write_voc(path, "a.png", 360, 300, RoI(0, 10, 360, 20))
    assert "<xmin>1</xmin>" in path.read_text()
    assert read_voc(path) == ([RoI(0, 10, 360, 20)], (360, 300))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no xml",
        "<annotation><object><bndbox><xmin>2</xmin></bndbox></object></annotation>",
        "<annotation><object><bndbox><xmin>1.5</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>"
        "</bndbox></object></annotation>",
        '<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>',
    ],
)
def test_what_is_no_box_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=r"a\.xml: not a LabelImg"):
        read_voc(path)
    with pytest.raises(AnnotationError, match="FileNotFoundError"):
        read_voc(tmp_path / "none.xml")


def test_yolo_by_hand(tmp_path: Path) -> None:
    # 120 x 80: centre (30, 20), 40 wide and 20 high -> x 10..50, y 10..30.
    assert from_yolo(0.25, 0.25, 1 / 3, 0.25, (120, 80)) == RoI(10, 10, 50, 30)
    path = tmp_path / "a.txt"
    # As LabelImg writes it, with six decimals; the second box is the whole frame.
    path.write_text("15 0.250000 0.250000 0.333333 0.250000\n\n0 0.5 0.5 1 1\n")
    assert read_yolo(path, (120, 80)) == [RoI(10, 10, 50, 30), RoI(0, 0, 120, 80)]
    # Edges at 0.4 and 3.6 pixels of 10 go to the nearest border: 0 and 4.
    assert from_yolo(0.2, 0.2, 0.32, 0.32, (10, 10)) == RoI(0, 0, 4, 4)


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
        boxes = read_yolo(path, (640, 480))
    except AnnotationError as error:
        assert str(error).startswith("any.txt: not a YOLO box file")
        return
    for box in boxes:
        assert -320 <= box.x_min <= box.x_max <= 960
        assert -240 <= box.y_min <= box.y_max <= 720


XML = st.one_of(
    st.binary(),
    st.text().map(
        lambda text: (
            "<a><object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>"
            f"{text}</ymax></bndbox></object></a>"
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
        boxes, _ = read_voc(path)
    except AnnotationError as error:
        assert str(error).startswith("any.xml: not a LabelImg")
        return
    assert all(abs(value) < 2**31 for box in boxes for value in box)

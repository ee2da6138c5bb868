from pathlib import Path

import pytest

from model_def.preprocessing import RoI
from train.labelimg import AnnotationError, from_voc, read_voc, write_voc


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
    assert read_voc(path) == [RoI(1, 2, 5, 7)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    write_voc(path, "a.png", 360, 300, RoI(0, 10, 360, 20))
    assert "<xmin>1</xmin>" in path.read_text()
    assert read_voc(path) == [RoI(0, 10, 360, 20)]


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

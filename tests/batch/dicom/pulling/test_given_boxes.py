"""The user's boxes: a table in either form, LabelImg's files, and every fault at once."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.dicom.pulling import given_boxes
from batch.dicom.pulling.given_boxes import GivenBox
from sonode.console import UserError

HEAD = "instance_uid,frame,roi_x_min,roi_y_min,roi_x_max,roi_y_max,reader"
XML = """<annotation><path>x</path><size><width>{w}</width><height>6</height></size>
<object><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></object>
</annotation>"""


def put(path: Path, *lines: str) -> str:
    path.write_text("\n".join((HEAD, *lines)) + "\n")
    return str(path)


def test_a_csv_and_a_parquet_file_hold_the_same(tmp_path: Path) -> None:
    table = put(tmp_path / "boxes.csv", "1.2.3,,1,2,5,6,A", "1.2.4,3,0,0,2,2,A", "1.2.4,,1,1,2,2,B")
    expected = {
        "1.2.3": [GivenBox(None, (1, 2, 5, 6), "table", None)],
        "1.2.4": [
            GivenBox(3, (0, 0, 2, 2), "table", None),
            GivenBox(None, (1, 1, 2, 2), "table", None),
        ],
    }
    assert given_boxes.read(table) == expected
    columns = {"instance_uid": ["1.2.3", "1.2.4", "1.2.4"], "frame": [None, 3, None]}
    edges = [("roi_x_min", [1, 0, 1]), ("roi_y_min", [2, 0, 1])]
    edges += [("roi_x_max", [5, 2, 2]), ("roi_y_max", [6, 2, 2])]
    pq.write_table(pa.table({**columns, **dict(edges)}), tmp_path / "boxes.parquet")
    assert given_boxes.read(str(tmp_path / "boxes.parquet")) == expected


def test_all_faults_of_a_table_are_named_and_no_value_that_is_a_uid(tmp_path: Path) -> None:
    table = put(tmp_path / "b.csv", "1.2.3,,5,2,5,6,A", ",,1,2,5,6,A", "1.2.4,-1,1,2,5,6,A")
    with pytest.raises(UserError, match="3 faults") as raised:
        given_boxes.read(table)
    text = " ".join(raised.value.details)
    assert "row 0: RoI" in text
    assert "row 1: instance_uid" in text
    assert "row 2: frame" in text
    assert "1.2.3" not in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("instance_uid,roi_x_min\n1,2\n", "no column 'roi_y_min'"),
        (f"{HEAD}\n1.2,,a,2,3,4,x\n", "neither Parquet nor a CSV"),
        ("", "neither Parquet nor a CSV"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(UserError, match=says):
        given_boxes.read(str(tmp_path / "b.csv"))
    with pytest.raises(UserError, match="no such file"):
        given_boxes.read(str(tmp_path / "none.csv"))


def test_a_folder_of_labelimg(tmp_path: Path) -> None:
    pytest.importorskip("defusedxml")
    (tmp_path / "1.2.3.xml").write_text(XML.format(w=8))
    (tmp_path / "1.2.4-11.xml").write_text(XML.format(w=0))
    assert given_boxes.read(str(tmp_path)) == {
        "1.2.3": [GivenBox(None, (1, 2, 5, 6), "labelimg", (8, 6))],
        "1.2.4": [GivenBox(11, (1, 2, 5, 6), "labelimg", None)],
    }
    (tmp_path / "Doe^Jane.xml").write_text(XML.format(w=8))
    (tmp_path / "1.2.5.xml").write_text("<html/>")
    with pytest.raises(UserError, match="2 faults") as raised:
        given_boxes.read(str(tmp_path))
    assert "Doe" not in " ".join(raised.value.details)

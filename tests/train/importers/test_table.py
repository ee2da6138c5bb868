import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from model_def.preprocessing import RoI
from sonode.boxes.labelimg import write_voc
from sonode.console import UserError
from tests.pictures import picture
from train.cohorts.cohort import load_cohort
from train.cohorts.describe import table_one
from train.importers.table import import_csv, import_voc, import_yolo

BOX = {"roi_x_min": 1, "roi_y_min": 2, "roi_x_max": 30, "roi_y_max": 40}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate("abcd"):
        picture(tmp_path / "images" / f"{name}.png", number)
    picture(tmp_path / "images" / "like_a.png", 0)
    return tmp_path


def write(folder: Path, *rows: dict[str, object]) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder / "table.csv"


def image(name: str, patient: object, **values: object) -> dict[str, object]:
    return {"patient_id": patient, "image": f"images/{name}.png", **BOX, **values}


def test_a_table_by_hand(folder: Path) -> None:
    source = write(
        folder,
        image("a", " 7", malignant="true", alnm=1, n_nodes="2.0", age="41", subtype="HER2"),
        image("b", "8", malignant=0, device="X", age="", subtype="", grade="2", lesion_id="left"),
        image("c", "8", grade="3+"),
    )
    cohort = import_csv(source, folder / "out", name="ours")
    table = cohort.table
    assert table["patient_id"].tolist() == ["7", "8", "8"]
    assert table["lesion_id"].tolist() == ["images/a.png", "left", "images/c.png"]
    assert table["malignant"][:2].tolist() == [True, False]
    assert (table["alnm"][0], table["n_nodes"][0], table["device"][1]) == (True, 2, "X")
    assert table[["malignant", "alnm", "n_nodes", "device"]].isna().loc[2].all()
    assert cohort.roi(0) == (1, 2, 30, 40)
    assert cohort.covariates == ["age"]
    assert table["age"].isna().tolist() == [False, True, True]
    assert cohort.categorical == ["subtype", "grade"]
    assert table["subtype"].isna().tolist() == [False, True, True]
    assert table["grade"][1:].tolist() == ["2", "3+"]
    again = load_cohort(folder / "out")
    assert again.sha256 == cohort.sha256
    assert again.table.dtypes.equals(table.dtypes)


def test_parquet_says_the_types_itself(folder: Path) -> None:
    rows = [image("a", 7, malignant=True, n_nodes=2.0), image("b", 8, malignant=None, n_nodes=None)]
    frame = pd.DataFrame(rows).assign(code=["1", None], age=[41, None], empty=None)
    frame["malignant"] = frame["malignant"].astype("boolean")
    frame.to_parquet(source := folder / "table.parquet")
    cohort = import_csv(source, folder / "out", name="ours")
    assert cohort.table["patient_id"].tolist() == ["7", "8"]
    assert cohort.table["malignant"].isna().tolist() == [False, True]
    assert cohort.table["n_nodes"][0] == 2
    assert (cohort.covariates, cohort.categorical) == (["age"], ["code", "empty"])
    frame.assign(more=[[1], [2]]).to_parquet(source)
    with pytest.raises(UserError, match=r"column `more` holds list.*write it as string"):
        import_csv(source, folder / "out", name="ours")


def test_ids_do_not_depend_on_the_type_that_holds_them(folder: Path) -> None:
    rows = [image("a", 7), image("b", 1234567890123), image("c", 9)]
    frame = pd.DataFrame(rows).assign(lesion_id=[1, 2, 3])
    found = []
    for kind in ("int64", "float64", "Int64", "str"):
        typed = frame.astype({"patient_id": kind, "lesion_id": kind})
        typed.to_parquet(folder / "table.parquet")
        found.append(import_csv(folder / "table.parquet", folder / "out", name="ours"))
    assert found[1].table["patient_id"].tolist() == ["7", "1234567890123", "9"]
    assert found[1].table["lesion_id"].tolist() == ["1", "2", "3"]
    assert len({cohort.sha256 for cohort in found}) == 1
    # In a CSV an id is its text.
    texts = import_csv(write(folder, image("a", "007"), image("b", "7.0")), folder, name="ours")
    assert texts.table["patient_id"].tolist() == ["007", "7.0"]


def test_ids_that_are_no_whole_numbers_are_faults(folder: Path) -> None:
    rows = [image("a", 1.5), image("b", 2.0**54), image("c", 2.0), image("d", None)]
    pd.DataFrame(rows).assign(lesion_id=[1.0, 2.0, 3.5, 4.0]).to_parquet(folder / "table.parquet")
    with pytest.raises(UserError) as caught:
        import_csv(folder / "table.parquet", folder / "out", name="ours")
    what = "not an integer, or too many digits; give ids as text"
    assert caught.value.details == [
        f"table.parquet row 0, patient_id: {what}",
        f"table.parquet row 1, patient_id: {what}",
        f"table.parquet row 2, lesion_id: {what}",
        "table.parquet row 3, patient_id: missing; the split needs it",
    ]


def test_rows_without_a_lesion_id_are_lesions_of_their_own(folder: Path) -> None:
    rows = [image("a", "1", malignant=1), image("a", "1", malignant=0, roi_x_min=5)]
    rows += [image("b", "1"), image("a", "1", lesion_id="left", roi_x_min=6)]
    table = import_csv(write(folder, *rows), folder / "out", name="ours").table
    assert table["lesion_id"].tolist() == ["images/a.png", "images/a.png_1", "images/b.png", "left"]
    assert table["malignant"][:2].tolist() == [True, False]


def test_alnm_follows_from_known_nodes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [image("a", "1", n_nodes=2), image("b", "2", n_nodes=0), image("c", "3", alnm=1)]
    table = import_csv(write(folder, *rows), folder / "out", name="ours").table
    assert table["alnm"].tolist() == [True, False, True]
    assert table["n_nodes"].isna().tolist() == [False, False, True]
    said = "rows have n_nodes and a blank alnm, which follows from it (2)\n"
    assert capsys.readouterr().out == said


def test_one_patient_in_two_spellings_and_damaged_ids(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [image("a", "Mu\u0308 7"), image("b", "M\u00fc 7"), image("c", "m\u00fc7", device="GE")]
    rows.append(image("d", "8", device="ge"))
    table = import_csv(write(folder, *rows), folder / "out", name="ours").table
    assert table["patient_id"].tolist() == ["M\u00fc 7", "M\u00fc 7", "m\u00fc7", "8"]
    what = "differs by case, blanks, leading zeros or .0 alone and counts as different:"
    assert capsys.readouterr().out.splitlines() == [
        f"patient_id {what}",
        "  table.csv line 2 and table.csv line 4",
        f"device {what}",
        "  table.csv line 4 and table.csv line 5",
    ]
    rows = [image("a", "M\u200bRN"), image("b", "1.23457E+12"), image("c", "NA"), image("d", "4")]
    with pytest.raises(UserError) as caught:
        import_csv(write(folder, *rows), folder / "out", name="ours")
    assert caught.value.details == [
        "table.csv line 2, patient_id: has the invisible character U+200B; remove it",
        "table.csv line 3, patient_id: a number that Excel has shortened; export the ids as text",
        "table.csv line 4, patient_id: missing; the split needs it",
    ]


@pytest.mark.parametrize("text", ["a\0.png", "x" * 300 + ".png", "/"])
def test_a_path_that_names_no_file_is_a_fault(folder: Path, text: str) -> None:
    rows = [image("a", "1"), image("b", "2") | {"image": text}]
    pd.DataFrame(rows).to_parquet(folder / "table.parquet")
    with pytest.raises(UserError) as caught:
        import_csv(folder / "table.parquet", folder / "out", name="ours")
    assert caught.value.details == [
        "table.parquet row 1, image: not a file; give its path relative to the table's folder"
    ]


def test_a_kind_is_given(folder: Path) -> None:
    rows = [image("a", "1", er=0, weight="54"), image("b", "2", er=1, weight="sixty")]
    source = write(folder, *rows)
    found = import_csv(source, folder / "out", name="ours")
    assert (found.covariates, found.categorical) == ([], ["er", "weight"])
    assert found.table["er"].tolist() == ["0", "1"]
    characteristics = table_one(found)[["characteristic", "value"]].values.tolist()
    assert ["er", "n (%)"] in characteristics
    found = import_csv(source, folder / "out", name="ours", kinds={"er": "number"})
    assert (found.covariates, found.categorical) == (["er"], ["weight"])
    with pytest.raises(UserError) as caught:
        import_csv(source, folder / "out", name="ours", kinds={"weight": "number"})
    assert caught.value.details == ["table.csv line 3, weight: give a number or blank"]


def test_a_partition_that_cannot_be_used_writes_nothing(folder: Path) -> None:
    rows = [image("a", "1"), image("b", "2"), image("c", "1"), image("d", "")]
    one = r"holds more than one value of 1 patient \(table.csv line 2 and table.csv line 4\)"
    for column, values, what in (
        ("fold", "1232", f"SRC: column `fold`: {one}"),
        ("fold_5", "a-ba", f"SRC: column `fold_5`: {one}"),
        ("split", ("test", "train", "training", ""), "`split`: is none of .* in 2 of 4 rows"),
    ):
        source = write(folder, *(row | {column: it} for row, it in zip(rows, values, strict=True)))
        with pytest.raises(UserError, match=what) as caught:
            import_csv(source, folder / "out", name="ours", drop_faulty=True)
        assert not caught.value.details
        assert not (folder / "out").exists()
    rows = [row | {"fold": it} for row, it in zip(rows[:3], ("1", "2", "1"), strict=True)]
    assert import_csv(write(folder, *rows), folder / "out", name="ours").partitions == ["fold"]


def test_another_cohort_is_not_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out"
    import_csv(write(folder, image("a", "1"), image("b", "2")), out, name="ours")
    before = (out / "cohort.parquet").read_bytes()
    what = r"OUT .*out: holds another cohort; give another folder, or remove its cohort\.parquet"
    for rows, name in (([image("c", "3")], "ours"), ([image("a", "1")], "theirs")):
        with pytest.raises(UserError, match=what):
            import_csv(write(folder, *rows), out, name=name)
    assert (out / "cohort.parquet").read_bytes() == before
    # A corrected table of its own images is not another one.
    again = import_csv(write(folder, image("b", "9"), image("c", "3")), out, name="ours")
    assert load_cohort(out).sha256 == again.sha256
    assert capsys.readouterr().out == f"replacing the previous import in {out}\n"
    (out / "cohort.parquet").write_text("nothing")
    with pytest.raises(UserError, match=what):
        import_csv(folder / "table.csv", out, name="ours")


def test_greys_of_12_bits_in_a_file_of_16_are_reported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    greys = np.linspace(0, 4095, 3000).reshape(50, 60).astype(np.uint16)
    Image.fromarray(greys).save(folder / "images" / "low.png")
    Image.fromarray(greys[::-1] * 16).save(folder / "images" / "full.png")
    rows = [image("low", "1"), image("low", "1", roi_x_min=2), image("full", "2"), image("a", "3")]
    import_csv(write(folder, *rows), folder / "out", name="ours")
    first, second = capsys.readouterr().out.splitlines()
    assert (first[:23], first[-4:], second) == ("images are nearly black", "(1):", "  low.png")


def test_boxes_beside_the_images(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_voc(folder / "images" / "a.xml", "a.png", 60, 50, RoI(1, 2, 30, 40))
    (folder / "images" / "b.txt").write_text("0 0.5 0.5 1 1\n0 0.25 0.5 0.5 1\n")
    rows = [{"patient_id": name, "image": f"images/{name}.png", "n_nodes": "2"} for name in "ab"]
    cohort = import_csv(write(folder, *rows), folder / "out", name="ours")
    assert [cohort.roi(index) for index in range(3)] == [
        (1, 2, 30, 40),
        (0, 0, 60, 50),
        (0, 0, 30, 50),
    ]
    assert cohort.table["lesion_id"].tolist() == ["images/a.png", "images/b.png", "images/b.png_1"]
    assert capsys.readouterr().out == (
        "box files are read as VOC defines them, as numbers of pixels from 1 (1)\n"
        "rows have n_nodes and a blank alnm, which follows from it (2)\n"
    )
    # A bad label is a fault of both boxes of the image.
    rows[1]["n_nodes"] = "two"
    kept = import_csv(write(folder, *rows), folder / "out", name="ours", drop_faulty=True)
    assert kept.table["patient_id"].tolist() == ["a"]
    (folder / "images" / "b.txt").unlink()
    with pytest.raises(UserError) as caught:
        import_csv(write(folder, *rows), folder / "out", name="ours")
    assert caught.value.details == [
        "table.csv line 3, roi: no b.xml or .txt beside the image, and no roi columns",
        "table.csv line 3, n_nodes: give an integer or blank",
    ]


LABELS = "image,patient_id,lesion_id,malignant,alnm,n_nodes,device\n"


def labelimg(folder: Path, *images: str) -> Path:
    """`labels.csv` with one patient for each image, and a place for their box files."""
    (folder / "annotations").mkdir(exist_ok=True)
    rows = "".join(f"{name},{place},,1,,,\n" for place, name in enumerate(images, start=1))
    (folder / "labels.csv").write_text(LABELS + rows)
    return folder / "annotations"


def test_boxes_drawn_on_another_resolution_are_a_fault(folder: Path) -> None:
    drawn = labelimg(folder, "a.png", "b.png", "c.png")
    write_voc(drawn / "a.xml", "a.png", 60, 50, RoI(1, 2, 30, 40))
    write_voc(drawn / "b.xml", "b.png", 120, 100, RoI(1, 2, 30, 40))  # of twice the size, inside
    write_voc(drawn / "c.xml", "c.png", 0, 0, RoI(1, 2, 30, 40))  # not known
    with pytest.raises(UserError) as caught:
        import_voc(folder, folder / "out", name="ours")
    assert caught.value.details == [
        "labels.csv line 3, roi: b.xml was drawn on a frame of 120 x 100, and the image is "
        "60 x 50; draw it again on this one"
    ]
    kept = import_voc(folder, folder / "out", name="ours", drop_faulty=True)
    assert kept.table["patient_id"].tolist() == ["1", "3"]


@pytest.mark.parametrize("kind", ["voc", "yolo"])
def test_one_box_file_is_not_two_images(folder: Path, kind: str) -> None:
    picture(folder / "images" / "p1" / "x.png", 7)
    picture(folder / "images" / "p2" / "x.png", 8)
    drawn = labelimg(folder, "p1/x.png", "a.png", "p2/x.png")
    for name in "xa":
        write_voc(drawn / f"{name}.xml", f"{name}.png", 60, 50, RoI(1, 2, 30, 40))
        (drawn / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    load, suffix = (import_voc, "xml") if kind == "voc" else (import_yolo, "txt")
    with pytest.raises(UserError) as caught:
        load(folder, folder / "out", name="ours")
    assert caught.value.details == [
        f"labels.csv line 4, roi: x.{suffix} has the boxes of labels.csv line 2, too; give each "
        "image a name and a box file of its own"
    ]
    # Nobody knows on which of the two it was drawn.
    kept = load(folder, folder / "out", name="ours", drop_faulty=True)
    assert kept.table["patient_id"].tolist() == ["2"]


def test_one_box_file_beside_two_images_of_its_name(folder: Path) -> None:
    picture(folder / "images" / "a.bmp", 9)
    write_voc(folder / "images" / "a.xml", "a.png", 60, 50, RoI(1, 2, 30, 40))
    rows = [{"patient_id": kind, "image": f"images/a.{kind}"} for kind in ("png", "bmp")]
    with pytest.raises(UserError) as caught:
        import_csv(write(folder, *rows), folder / "out", name="ours")
    assert len(caught.value.details) == 1
    assert "a.xml has the boxes of table.csv line 2, too" in caught.value.details[0]


def test_orientations_that_are_not_applied_are_reported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    for name, orientation in (("a", 6), ("b", 3), ("c", 1)):
        exif[0x0112] = orientation
        path = folder / "images" / f"{name}.png"
        with Image.open(path) as stored:
            stored.save(path, exif=exif)
    rows = [image(name, name) for name in "aabcd"]
    rows[1]["roi_x_min"] = 2  # another lesion of the same image
    cohort = import_csv(write(folder, *rows), folder / "out", name="ours")
    assert cohort.roi(0) == (1, 2, 30, 40)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("images have an EXIF orientation (2)")


FAULTY = (
    image("a", "1", malignant=1),
    image("b", "1", malignant=0, n_nodes=3),
    image("c", "2", alnm="maybe", n_nodes="many", roi_x_max=61),
    image("like_a", "3", roi_x_min=2),
    image("c", "2", roi_x_min=""),
    image("c", "2", roi_y_min="top"),
    image("none", "4"),
    image("", ""),
    image("c", "5", roi_x_min=9, lesion_id="l", malignant=1, alnm=0, n_nodes=0),
    image("d", "5", lesion_id="l", malignant=0),
    image("d", "6", roi_x_min=4),
)


def test_all_faults_at_once_with_their_lines(folder: Path) -> None:
    with pytest.raises(UserError, match=r"SRC: 13 faults; .* --drop-faulty") as caught:
        import_csv(write(folder, *FAULTY), folder / "out", name="ours")
    unreadable = "absent"
    other = "which is another patient"
    assert caught.value.details == [
        "table.csv line 3, malignant: benign with positive nodes",
        "table.csv line 4, alnm: give 1, 0, true, false or blank",
        "table.csv line 4, n_nodes: give an integer or blank",
        "table.csv line 4, roi: box [1, 2, 61, 40] reaches outside the image of 60 x 50",
        f"table.csv line 5, image: same pixels as table.csv line 2, {other}",
        "table.csv line 6, roi: no box",
        "table.csv line 7, roi_y_min: give an integer or blank",
        f"table.csv line 8, image: {unreadable}",
        "table.csv line 9, patient_id: missing; the split needs it",
        f"table.csv line 9, image: {unreadable}",
        f"table.csv line 10, image: same pixels as table.csv line 4, {other}",
        "table.csv line 11, malignant: False contradicts table.csv line 10 (True), same lesion",
        f"table.csv line 12, image: same pixels as table.csv line 11, {other}",
    ]
    assert not (folder / "out").exists()


def test_drop_faulty_goes_on_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Neither row of an image under two patients is left: nobody knows whose it is.
    rows = [image("a", "1"), image("like_a", "3"), image("b", "1"), image("d", "6")]
    rows[1] |= {"roi_x_min": 2}
    rows[2] |= {"roi_x_max": 99}
    cohort = import_csv(write(folder, *rows), folder / "out", name="ours", drop_faulty=True)
    assert cohort.table["patient_id"].tolist() == ["6"]
    assert load_cohort(folder / "out").table["patient_id"].tolist() == ["6"]
    assert capsys.readouterr().out.splitlines() == [
        "left out 3 of 4 rows for 2 faults:",
        "  table.csv line 3, image: same pixels as table.csv line 2, which is another patient",
        "  table.csv line 4, roi: box [1, 2, 99, 40] reaches outside the image of 60 x 50",
        "rows left out: table.csv line 2, table.csv line 3, table.csv line 4",
    ]
    with pytest.raises(UserError, match="no row is left"):
        import_csv(write(folder, *rows[:3]), folder / "none", name="ours", drop_faulty=True)


ROW = st.fixed_dictionaries(
    {
        "patient_id": st.sampled_from(["1", "2", ""]),
        "image": st.sampled_from([f"images/{name}.png" for name in ("a", "like_a", "b", "none")]),
        "lesion_id": st.sampled_from(["l", "m", ""]),
        "malignant": st.sampled_from(["1", "0", "", "?"]),
        "alnm": st.sampled_from(["1", "0", ""]),
        "n_nodes": st.sampled_from(["0", "2", "-1", ""]),
        "roi_x_min": st.sampled_from(["0", "5", "40", "-1", ""]),
        "roi_y_min": st.just("0"),
        "roi_x_max": st.sampled_from(["30", "60", "61"]),
        "roi_y_max": st.just("9"),
    }
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, min_size=1, max_size=8))
def test_what_is_left_after_dropping_is_a_valid_cohort(
    folder: Path, rows: list[dict[str, object]]
) -> None:
    (folder / "out" / "cohort.parquet").unlink(missing_ok=True)
    try:
        cohort = import_csv(write(folder, *rows), folder / "out", name="ours", drop_faulty=True)
    except UserError as error:
        assert "no row is left" in str(error)
        return
    assert load_cohort(folder / "out").sha256 == cohort.sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient_id\n1\n", "no column image"),
        ("patient_id,image,image\n", "column `image` is duplicated"),
        ("patient_id,image,roi_x_min\n", "roi_x_min without the others; give all four"),
        ("patient_id,image\n1,a.png,x\n", "line 2: not the header's 2 fields"),
        ("", "no column patient_id, image"),
        ("patient_id,image,Age (y)\n1,a.png,3\n", "column `Age \\(y\\)`: "),
        ('patient_id,image\n1,"a.png\n', "not a CSV in UTF-8"),
        ("patient_id,image\n\0,a\n", "not a CSV in UTF-8"),
        ("patient_id,image\n", "no row is left"),
    ],
)
def test_what_is_no_such_table_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "table.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        import_csv(folder / "table.csv", folder / "out", name="ours")
    (folder / "x.parquet").write_text(text)
    with pytest.raises(UserError, match="not a Parquet table"):
        import_csv(folder / "x.parquet", folder / "out", name="ours")
    with pytest.raises(UserError, match="no such file"):
        import_csv(folder / "y.csv", folder / "out", name="ours")
    assert not (folder / "out").exists()


def test_yolo_by_hand(folder: Path) -> None:
    (folder / "annotations").mkdir()
    # 60 x 50: centre (30, 20), 40 wide and 20 high -> x 10..50, y 10..30.
    (folder / "annotations" / "a.txt").write_text("0 0.500000 0.400000 0.666667 0.400000\n")
    (folder / "annotations" / "b.txt").write_text("0 0.9 0.5 0.5 0.5\n")
    (folder / "annotations" / "c.txt").write_text("0 0.9 0.5 0.5\n")
    header = "image,patient_id,lesion_id,malignant,alnm,n_nodes,device,age\n"
    (folder / "labels.csv").write_text(header + "a.png,1,,1,,,,50\n")
    cohort = import_yolo(folder, folder / "out", name="ours")
    assert cohort.roi(0) == (10, 10, 50, 30)
    assert np.asarray(cohort.table["age"]).tolist() == [50.0]
    (folder / "labels.csv").write_text(header + "b.png,1,,1,,,,\nc.png,1,,1,,,,\nd.png,1,,,,,,\n")
    with pytest.raises(UserError) as caught:
        import_yolo(folder, folder / "other", name="ours")
    assert caught.value.details == [
        "labels.csv line 2, roi: box [39, 12, 69, 38] reaches outside the image of 60 x 50",
        "labels.csv line 3, roi: c.txt line 1: 4 fields; YOLO has `class cx cy w h`",
        "labels.csv line 4, roi: d.txt: no such file",
    ]


def drawn(path: Path, *classes: str, image: str = "a.png") -> None:
    """A VOC file with a box of each class, the n-th of which begins at x = n."""
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{place}</xmin><ymin>1</ymin><xmax>30</xmax>"
        "<ymax>30</ymax></bndbox></object>"
        for place, name in enumerate(classes, start=1)
    )
    path.write_text(f"<annotation><filename>{image}</filename>{objects}</annotation>")


def test_a_box_that_is_named_malignant_agrees_with_the_table(folder: Path) -> None:
    boxes = labelimg(folder, "a.png", "b.png", "c.png")  # malignant, all of them
    drawn(boxes / "a.xml", "Malignant")
    drawn(boxes / "b.xml", "malignant", "benign", image="b.png")
    drawn(boxes / "c.xml", "node", image="c.png")
    with pytest.raises(UserError) as caught:
        import_voc(folder, folder / "out", name="ours")
    assert caught.value.details == [
        "labels.csv line 3 box 1, malignant: is 1, and b.xml names object 2 benign; correct one of "
        "them"
    ]


def test_other_classes_and_other_images_of_box_files_are_reported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = labelimg(folder, "a.png", "b.png")
    drawn(boxes / "a.xml", "lesion", "node", image=r"C:\me\a.jpg")
    drawn(boxes / "b.xml", "lesion", image="a.png")
    assert len(import_voc(folder, folder / "out", name="ours").table) == 3
    told = capsys.readouterr().out
    assert "box files have another image's name in `filename`, as after renaming" in told
    assert "used for the image with the box file's own name (1)\n" in told
    assert "boxes of all classes are used as lesions: lesion (2), node (1)\n" in told
    for name, lines in (("a", "0 .5 .5 .5 .5\n2 .5 .5 .4 .4\n"), ("b", "0 .5 .5 .5 .5\n")):
        (boxes / f"{name}.txt").write_text(lines)
    assert len(import_yolo(folder, folder / "yolo", name="ours").table) == 3
    told = capsys.readouterr().out
    assert "used as lesions: class 0 (2), class 2 (1)\n" in told

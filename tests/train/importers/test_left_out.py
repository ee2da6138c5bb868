"""What an import leaves out, by reason, in the file that it keeps."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.pictures import mask, picture
from train.cohorts.checks import Fault
from train.cohorts.cohort import TABLE
from train.cohorts.import_record import RECORD, ImportRecord, read_record
from train.importers.left_out import of_checks
from train.importers.public_sets.breast_lesions_usg import import_breast
from train.importers.public_sets.busi import import_busi
from train.importers.table import import_csv, import_voc


def recorded(folder: Path) -> ImportRecord:
    found = read_record(folder / TABLE)
    assert isinstance(found, ImportRecord), found
    return found


def told(record: ImportRecord) -> list[tuple[str, str, int, int | None, int]]:
    return [(it.stage, it.reason, it.images, it.patients, it.rows) for it in record.exclusions]


def test_a_row_counts_for_its_first_fault_and_an_image_only_where_no_row_stays() -> None:
    frame = pd.DataFrame(
        {
            "patient_id": ["a", "a", "b", "c", "c", " "],
            "image": ["1", "1", "2", "3", "4", "5"],
        }
    )
    faults = [
        Fault(1, "roi", "no box"),
        Fault(2, "image", "absent"),
        Fault(2, "malignant", "benign with positive nodes"),
        Fault(3, "alnm", "yes contradicts the row above", spoils=(3, 4), kind="doubt"),
        Fault(5, "patient_id", "missing"),
    ]
    found = of_checks(frame, faults, [1, 2, 3, 4, 5])
    assert [(it.reason, it.rows, it.images, it.patients) for it in found] == [
        ("no valid lesion box", 1, 0, 0),  # patient a and image 1 have another row
        ("image absent, damaged or not accepted", 1, 1, 1),
        ("doubt", 2, 2, 1),
        ("no valid patient id", 1, 1, 0),  # nobody knows which patient that is
    ]


def test_busi_by_reason(tmp_path: Path) -> None:
    source = tmp_path / "busi"
    for number, seed in ((1, 1), (2, 1), (3, 7), (4, 8)):  # (2) has the pixels of (1)
        picture(source / "benign" / f"benign ({number}).png", seed)
        mask(source / "benign" / f"benign ({number})_mask.png", 3, 4, 20, 30)
    (source / "benign" / "benign (3)_mask.png").unlink()
    picture(source / "malignant" / "malignant (1).png", 2)
    mask(source / "malignant" / "malignant (1)_mask.png", 0, 0, 60, 50)
    mask(source / "malignant" / "malignant (9)_mask.png", 0, 0, 60, 50)
    picture(source / "normal" / "normal (1).png", 3)
    import_busi(source, tmp_path / "out", drop_faulty=True)
    record = recorded(tmp_path / "out")
    assert told(record) == [
        ("source", "normal images have no lesion", 1, None, 0),
        ("source", "images repeat pixels and lesions of another", 1, 0, 0),
        ("checks", "no valid lesion box", 1, 1, 1),
    ]
    assert record.other_files == {"masks of malignant have no image": 1}
    assert (record.source_images, record.source_patients) == (6, None)
    assert tuple(record.read.model_dump().values()) == (4, 4, 4)
    assert tuple(record.kept.model_dump().values()) == (3, 3, 3)
    assert "benign (" not in (tmp_path / "out" / RECORD).read_text()


def test_breast_knows_whose_images_are_left_out(tmp_path: Path) -> None:
    source = tmp_path / "breast"
    for number in (1, 2, 3):
        picture(source / f"case00{number}.png", number)
    mask(source / "case001_tumor.png", 3, 4, 20, 30)
    mask(source / "case009_other1.png", 3, 4, 20, 30)
    columns = ("Image_filename", "Mask_tumor_filename", "Classification", "Age", "BIRADS")
    rows = [
        ("case001.png", "case001_tumor.png", "benign", "50", "3"),
        ("case002.png", "", "normal", "", ""),
    ]
    pd.DataFrame(rows, columns=columns).assign(Diagnosis="").to_excel(
        source / "book.xlsx", index=False
    )
    import_breast(source, tmp_path / "out")
    record = recorded(tmp_path / "out")
    assert told(record) == [
        ("source", "images are not in the sheet", 1, None, 0),
        ("source", "normal images have no lesion", 1, 1, 0),
    ]
    assert record.other_files == {"masks are not in the sheet": 1}
    assert record.source_images == 3


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = ["patient_id,image,malignant,alnm,roi_x_min,roi_y_min,roi_x_max,roi_y_max"]
    for number, labels in enumerate(("0,1", "1,1", "0,", "0,", "2,")):
        picture(tmp_path / f"{number}.png", number)
        rows.append(f"p{number // 2},{number}.png,{labels},1,2,30,40")
    rows.append("p1,3.png,0,,1,2,30,40")
    rows.append("p1,absent.png,0,,1,2,30,40")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "table.csv"


def test_a_table_by_reason(table: Path, tmp_path: Path) -> None:
    import_csv(table, tmp_path / "out", name="ours", drop_faulty=True)
    record = recorded(tmp_path / "out")
    assert told(record) == [
        ("checks", "labels contradict each other", 1, 0, 1),
        ("checks", "malignant is not valid", 1, 1, 1),
        ("checks", "same image and box as another row", 0, 0, 1),
        ("checks", "image absent, damaged or not accepted", 1, 0, 1),
    ]
    assert tuple(record.kept.model_dump().values()) == (2, 3, 3)


def test_the_record_is_of_this_table_or_there_is_none(of_one_image: Path) -> None:
    assert recorded(of_one_image).exclusions == ()
    path = of_one_image / RECORD
    whole = path.read_text()
    facts = json.loads(whole)
    facts["kept"]["images"] += 1
    path.write_text(json.dumps(facts))
    assert "is damaged" in str(read_record(of_one_image / TABLE))
    path.write_text(whole.replace(facts["table_sha256"], "0" * 64))
    assert "is of another table" in str(read_record(of_one_image / TABLE))
    path.unlink()
    assert "did not keep it" in str(read_record(of_one_image / TABLE))


@pytest.fixture
def of_one_image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.txt").touch()
    (tmp_path / "annotations" / "a.xml").write_text(
        "<annotation><object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
        "</bndbox></object></annotation>"
    )
    header = "image,patient_id,lesion_id,malignant,alnm,n_nodes,device"
    (tmp_path / "labels.csv").write_text(f"{header}\na.png,1,,1,,,\n")
    import_voc(tmp_path, tmp_path, name="one")
    assert recorded(tmp_path).other_files == {"files in annotations are no .xml": 1}
    return tmp_path

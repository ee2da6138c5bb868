import sys
from pathlib import Path

import pandas as pd
import pytest

from sonode.console import UserError
from tests.pictures import mask, picture
from train.cohorts.checks import ABSENT
from train.importers.public_sets.breast_lesions_usg import import_breast

COLUMNS = (
    *("CaseID", "Image_filename", "Mask_tumor_filename", "Mask_other_filename", "Age"),
    *("BIRADS", "Diagnosis", "Classification"),
)
ROWS = [
    [1, "case001.png", "case001_tumor.png", None, 57, "4a", "carcinoma", "malignant"],
    [
        *(2, "case002.png", "case002_tumor1.png&case002_tumor2.png", "case002_other1.png"),
        *("not available", "2", "not applicable", "benign"),
    ],
    [3, "case003.png", None, None, 33, "1", "not applicable", "normal"],
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "breast"
    images = source / "images_and_masks"
    for number in (1, 2, 3):
        picture(images / f"case{number:03d}.png", number)
    mask(images / "case001_tumor.png", 3, 4, 20, 30)
    mask(images / "case002_tumor1.png", 5, 5, 9, 9)
    mask(images / "case002_tumor2.png", 20, 5, 29, 9)
    mask(images / "case002_other1.png", 0, 0, 60, 50)
    (source / "~$book.xlsx").touch()  # Excel's lock file
    return source


def write(source: Path, rows: list[list[object]]) -> None:
    frame = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    frame.to_excel(source / "book.xlsx", index=False)


def test_breast_by_hand(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(source, ROWS)
    picture(source / "images_and_masks" / "case004.PNG", 4)
    cohort = import_breast(source, tmp_path / "out")
    table = cohort.table
    assert table["patient_id"].tolist() == ["breast_case001", "breast_case002", "breast_case002"]
    assert table["lesion_id"].nunique() == 3
    assert table["malignant"].tolist() == [True, False, False]
    assert table[["alnm", "n_nodes", "device"]].isna().all().all()
    # The other findings' mask is no lesion.
    assert [cohort.roi(index) for index in range(3)] == [
        (3, 4, 20, 30),
        (5, 5, 9, 9),
        (20, 5, 29, 9),
    ]
    assert (cohort.covariates, cohort.categorical) == (["age"], ["birads", "diagnosis"])
    assert table["age"].isna().tolist() == [False, True, True]
    assert table["age"][0] == 57.0
    assert table["birads"].tolist() == ["4a", "2", "2"]
    assert table["diagnosis"].isna().tolist() == [False, True, True]
    said = capsys.readouterr().out
    assert "normal images have no lesion and are left out (1)" in said
    assert "images are not in the sheet and are left out (1):\n  case004.PNG\n" in said
    # Nobody knows which of two is meant.
    picture(source / "again" / "case002.png", 5)
    with pytest.raises(UserError, match=r"case002\.png"):
        import_breast(source, tmp_path / "out")


def test_faults_of_breast(source: Path, tmp_path: Path) -> None:
    write(
        source,
        [
            [1, "case001.png", "case001_tumor.png", None, "old", "4", None, "maligne"],
            [2, "case002.png", "case002_tumor.png", None, 40, "2", None, "benign"],
            [3, "case003.png", None, None, 40, "2", None, "benign"],
        ],
    )
    with pytest.raises(UserError) as caught:
        import_breast(source, tmp_path / "out")
    assert caught.value.details == [
        "row 2 (case001.png), Classification: give benign, malignant or blank",
        "row 2 (case001.png), Age: give a number or blank",
        f"row 3 (case002.png), roi: case002_tumor.png: {ABSENT}",
        "row 4 (case003.png), roi: no box",
    ]


def test_what_is_not_breast_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"0 \.xlsx files"):
        import_breast(source, tmp_path / "out")
    (source / "book.xlsx").write_text("no workbook")
    with pytest.raises(UserError, match=r"book\.xlsx: not an Excel workbook"):
        import_breast(source, tmp_path / "out")
    pd.DataFrame({"CaseID": [1]}).to_excel(source / "book.xlsx")
    with pytest.raises(UserError, match="no column Image_filename, Mask_tumor_filename"):
        import_breast(source, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UserError, match=r"needs openpyxl .* extra `train`") as caught:
        import_breast(source, tmp_path / "out")
    assert caught.value.details == []

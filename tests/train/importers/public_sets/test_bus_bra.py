from pathlib import Path

import pytest

from sonode.console import UserError
from tests.pictures import mask, picture
from train.cohorts.images import read_image
from train.importers.masks import mask_box
from train.importers.public_sets.bus_bra import import_bus_bra
from train.tables.records import read_records
from train.tables.values import bbox

SHARED_BUS_BRA = Path(__file__).parents[5] / "shared" / "bus-bra"

HEADER = "ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX\n"
ROWS = (
    'bus_0001-l,1,Invasive ductal carcinoma,malignant,5,GE Logiq 5,60,50,left,"[4,6,17,25]"\n'
    'bus_0001-r,1,Invasive ductal carcinoma,malignant,5,GE Logiq 5,60,50,right,"[6,7,9,19]"\n'
    'bus_0002-s,2,,benign,2,,60,50,single,"[1,1,59,49]"\n'
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "BUSBRA"
    for seed, view in enumerate(("0001-l", "0001-r", "0002-s")):
        picture(source / "Images" / f"bus_{view}.png", seed)
    mask(source / "Masks" / "mask_0001-l.png", 3, 4, 21, 30)  # a pixel higher than its BBOX
    (source / "bus_data.csv").write_text(HEADER + ROWS)
    return source


def test_bus_bra_by_hand(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(source / "Images" / "bus_0009-l.png", 9)
    mask(source / "Masks" / "mask_0002-s.PNG", 0, 0, 9, 9)
    cohort = import_bus_bra(source, tmp_path / "out")
    table = cohort.table
    assert table["patient_id"].tolist() == ["bus_bra_1", "bus_bra_1", "bus_bra_2"]
    assert table["malignant"].tolist() == [True, True, False]
    assert table[["alnm", "n_nodes"]].isna().all().all()
    # The mask where there is one, else BBOX: first pixel from 1, and what lies beyond it.
    assert [cohort.roi(index) for index in range(3)] == [
        (3, 4, 21, 30),
        (5, 6, 15, 26),
        (0, 0, 60, 50),
    ]
    assert cohort.categorical == ["histology", "birads"]
    assert table["birads"].tolist() == ["5", "5", "2"]
    assert table["histology"].isna().tolist() == [False, False, True]
    assert table["device"].isna().tolist() == [False, False, True]
    assert cohort.image_path(2) == source / "Images" / "bus_0002-s.png"
    assert capsys.readouterr().out.splitlines() == [
        "files of Images have no row in bus_data.csv and are left out (1):",
        "  bus_0009-l.png",
        "files of Masks have no row in bus_data.csv and are left out (1):",
        "  mask_0002-s.PNG",
        "images have no mask in Masks: their box is BBOX (2)",
    ]


def test_the_official_folds_come_along(source: Path, tmp_path: Path) -> None:
    lines = ["ID,Pathology,kFold,valid_1", "bus_0001-l,malignant,3,1", "bus_0002-s,benign,10,0"]
    (source / "10-fold-cv.csv").write_text("\n".join(lines) + "\n")
    cohort = import_bus_bra(source, tmp_path / "out")
    assert cohort.partitions == ["fold_10"]
    assert cohort.categorical == ["histology", "birads"]  # a fold is no label
    assert cohort.table["fold_10"].isna().tolist() == [False, True, False]
    assert cohort.table["fold_10"].dropna().tolist() == ["3", "10"]


def test_a_mask_that_contradicts_its_bbox_is_a_fault(source: Path, tmp_path: Path) -> None:
    mask(source / "Masks" / "mask_0001-r.png", 5, 6, 17, 26)
    with pytest.raises(UserError) as caught:
        import_bus_bra(source, tmp_path / "out")
    assert caught.value.details == [
        "bus_data.csv line 3, roi: mask_0001-r.png shows the box [5, 6, 17, 26], and BBOX says "
        "[5, 6, 15, 26]; correct one"
    ]


@pytest.mark.skipif(not SHARED_BUS_BRA.is_dir(), reason="real BUS-BRA is not on this machine")
def test_the_masks_of_the_real_bus_bra_are_its_bboxes() -> None:
    records = read_records(SHARED_BUS_BRA / "bus_data.csv", ("ID", "BBOX")).rows[::50]
    for record in records:
        name = record["ID"].replace("bus_", "mask_")
        drawn = mask_box(read_image(SHARED_BUS_BRA / "Masks" / f"{name}.png"))
        assert drawn == bbox(record["BBOX"])


def test_faults_of_bus_bra(source: Path, tmp_path: Path) -> None:
    mask(source / "Masks" / "mask_0001-r.png", 0, 0, 0, 0)
    text = ROWS.replace("[1,1,59,49]", "0 0 60 50").replace("benign", "unsure")
    more = 'bus_0003-l,2,,benign,2,,60,50,left,""\n'
    other = ROWS.splitlines()[1].replace("malignant", "benign").replace("0001-r", "0001-s")
    (source / "bus_data.csv").write_text(HEADER + text + more + other + "\n")
    with pytest.raises(UserError) as caught:
        import_bus_bra(source, tmp_path / "out")
    assert caught.value.details == [
        "bus_data.csv line 3, roi: mask_0001-r.png shows no lesion",
        "bus_data.csv line 4, BBOX: give [x,y,w,h] in integer pixels",
        "bus_data.csv line 4, Pathology: give benign, malignant or blank",
        "bus_data.csv line 5, image: absent",
        "bus_data.csv line 5, roi: no box",
        "bus_data.csv line 6, image: absent",
        "bus_data.csv line 6, malignant: False contradicts bus_data.csv line 2 (True), same lesion",
    ]
    # With the case in doubt, all its views go.
    with pytest.raises(UserError, match="no row is left"):
        import_bus_bra(source, tmp_path / "out", drop_faulty=True)
    with pytest.raises(UserError, match=r"no bus_data\.csv"):
        import_bus_bra(tmp_path, tmp_path / "out")

from pathlib import Path

import pytest

from sonode_console import UserError
from tests.pictures import mask, picture
from train.importers import import_bus_bra

HEADER = "ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX\n"
ROWS = (
    'bus_0001-l,1,Invasive ductal carcinoma,malignant,5,GE Logiq 5,60,50,left,"[3,4,17,26]"\n'
    'bus_0001-r,1,Invasive ductal carcinoma,malignant,5,GE Logiq 5,60,50,right,"[5,6,10,20]"\n'
    'bus_0002-s,2,,benign,2,,60,50,single,"[0,0,60,50]"\n'
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "BUSBRA"
    for seed, view in enumerate(("0001-l", "0001-r", "0002-s")):
        picture(source / "Images" / f"bus_{view}.png", seed)
    mask(source / "Masks" / "mask_0001-l.png", 3, 4, 21, 30)  # a pixel wider than its BBOX
    (source / "bus_data.csv").write_text(HEADER + ROWS)
    return source


def test_bus_bra_by_hand(source: Path, tmp_path: Path) -> None:
    cohort = import_bus_bra(source, tmp_path / "out")
    table = cohort.table
    assert table["patient_id"].tolist() == ["bus_bra_1", "bus_bra_1", "bus_bra_2"]
    assert table["malignant"].tolist() == [True, True, False]
    assert table[["alnm", "n_nodes"]].isna().all().all()
    # The mask where there is one, else [x, y, w, h].
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


def test_faults_of_bus_bra(source: Path, tmp_path: Path) -> None:
    mask(source / "Masks" / "mask_0001-r.png", 0, 0, 0, 0)
    text = ROWS.replace("[0,0,60,50]", "0 0 60 50").replace("benign", "unsure")
    more = 'bus_0003-l,2,,benign,2,,60,50,left,""\n'
    other = ROWS.splitlines()[1].replace("malignant", "benign").replace("0001-r", "0001-s")
    (source / "bus_data.csv").write_text(HEADER + text + more + other + "\n")
    with pytest.raises(UserError) as caught:
        import_bus_bra(source, tmp_path / "out")
    assert caught.value.details == [
        "bus_data.csv line 3, roi: no box",
        "bus_data.csv line 4, BBOX: give [x,y,w,h] in whole pixels",
        "bus_data.csv line 4, Pathology: give benign, malignant or blank",
        "bus_data.csv line 5, image: absent or no PNG, JPEG, BMP, TIFF or WebP of 8 or 16 bits",
        "bus_data.csv line 5, roi: no box",
        "bus_data.csv line 6, image: absent or no PNG, JPEG, BMP, TIFF or WebP of 8 or 16 bits",
        "bus_data.csv line 6, malignant: False contradicts bus_data.csv line 2 (True), same lesion",
    ]
    # With the case in doubt, all its views go.
    with pytest.raises(UserError, match="no row is left"):
        import_bus_bra(source, tmp_path / "out", drop_faulty=True)
    with pytest.raises(UserError, match=r"holds no bus_data\.csv"):
        import_bus_bra(tmp_path, tmp_path / "out")

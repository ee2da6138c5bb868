import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_def.preprocessing import RoI
from sonode.boxes.labelimg import write_voc
from sonode.console import UserError
from tests.pictures import mask, picture
from train.cohorts.cohort import load_cohort
from train.importers.masks import mask_box
from train.importers.public_sets.busi import import_busi
from train.importers.table import import_voc

SHARED_BUSI = Path(__file__).parents[5] / "shared" / "busi"

UNSUPPORTED = "unsupported format; give PNG, JPEG, BMP, TIFF, WEBP or DICOM"


def test_mask_box_by_hand() -> None:
    pixels = np.zeros((5, 7), np.uint8)
    assert mask_box(pixels) is None
    pixels[1, 2] = pixels[3, 5] = 1
    assert mask_box(pixels) == RoI(2, 1, 6, 4)
    pixels[0, 0] = pixels[4, 6] = 127  # more than two values: what is nearer to 255 counts
    assert mask_box(pixels) is None
    pixels[1, 2], pixels[3, 5] = 128, 255
    assert mask_box(pixels) == RoI(2, 1, 6, 4)


@pytest.fixture
def busi(tmp_path: Path) -> Path:
    source = tmp_path / "busi"
    picture(source / "benign" / "benign (1).png", 1)
    mask(source / "benign" / "benign (1)_mask.png", 3, 4, 20, 30)
    mask(source / "benign" / "benign (1)_mask_1.png", 30, 4, 40, 30)
    picture(source / "benign" / "benign (10).png", 1)  # the same pixels as (1)
    mask(source / "benign" / "benign (10)_mask.png", 5, 5, 9, 9)
    picture(source / "malignant" / "malignant (1).png", 2)
    mask(source / "malignant" / "malignant (1)_mask.png", 0, 0, 60, 50)
    picture(source / "normal" / "normal (1).png", 3)
    return source


def test_busi_by_hand(busi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort = import_busi(busi, tmp_path / "out")
    table = cohort.table
    assert table["malignant"].tolist() == [False, False, False, True]
    assert table["alnm"].isna().all()
    assert table["n_nodes"].isna().all()
    assert [cohort.roi(index) for index in range(4)] == [
        (3, 4, 20, 30),
        (30, 4, 40, 30),
        (5, 5, 9, 9),
        (0, 0, 60, 50),
    ]
    # Equal pixels: one patient, so that they cannot fall into two parts of a split.
    assert table["patient_id"].tolist() == ["busi_benign_1"] * 3 + ["busi_malignant_1"]
    assert table["lesion_id"].nunique() == 4
    assert "; a duplicate lesion is kept once (1)" in capsys.readouterr().out
    assert not cohort.synthetic


def test_busi_refuses_what_stands_in_both_folders(busi: Path, tmp_path: Path) -> None:
    picture(busi / "malignant" / "malignant (2).png", 1)  # the same pixels as benign (1)
    mask(busi / "malignant" / "malignant (2)_mask.png", 4, 4, 20, 30)
    out = tmp_path / "out"
    with pytest.raises(UserError, match="2 faults") as caught:
        import_busi(busi, out)
    assert caught.value.details == [
        f"malignant (2).png, malignant: True contradicts {other} (False), a similar image (1.000)"
        for other in ("benign (1).png box 1", "benign (10).png")
    ]
    assert (out / "similar_images.html").read_text().count("<br>") == 2
    # All that has these pixels goes, under either label; nobody knows which is right.
    table = import_busi(busi, out, drop_faulty=True).table
    assert table["lesion_id"].tolist() == ["busi_malignant_1"]


def test_busi_joins_similar_images(busi: Path, tmp_path: Path) -> None:
    shown = np.asarray(Image.open(busi / "malignant" / "malignant (1).png"))
    bigger = Image.fromarray(shown).resize((120, 100), Image.Resampling.BICUBIC)
    bigger.save(busi / "malignant" / "malignant (7).png")
    drawn = np.zeros((100, 120), np.uint8)
    drawn[10:50, 20:60] = 255
    Image.fromarray(drawn).save(busi / "malignant" / "malignant (7)_mask.png")
    cohort = import_busi(busi, tmp_path / "out")
    malignant = cohort.table[cohort.table["malignant"]]
    assert malignant["lesion_id"].tolist() == ["busi_malignant_1", "busi_malignant_7"]
    assert malignant["patient_id"].tolist() == ["busi_malignant_1"] * 2
    assert not cohort.patient_ids
    assert not load_cohort(tmp_path / "out").patient_ids


def test_busi_drops_an_image_whose_mask_is_damaged(
    busi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (busi / "benign" / "benign (1)_mask_1.png").write_text("no image")
    with pytest.raises(UserError, match="1 fault;") as caught:
        import_busi(busi, tmp_path / "out")
    assert caught.value.details == [f"benign (1).png, roi: benign (1)_mask_1.png: {UNSUPPORTED}"]
    cohort = import_busi(busi, tmp_path / "out", drop_faulty=True)
    assert cohort.table["malignant"].tolist() == [False, True]
    said = capsys.readouterr().out
    assert "left out 1 of 3 rows for 1 fault:" in said
    assert "rows left out: benign (1).png\n" in said


def test_a_mask_of_another_size_is_a_fault(busi: Path, tmp_path: Path) -> None:
    half = np.zeros((25, 30), np.uint8)
    half[2:20, 3:15] = 255
    Image.fromarray(half).save(busi / "benign" / "benign (1)_mask_1.png")
    with pytest.raises(UserError) as caught:
        import_busi(busi, tmp_path / "out")
    assert caught.value.details == [
        "benign (1).png box 1, roi: benign (1)_mask_1.png was drawn on a frame of 30 x 25, and the "
        "image is 60 x 50; draw it again on this one"
    ]


def test_a_mask_that_was_a_jpeg_keeps_its_box(
    busi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = busi / "malignant" / "malignant (1)_mask.png"
    mask(path, 11, 13, 43, 39)
    noisy = io.BytesIO()
    with Image.open(path) as clean:
        clean.save(noisy, "JPEG", quality=50)
    with Image.open(noisy) as stored:
        stored.save(path)
        assert np.nonzero(np.asarray(stored))[0].min() < 13  # any pixel but 0 would move the box
    assert import_busi(busi, tmp_path / "out").roi(3) == (11, 13, 43, 39)
    told = capsys.readouterr().out
    assert "masks have more than two grey levels" in told
    assert "on count as the lesion (1)\n" in told


def test_a_mask_of_several_lesions_is_a_fault(busi: Path, tmp_path: Path) -> None:
    both = np.zeros((50, 60), np.uint8)
    both[5:20, 5:20], both[25:40, 25:40] = 76, 150  # red and green, as grey
    Image.fromarray(both).save(busi / "malignant" / "malignant (1)_mask.png")
    with pytest.raises(UserError) as caught:
        import_busi(busi, tmp_path / "out")
    assert caught.value.details == [
        "malignant (1).png, roi: malignant (1)_mask.png holds the greys 76, 150; give a mask of 0 "
        "and 255 for each"
    ]


def test_the_fault_of_an_image_is_not_reported_for_the_next(busi: Path, tmp_path: Path) -> None:
    # Of an image that repeats benign (1), one mask repeats its box and one is damaged.
    mask(busi / "benign" / "benign (10)_mask.png", 3, 4, 20, 30)
    (busi / "benign" / "benign (10)_mask_1.png").write_text("no image")
    with pytest.raises(UserError) as caught:
        import_busi(busi, tmp_path / "out")
    assert caught.value.details == [f"benign (10).png, roi: benign (10)_mask_1.png: {UNSUPPORTED}"]
    table = import_busi(busi, tmp_path / "out", drop_faulty=True).table
    assert table["lesion_id"].tolist() == ["busi_benign_1", "busi_benign_1_1", "busi_malignant_1"]
    # Without the damaged one it is skipped as a whole, and its masks are nobody else's.
    (busi / "benign" / "benign (10)_mask_1.png").unlink()
    table = import_busi(busi, tmp_path / "out").table
    assert table["lesion_id"].tolist() == ["busi_benign_1", "busi_benign_1_1", "busi_malignant_1"]


def test_nothing_of_busi_is_left_out_by_its_name_in_silence(
    busi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(busi / "benign" / "benign (2).PNG", 4)
    mask(busi / "benign" / "benign (2)_mask.Png", 1, 2, 30, 40)
    picture(busi / "malignant" / "case7 view1.bmp", 5)
    mask(busi / "malignant" / "case7 view1_mask.BMP", 2, 3, 31, 41)
    picture(busi / "malignant" / "case7 view2.bmp", 6)
    mask(busi / "malignant" / "case7 view2_mask.png", 3, 4, 32, 42)
    mask(busi / "malignant" / "malignant (9)_mask.png", 1, 2, 3, 4)
    (busi / "benign" / "benign (3).dcm").touch()
    (busi / "Benign 2").mkdir()
    cohort = import_busi(busi, tmp_path / "out")
    assert len(cohort.table) == 7
    boxes = {str(cohort.table["patient_id"][row]): cohort.roi(row) for row in range(3, 7)}
    assert boxes == {
        "busi_benign_2": (1, 2, 30, 40),
        "busi_malignant_1": (0, 0, 60, 50),
        "busi_malignant_case7 view1": (2, 3, 31, 41),
        "busi_malignant_case7 view2": (3, 4, 32, 42),
    }
    said = capsys.readouterr().out
    for line in (
        "files of benign do not have the name of an image and are left out (1):\n"
        "  benign (3).dcm\n",
        "masks of malignant have no image and are left out (1):\n  malignant (9)_mask.png\n",
        "files or folders are not one of BUSI's three and are left out (1):\n  Benign 2\n",
        "normal images have no lesion and are left out (1)\n",
    ):
        assert line in said


def test_busi_without_a_lesion_or_a_folder(busi: Path, tmp_path: Path) -> None:
    mask(busi / "malignant" / "malignant (1)_mask.png", 0, 0, 0, 0)
    out = tmp_path / "out"
    with pytest.raises(UserError) as caught:
        import_busi(busi, out)
    assert caught.value.details == [
        "malignant (1).png, roi: malignant (1)_mask.png shows no lesion"
    ]
    assert not (out / "cohort.parquet").exists()
    with pytest.raises(UserError, match="no folder `benign`"):
        import_busi(tmp_path, out)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_BUSI.is_dir(), reason="real BUSI images are not on this machine")
def test_the_real_busi(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = import_busi(SHARED_BUSI, tmp_path, drop_faulty=True).table
    told = [line for line in capsys.readouterr().out.splitlines() if "contradicts" in line]
    assert [line.split(",")[0].strip() for line in told] == [
        f"malignant ({number}).png" for number in (145, 51, 94)
    ]
    assert (len(table), table["image"].nunique()) == (343, 334)
    assert table.groupby("malignant")["image"].nunique().to_dict() == {False: 207, True: 127}
    assert table["patient_id"].nunique() == 307
    assert table.groupby("patient_id")["malignant"].nunique().max() == 1
    assert table["alnm"].isna().all()


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    source = tmp_path / "voc"
    for number, name in enumerate("ab"):
        picture(source / "images" / f"{name}.png", number)
        (source / "annotations").mkdir(exist_ok=True)
        write_voc(source / "annotations" / f"{name}.xml", f"{name}.png", 60, 50, RoI(1, 2, 30, 40))
    return source


def write_labels(source: Path, *rows: dict[str, str]) -> None:
    columns = ["image", "patient_id", "lesion_id", "malignant", "alnm", "n_nodes", "device"]
    with (source / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def test_voc_by_hand(voc: Path, tmp_path: Path) -> None:
    write_labels(
        voc,
        {"image": "a.png", "patient_id": "1", "malignant": "1", "alnm": "TRUE", "n_nodes": "3"},
        {"image": "b.png", "patient_id": "2", "malignant": "0"},
    )
    cohort = import_voc(voc, tmp_path / "out", name="ours")
    table = cohort.table
    assert cohort.roi(0) == (1, 2, 30, 40)
    assert table["malignant"].tolist() == [True, False]
    assert (table["alnm"][0], table["n_nodes"][0]) == (True, 3)
    assert table["alnm"].isna().tolist() == [False, True]
    assert table["device"].isna().all()
    assert cohort.image_path(1) == voc / "images" / "b.png"


def test_a_box_file_without_labels_is_reported(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(voc, {"image": "a.png", "patient_id": "1"})
    (voc / "annotations" / "c.txt").touch()
    picture(voc / "images" / "more" / "a.PNG", 5)
    assert len(import_voc(voc, tmp_path / "out", name="ours").table) == 1
    said = capsys.readouterr().out
    assert "files in annotations are no .xml and are left out (1):\n  c.txt\n" in said
    assert "images have no row in labels.csv and are left out (2):\n  a.PNG\n  b.png\n" in said
    assert "box files have no row in labels.csv and are left out (1):\n  b.xml\n" in said


def test_voc_faults_are_listed_at_once(voc: Path, tmp_path: Path) -> None:
    write_labels(
        voc,
        {"image": "a.png", "patient_id": "1", "malignant": "perhaps"},
        {"image": "a.png", "patient_id": "1", "n_nodes": "many"},
        {"image": "c.png", "patient_id": "1"},
    )
    with pytest.raises(UserError, match="5 faults") as caught:
        import_voc(voc, tmp_path / "out", name="ours")
    assert caught.value.details == [
        "labels.csv line 2, malignant: give 1, 0, true, false or blank",
        "labels.csv line 3, n_nodes: give an integer or blank",
        "labels.csv line 3, roi: same image and box as labels.csv line 2",
        "labels.csv line 4, roi: c.xml: no such file",
        "labels.csv line 4, image: absent",
    ]
    assert not (tmp_path / "out").exists()
    (voc / "labels.csv").write_text("image,patient_id\n")
    with pytest.raises(UserError, match="no column lesion_id, malignant, alnm, n_nodes, device"):
        import_voc(voc, tmp_path / "out", name="ours")
    (voc / "labels.csv").write_text(
        "image,patient_id,lesion_id,malignant,alnm,n_nodes,device,roi_x_min\n"
    )
    with pytest.raises(UserError, match="use `sonode import csv`"):
        import_voc(voc, tmp_path / "out", name="ours")
    (voc / "labels.csv").unlink()
    with pytest.raises(UserError, match=r"no labels\.csv"):
        import_voc(voc, tmp_path / "out", name="ours")

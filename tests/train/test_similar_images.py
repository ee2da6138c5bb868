from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sonode_console import UserError
from tests.train.test_near_duplicates import frame, stored_again
from train.cohort import load_cohort, write_cohort
from train.importers import import_csv
from train.similar_images import SHEET

ROWS = [*zip("abcdef", "123455", "001111", strict=True)]  # image, patient, malignant
COLUMNS = "image,patient_id,lesion_id,malignant,alnm,n_nodes,device,roi_x_min,roi_y_min,roi_x_max"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six images of five patients: b is a once more, d is c once more, e and f are of one."""
    for name, pixels in {
        "a": frame(0),
        "b": stored_again(frame(0), 50),
        "c": frame(1),
        "d": stored_again(frame(1), 50),
        "e": frame(2),
        "f": stored_again(frame(2), 50),
    }.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    lines = [f"{name}.png,{p},l,{m},,,,1,2,30,40" for name, p, m in ROWS]
    (tmp_path / "t.csv").write_text("\n".join([COLUMNS + ",roi_y_max", *lines]) + "\n")
    return tmp_path / "t.csv"


def test_similar_images_of_two_patients_are_faults(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="2 faults") as caught:
        import_csv(table, out, name="ours")
    remedy = "which is another patient; give both one patient_id, or leave them out"
    first, second = caught.value.details
    assert first.startswith("t.csv line 3, image: similar to t.csv line 2 (1.000)")
    assert second.startswith("t.csv line 5, image: similar to t.csv line 4 (1.000)")
    assert first.endswith(remedy)
    assert "2 pairs of similar images" in capsys.readouterr().out
    page = (out / SHEET).read_text()
    assert page.count("<img src=") == 4
    assert "t.csv line 3" in page
    assert not (out / "cohort.parquet").exists()

    cohort = import_csv(table, out, name="ours", drop_faulty=True)
    assert [Path(image).name for image in cohort.table["image"]] == ["e.png", "f.png"]


def test_one_patient_id_mends_them(table: Path, tmp_path: Path) -> None:
    text = table.read_text().replace("b.png,2", "b.png,1").replace("d.png,4", "d.png,3")
    table.write_text(text)
    out = tmp_path / "out"
    out.mkdir()
    (out / SHEET).write_text("of an earlier import")
    assert len(import_csv(table, out, name="ours").table) == 6
    assert not (out / SHEET).exists()


def test_a_cohort_with_similar_images_under_two_patients_is_refused(
    table: Path, tmp_path: Path
) -> None:
    # As one that was written before images were compared: training and evaluation load it.
    rows = import_csv(table, tmp_path / "out", name="ours", drop_faulty=True).table
    rows = rows.drop(columns="pixels_sha256")
    rows["patient_id"] = pd.array(["one", "other"], dtype=rows["patient_id"].dtype)
    write_cohort(tmp_path / "out", rows, name="ours", source="test", synthetic=False)
    with pytest.raises(UserError, match="1 faults") as caught:
        load_cohort(tmp_path / "out")
    (line,) = caught.value.details
    assert line.startswith("row 1, image: similar to row 0 (1.000)")


def test_a_third_image_spoils_all_that_it_resembles(table: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 4, frame(0).shape)
    noisy = np.clip(frame(0) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "c.png")
    cohort = import_csv(table, tmp_path / "out", name="ours", drop_faulty=True)
    left = [Path(image).name for image in cohort.table["image"]]
    assert left == ["d.png", "e.png", "f.png"]

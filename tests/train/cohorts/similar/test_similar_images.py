from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from sonode.console import UserError
from tests.conftest import HEADS
from tests.train.cohorts.similar.test_near_duplicates import frame, stored_again
from train.cohorts.cohort import load_cohort, write_cohort
from train.cohorts.similar.near_duplicates import SAME, SIMILAR, thumbnail
from train.cohorts.similar.similar_images import SHEET
from train.cohorts.split import part_of
from train.data.datamodule import CohortData
from train.data.split_remarks import split_remarks
from train.importers.table import import_csv

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


def test_the_same_picture_of_two_patients_is_a_fault(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="2 faults") as caught:
        import_csv(table, out, name="ours")
    remedy = "which is another patient; give both one patient_id, or leave them out"
    first, second = caught.value.details
    assert first.startswith("t.csv line 3, image: same picture as t.csv line 2 (similarity 1.000)")
    assert second.startswith("t.csv line 5, image: same picture as t.csv line 4 (similarity 1.000)")
    assert first.endswith(remedy)
    assert "(2 pairs): " in capsys.readouterr().out
    page = (out / SHEET).read_text()
    assert page.count("<img src=") == 4
    assert "t.csv line 3" in page
    assert not (out / "cohort.parquet").exists()

    cohort = import_csv(table, out, name="ours", drop_faulty=True)
    assert [Path(image).name for image in cohort.table["image"]] == ["e.png", "f.png"]


def test_one_patient_id_fixes_them(table: Path, tmp_path: Path) -> None:
    text = table.read_text().replace("b.png,2", "b.png,1").replace("d.png,4", "d.png,3")
    table.write_text(text)
    out = tmp_path / "out"
    out.mkdir()
    (out / SHEET).write_text("of an earlier import")
    assert len(import_csv(table, out, name="ours").table) == 6
    assert not (out / SHEET).exists()


def test_a_cohort_with_the_same_picture_under_two_patients_is_refused(
    table: Path, tmp_path: Path
) -> None:
    # As one that was written before images were compared: training and evaluation load it.
    rows = import_csv(table, tmp_path / "out", name="ours", drop_faulty=True).table
    rows = rows.drop(columns="pixels_sha256")
    rows["patient_id"] = pd.array(["one", "other"], dtype=rows["patient_id"].dtype)
    write_cohort(tmp_path / "out", rows, name="ours", source="test", synthetic=False)
    with pytest.raises(UserError, match="1 fault;") as caught:
        load_cohort(tmp_path / "out")
    (line,) = caught.value.details
    assert line.startswith("row 1, image: same picture as row 0 (similarity 1.000)")


def test_a_third_image_spoils_all_that_it_resembles(table: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 2, frame(0).shape)
    noisy = np.clip(frame(0) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "c.png")
    cohort = import_csv(table, tmp_path / "out", name="ours", drop_faulty=True)
    left = [Path(image).name for image in cohort.table["image"]]
    assert left == ["d.png", "e.png", "f.png"]


def test_similar_images_of_two_patients_are_reported_and_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = gaussian_filter(np.random.default_rng(9).normal(size=frame(0).shape), 6)
    alike = np.clip(frame(0) + 14 * other / other.std(), 0, 255).astype(np.uint8)
    similarity = np.corrcoef(
        *(np.frombuffer(thumbnail(it), np.uint8).astype(float) for it in (frame(0), alike))
    )[0, 1]
    assert SIMILAR < similarity < SAME
    for name, pixels in {"a": frame(0), "b": alike, "c": frame(1)}.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    lines = [f"{name}.png,{name},l,{number % 2},,,,1,2,30,40" for number, name in enumerate("abc")]
    (tmp_path / "t.csv").write_text("\n".join([COLUMNS + ",roi_y_max", *lines]) + "\n")
    out = tmp_path / "out"
    assert len(import_csv(tmp_path / "t.csv", out, name="ours").table) == 3
    said = capsys.readouterr().out
    assert (
        "similar images (correlation of 0.95 or more) are of different patients (1 pair): " in said
    )
    assert (out / SHEET).read_text().count("<img src=") == 2

    # Training tells of them where the split tears them apart.
    cohort = load_cohort(out)
    remarks = {}
    for seed in range(12):
        data = CohortData(out, split_seed=seed)
        data._cohort = cohort
        remarks[seed] = [it for it in split_remarks(data, HEADS[:1]) if "similar images" in it]
    torn = {seed: part_of("a", seed) != part_of("b", seed) for seed in range(12)}
    assert set(torn.values()) == {True, False}
    assert {seed: bool(lines) for seed, lines in remarks.items()} == torn
    for (line,) in (lines for lines in remarks.values() if lines):
        assert line.startswith("similar images of different patients in two parts: 1 pair;")
        assert line.endswith(f"rows 0 and 1 ({similarity:.3f})")

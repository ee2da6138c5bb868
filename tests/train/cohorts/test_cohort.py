import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from handlers.errors import ImageTooLarge
from model_def.images.decode import decode
from model_def.limits import MAX_BYTES
from sonode.console import UserError
from train.cohorts.checks import Scan, find_faults
from train.cohorts.cohort import SCHEMA, Cohort, load_cohort, write_cohort
from train.cohorts.images import read_image


def row(**changes: object) -> dict[str, object]:
    return {
        "patient_id": "p0",
        "lesion_id": "l0",
        "image": "a.png",
        "roi_x_min": 0,
        "roi_y_min": 0,
        "roi_x_max": 10,
        "roi_y_max": 10,
        "malignant": None,
        "alnm": None,
        "n_nodes": None,
        "device": None,
        **changes,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, value in (("a", 10), ("b", 20), ("same_as_a", 10)):
        Image.fromarray(np.full((30, 40), value, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "text.png").write_text("no image")
    return tmp_path


def load(folder: Path, *rows: dict[str, object]) -> Cohort:
    further = [name for name in (rows[0] if rows else ()) if name not in SCHEMA.names]
    frame = pd.DataFrame(list(rows), columns=[*SCHEMA.names, *further])
    write_cohort(folder, frame, name="test", source="test", synthetic=False)
    return load_cohort(folder)


def faults(folder: Path, *rows: dict[str, object]) -> list[str]:
    with pytest.raises(UserError, match=r"faults?; correct the rows") as caught:
        load(folder, *rows)
    return caught.value.details


def test_missing_labels_stay_missing(folder: Path) -> None:
    table = load(folder, row(), row(image="b.png", malignant=True, alnm=False)).table
    assert table["malignant"].isna().tolist() == [True, False]
    assert table["alnm"].isna().tolist() == [True, False]
    assert table["n_nodes"].isna().all()


def test_all_faults_are_listed_at_once_with_their_rows(folder: Path) -> None:
    found = faults(
        folder,
        row(malignant=False, n_nodes=2),
        row(image="b.png", lesion_id="l1", malignant=False, alnm=True),
        row(image="b.png", lesion_id="l2", roi_x_max=41, alnm=False, n_nodes=1),
        row(image="b.png", roi_x_min=None),
        row(image="b.png", roi_y_max=0),
        row(image="b.png", lesion_id="l3", roi_y_min=-1, n_nodes=-2),
        row(image="same_as_a.png", patient_id="p1"),
        row(image="text.png"),
        row(image="none.png"),
        row(image="b.png"),
        row(image="b.png", lesion_id="l4"),
        row(image="a.png", lesion_id="l5", roi_x_max=9, patient_id=" "),
    )
    assert found == [
        "row 0, malignant: benign with positive nodes",
        "row 1, malignant: benign with positive nodes",
        "row 2, roi: box [0, 0, 41, 10] reaches outside the image of 40 x 30",
        "row 2, alnm: False contradicts n_nodes 1",
        "row 3, roi: no box",
        "row 4, roi: box [0, 0, 10, 0] is empty",
        "row 5, roi: box [0, -1, 10, 10] reaches outside the image of 40 x 30",
        "row 5, n_nodes: -2 is negative",
        "row 6, image: same pixels as row 0, which is another patient",
        "row 6, roi: same image and box as row 0",
        "row 7, image: unsupported format; give PNG, JPEG, BMP, TIFF, WEBP or DICOM",
        "row 8, image: absent",
        "row 9, roi: same image and box as row 1",
        "row 10, roi: same image and box as row 1",
        "row 11, patient_id: missing; the split needs it",
        "row 11, image: same pixels as row 0, which is another patient",
    ]


def test_a_box_may_fill_the_frame_and_lesions_may_share_an_image(folder: Path) -> None:
    whole = row(roi_x_max=40, roi_y_max=30)
    assert len(load(folder, whole, row(lesion_id="l1"), row(image="b.png")).table) == 3


def test_the_digest_is_of_rows_and_pixels_not_of_places(phantom: Cohort, tmp_path: Path) -> None:
    moved = load_cohort(Path(shutil.copytree(phantom.folder, tmp_path / "moved")))
    assert moved.sha256 == phantom.sha256
    image = moved.image_path(0)
    pixels = np.asarray(Image.open(image)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(image)
    assert load_cohort(moved.folder).sha256 != phantom.sha256


def test_what_is_no_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a cohort \(no cohort\.parquet\); make one with"):
        load_cohort(tmp_path)
    table = tmp_path / "cohort.parquet"
    table.write_text("x")
    with pytest.raises(UserError, match="is not a cohort table"):
        load_cohort(tmp_path)
    pd.DataFrame({"a": [1]}).to_parquet(table)
    with pytest.raises(UserError, match="is not a cohort table"):
        load_cohort(tmp_path)


def test_a_flipped_bit_in_the_table_is_seen(folder: Path) -> None:
    load(folder, row(patient_id="patient-0"))
    table = folder / "cohort.parquet"
    data = table.read_bytes()
    assert data.count(b"patient-0") > 1  # in the page, and in the statistics
    table.write_bytes(data.replace(b"patient-0", b"patient-1", 1))
    with pytest.raises(UserError, match="is not a cohort table"):
        load_cohort(folder)


def test_other_columns_and_no_rows_are_refused(folder: Path) -> None:
    load(folder, row())
    path = folder / "cohort.parquet"
    pq.write_table(pq.read_table(path).drop(["device"]), path)
    with pytest.raises(UserError, match="columns"):
        load_cohort(folder)
    with pytest.raises(UserError, match="has no rows"):
        load(folder)


def test_further_columns_are_carried_along(folder: Path) -> None:
    cohort = load(
        folder,
        row(age=41.5, subtype=None, grade="G1"),
        row(image="b.png", age=None, subtype="luminal", grade="G2"),
    )
    assert (cohort.covariates, cohort.categorical) == (["age"], ["subtype", "grade"])
    assert cohort.table["age"].isna().tolist() == [False, True]
    assert cohort.table["age"][0] == 41.5
    assert cohort.table["subtype"].isna().tolist() == [True, False]
    other = load(folder, row(age=41.5, subtype="HER2", grade="G1"))
    assert other.sha256 != cohort.sha256
    plain = load(folder, row())
    assert plain.covariates == plain.categorical == []


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("stage", pa.array([1], pa.int64()), "`stage`: holds int64; write it as string or float64"),
        ("ki67", pa.array([True]), "`ki67`: holds bool; write it as string or float64"),
        ("Age (y)", pa.array([1.0]), r"`Age \(y\)`: "),
        ("pixels_sha256", pa.array(["x"]), "`pixels_sha256`: the name is reserved"),
    ],
)
def test_a_further_column_of_another_kind_is_refused(
    folder: Path, name: str, values: pa.Array, message: str
) -> None:
    load(folder, row())
    path = folder / "cohort.parquet"
    pq.write_table(pq.read_table(path).append_column(name, values), path)
    with pytest.raises(UserError, match=message) as caught:
        load_cohort(folder)
    assert caught.value.details == []


def test_an_infinite_covariate_and_a_null_patient_are_refused(folder: Path) -> None:
    assert faults(folder, row(age=np.inf)) == ["row 0, age: must be a finite number"]
    load(folder, row())
    path = folder / "cohort.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "patient_id", pa.array([None], pa.string())), path)
    with pytest.raises(UserError, match="column `patient_id`: has nulls"):
        load_cohort(folder)


def test_one_lesion_has_one_status(folder: Path) -> None:
    assert faults(
        folder,
        row(malignant=True),
        row(image="b.png", malignant=None, alnm=True, n_nodes=2),
        row(image="b.png", malignant=False, roi_x_max=9),
        row(image="b.png", alnm=True, n_nodes=3, roi_x_max=8),
        row(image="b.png", lesion_id="l1", malignant=False, roi_x_max=7),
    ) == [
        "row 2, malignant: False contradicts row 0 (True), same lesion",
        "row 3, n_nodes: 3 contradicts row 1 (2), same lesion",
    ]


def test_an_image_that_is_not_taken_says_why(folder: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (60, 80), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "torn.png")
    Image.fromarray(noise).save(folder / "other.gif")
    whole = (folder / "torn.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    (folder / "header.png").write_bytes(whole[:12])
    (folder / "empty.png").touch()
    (folder / "frame.dcm").write_bytes(bytes(128) + b"DICM")
    (folder / "folder.png").mkdir()
    why = {
        "torn.png": "damaged or truncated: its end is missing; give the complete file",
        "header.png": "damaged or truncated: its end is missing; give the complete file",
        "empty.png": "an empty file; copy it again",
        "frame.dcm": "DICOM file without pixels; give an image",
        "other.gif": "unsupported format; give PNG, JPEG, BMP, TIFF, WEBP or DICOM",
        "folder.png": "a folder; give a file",
        "none/a.png": "absent",
    }
    rows = [row(image=name, lesion_id=name) for name in why]
    expected = [f"row {place}, image: {what}" for place, what in enumerate(why.values())]
    assert faults(folder, *rows) == expected


def test_many_frames_of_one_lesion_are_gone_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def count(value: object) -> bool:
        nonlocal calls
        calls += 1
        return isna(value)

    isna = pd.isna
    monkeypatch.setattr("train.cohorts.checks.pd.isna", count)
    found = []
    for frames in (20, 40):
        calls = 0
        rows = [row(image=str(place), malignant=place > 0) for place in range(frames)]
        scans = {str(place): Scan(str(place), 40, 30, b"") for place in range(frames)}
        frame = pd.DataFrame(rows, columns=[*SCHEMA.names])
        told = list(find_faults(frame, scans))
        assert [fault.other for fault in told] == [0] * (frames - 1)
        assert all(fault.spoils == tuple(range(frames)) for fault in told)
        found.append(calls)
    assert found[1] <= 2 * found[0]


def test_a_damaged_picture_is_a_fault_that_says_so(folder: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (60, 80), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "cut.jpg")
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    (fault,) = faults(folder, row(image="cut.jpg", lesion_id="cut"))
    assert fault.startswith(
        "row 0, image: damaged: the JPEG's data (Corrupt JPEG data: premature end"
    )


def test_the_limits_of_serving_hold_in_training(folder: Path) -> None:
    # 16,008,001 pixels and 144 Mpx, of which Pillow would warn, in some kB.
    Image.fromarray(np.zeros((4001, 4001), np.uint8)).save(folder / "large.png")
    Image.fromarray(np.zeros((12000, 12000), np.uint8)).save(folder / "huge.png")
    (folder / "bytes.png").write_bytes(bytes(MAX_BYTES + 1))
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(folder / "scans.jpg")
    jpeg = (folder / "scans.jpg").read_bytes()
    scan = jpeg[jpeg.index(b"\xff\xda") : -2]
    (folder / "scans.jpg").write_bytes(jpeg[:-2] + scan * 100 + jpeg[-2:])
    names = ("large.png", "huge.png", "bytes.png", "scans.jpg")
    rows = [row(image=name, lesion_id=name) for name in names]
    assert faults(folder, *rows) == [
        "row 0, image: 4001 x 4001 pixels; the limit is 16000000 in total; crop it",
        "row 1, image: 12000 x 12000 pixels; the limit is 16000000 in total; crop it",
        "row 2, image: 33554433 bytes; the limit is 33554432; give only the lesion's frame",
        "row 3, image: the JPEG has 101 scans; the limit is 100",
    ]
    for name in names:
        with pytest.raises(ImageTooLarge):
            decode((folder / name).read_bytes())


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("floating.tiff", np.zeros((40, 40), np.float32)),
        ("several.tiff", np.zeros((40, 40), np.uint8)),
        ("other.gif", np.zeros((40, 40), np.uint8)),
    ],
)
def test_what_serving_refuses_is_not_trained_on(
    tmp_path: Path, name: str, pixels: np.ndarray
) -> None:
    image = Image.fromarray(pixels)
    more = {"save_all": True, "append_images": [image]} if name == "several.tiff" else {}
    image.save(tmp_path / name, **more)
    with pytest.raises(OSError):
        read_image(tmp_path / name)

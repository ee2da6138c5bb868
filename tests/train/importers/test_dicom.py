"""Folders of DICOM files: labels and boxes of a table, boxes of an SR, the pixels of serving."""

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from handlers.images.prepare import prepare
from handlers.requests import ScoringRequest
from model_def.preprocessing import Preprocessing, RoI
from sonode.console import UserError
from tests.handlers import dicoms
from tests.handlers.dicoms import SECRETS, dataset, region, write
from train.cohorts.cohort import Cohort
from train.cohorts.images import ImageError, read_image
from train.data.datamodule import CohortData
from train.importers.dicom import import_dicom

REAL = (
    "examples_rgb_color.dcm",
    "examples_palette.dcm",
    "examples_jpeg2k.dcm",
    "examples_ybr_color.dcm",  # 30 frames of JPEG
    "ExplVR_BigEnd.dcm",
    "US1_J2KI.dcm",
    "OBXXXX1A_2frame.dcm",
    "OBXXXX1A_rle_2frame.dcm",
    "gdcm-US-ALOKA-16.dcm",
)
BOX = {"roi_x_min": 3, "roi_y_min": 2, "roi_x_max": 14, "roi_y_max": 10}


def table(source: Path, *rows: dict[str, object]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (source / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def put(source: Path, name: str, number: int = 1, **elements: object) -> str:
    """A loop of three frames; returns its SOPInstanceUID."""
    frames = np.random.default_rng(number).integers(0, 256, (3, 12, 16), dtype=np.uint8)
    facts = {"SOPInstanceUID": f"1.2.3.{number}", "PatientID": f"MRN-{number}", **elements}
    made = dataset(frames, "MONOCHROME2", frames=3, **facts)
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    (source / name).write_bytes(write(made))
    return str(made.SOPInstanceUID)


def report(source: Path, *drawn: tuple[str, object, tuple[int, int, int, int]]) -> None:
    """An SR that draws each box on a frame (from 1, or none) of an instance."""
    items = []
    for instance, frame, (x0, y0, x1, y1) in drawn:
        image, selected, shape = Dataset(), Dataset(), Dataset()
        image.ReferencedSOPClassUID = uid.UltrasoundMultiFrameImageStorage
        image.ReferencedSOPInstanceUID = instance
        if frame is not None:
            image.ReferencedFrameNumber = frame
        selected.RelationshipType, selected.ValueType = "SELECTED FROM", "IMAGE"
        selected.ReferencedSOPSequence = Sequence([image])
        shape.RelationshipType, shape.ValueType = "CONTAINS", "SCOORD"
        shape.GraphicType = "POLYLINE"
        shape.GraphicData = [x0, y0, x1, y0, x1, y1, x0, y1, x0, y0]
        shape.ContentSequence = Sequence([selected])
        items.append(shape)
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = uid.ComprehensiveSRStorage, "1.2.9"
    made.ValueType, made.ContentSequence = "CONTAINER", Sequence(items)
    (source / "report.dcm").write_bytes(write(made))


def run(source: Path, out: Path, **options: object) -> Cohort:
    return import_dicom(source, out, name="dicom", **options)  # type: ignore[arg-type]


def served(path: Path, frame: int | None, box: RoI, facts: Preprocessing) -> np.ndarray:
    """The crop that a request for the file gets."""
    return prepare(ScoringRequest(path.read_bytes(), box, None, frame), facts).crop_HW


@pytest.mark.parametrize("name", [*dicoms.all_kinds(), *REAL])
def test_training_reads_the_pixels_that_serving_reads(tmp_path: Path, name: str) -> None:
    """Compared with pydicom's own pixels in the tests of the decoder."""
    path = tmp_path / "a.dcm"
    path.write_bytes(
        Path(str(get_testdata_file(name))).read_bytes()
        if name in REAL
        else dicoms.all_kinds()[name]
    )
    header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    frames, whole = int(header.get("NumberOfFrames") or 1), RoI(0, 0, header.Columns, header.Rows)
    facts = Preprocessing(size=32)
    if frames == 1:
        assert np.array_equal(read_image(path), served(path, None, whole, facts))
        return
    for frame in (0, frames - 1):
        pixels = read_image(path.with_name(f"a.dcm#frame={frame}"))
        assert np.array_equal(pixels, served(path, frame, whole, facts))
    for reference, what in (("", "missing"), (f"#frame={frames}", "range"), ("#frame=x", "number")):
        with pytest.raises(ImageError, match=what):
            read_image(path.with_name(f"a.dcm{reference}"))


def test_a_table_names_frames_of_loops(tmp_path: Path) -> None:
    facts = {"PatientAge": "045Y", "Manufacturer": "Maker", "ManufacturerModelName": " LOGIQ  700"}
    scale = region(1, 1, 0, 0, 15, 11)
    scale.PhysicalUnitsXDirection = scale.PhysicalUnitsYDirection = 3  # cm
    scale.PhysicalDeltaX, scale.PhysicalDeltaY = 0.02, -0.03
    one = put(tmp_path, "deep/one.dcm", 1, **facts, SequenceOfUltrasoundRegions=Sequence([scale]))
    put(tmp_path, "two.dcm", 2, PatientAge="Y045", PixelSpacing=[0.4, 0.5])
    put(tmp_path, "three.dcm", 3)
    table(
        tmp_path,
        {"instance_uid": one, "frame": 0, **BOX, "lesion_id": "L", "malignant": 1, "birads": "4a"},
        {"instance_uid": one, "frame": 2, **BOX, "lesion_id": "L", "malignant": 1, "birads": "4a"},
        {"file": "two.dcm", "frame": 1, **BOX, "n_nodes": 2, "birads": "5"},
    )
    cohort = run(tmp_path, tmp_path / "out")
    rows = cohort.table
    assert [Path(str(it)).name for it in rows["image"]] == [
        "one.dcm#frame=0",
        "one.dcm#frame=2",
        "two.dcm#frame=1",
    ]
    assert rows["lesion_id"].tolist() == ["L", "L", "two.dcm#frame=1"]
    assert rows["malignant"].isna().tolist() == [False, False, True]  # missing, not benign
    assert rows["alnm"].tolist()[2]
    assert rows["birads"].tolist() == ["4a", "4a", "5"]
    assert rows["device"].fillna("").tolist() == ["Maker LOGIQ 700", "Maker LOGIQ 700", ""]
    known = rows[["age", "pixel_width_mm", "pixel_height_mm"]].astype(float)
    assert known.to_numpy()[:2].tolist() == [pytest.approx([45, 0.2, 0.3])] * 2
    assert known.isna().to_numpy().tolist()[2] == [True, False, False]
    assert known.to_numpy()[2, 1:].tolist() == [0.5, 0.4]
    patients = rows["patient_id"].tolist()
    assert patients[0] == patients[1] != patients[2]
    assert not any(name in str(patients) for name in ("MRN", *SECRETS))
    again = run(tmp_path, tmp_path / "other", patient_key=tmp_path / "out" / "patient_key")
    assert again.table["patient_id"].tolist() == patients
    assert run(tmp_path, tmp_path / "third").table["patient_id"].tolist() != patients

    data, facts_ = CohortData(cohort.folder), Preprocessing(context=0.1)
    frames = ((tmp_path / "deep/one.dcm", 0), (tmp_path / "deep/one.dcm", 2))
    for crop, (path, frame) in zip(data.crops_of([0, 1], facts_), frames, strict=True):
        assert np.array_equal(crop, served(path, frame, cohort.roi(0), facts_))


def test_boxes_of_a_report_and_labels_of_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three = (put(tmp_path, f"{number}.dcm", number) for number in (1, 2, 3))
    report(
        tmp_path,
        (one, 1, (3, 2, 14, 10)),
        (one, 3, (4, 2, 14, 10)),
        (two, None, (1, 1, 9, 9)),
        (two, 3, (2, 2, 9, 9)),
        (three, 2, (5, 5, 12, 11)),
        ("1.2.3.99", 1, (5, 5, 12, 11)),
    )
    table(
        tmp_path,
        {"instance_uid": one, "frame": "", "lesion_id": "L", "malignant": 0},
        {"instance_uid": two, "frame": 1, "lesion_id": "M", "malignant": 1},
    )
    rows = run(tmp_path, tmp_path / "out").table
    assert [Path(str(it)).name for it in rows["image"]] == [
        "1.dcm#frame=0",
        "1.dcm#frame=2",
        "2.dcm#frame=1",
        "3.dcm#frame=1",
    ]
    assert rows["lesion_id"].tolist()[:3] == ["L", "L", "M"]
    assert rows["roi_x_min"].tolist() == [3, 4, 1, 5]
    assert rows["malignant"].to_numpy(object, na_value=None).tolist() == [False, False, True, None]
    told = capsys.readouterr().out
    assert (
        "drawn boxes are not used: a row has a box or names a frame (1)" in told
    )  # on a frame that its row does not name
    assert "boxes are drawn on images that are not in SRC (1)" in told


def test_a_refused_import_leaves_no_key_and_takes_none_away(tmp_path: Path) -> None:
    source, key = tmp_path / "files", tmp_path / "out" / "patient_key"
    good = {"instance_uid": put(source, "1.dcm"), "frame": 0, **BOX}
    table(source, {**good, "frame": 3})
    with pytest.raises(UserError, match="1 fault;"):
        run(source, tmp_path / "out")
    assert not key.exists()
    table(source, {**good, "patient_id": "own"})
    run(source, tmp_path / "out")
    table(source, {**good, "frame": 3})
    with pytest.raises(UserError):
        run(source, tmp_path / "out")
    assert not key.exists()  # beside a cohort without a key
    table(source, good)
    run(source, tmp_path / "out")
    kept = key.read_text()
    assert key.stat().st_mode & 0o777 == 0o600
    table(source, {**good, "frame": 3})
    with pytest.raises(UserError):
        run(source, tmp_path / "out")
    assert key.read_text() == kept


def test_faults(tmp_path: Path) -> None:
    source = tmp_path / "files"
    one, two, three = (put(source, f"{number}.dcm", number) for number in (1, 2, 3))
    put(source, "again.dcm", 2)
    report(source, (three, None, (1, 1, 9, 9)))
    good = {"instance_uid": one, "frame": 0, "patient_id": "a", **BOX}
    table(
        source,
        good,
        {**good, "frame": 3},
        {**good, "frame": ""},
        {**good, "frame": 1, "roi_x_max": 17},
        {**good, "instance_uid": "1.2.3.77"},
        {**good, "instance_uid": two, "patient_id": "b"},
        {**good, "frame": 2, "patient_id": "other"},
        {"instance_uid": three, "patient_id": "c"},
        {"file": "none.dcm", "patient_id": "c", **BOX},
    )
    with pytest.raises(UserError) as caught:
        run(source, tmp_path / "out")
    told = [line.removeprefix("labels.csv line ") for line in caught.value.details]
    assert told == [
        "3, image: frame: 3 is out of range; the file has 3 frames; give 0 to 2",
        "4, image: frame: missing; the file has 3 frames; give 0 to 2",
        "5, roi: box [3, 2, 17, 10] reaches outside the image of 16 x 12",
        "6, image: no file in SRC has this SOPInstanceUID",
        "7, image: 2.dcm and again.dcm have the same SOPInstanceUID; keep one",
        "8, patient_id: the file's PatientID has another id in a row above",
        "9, roi: drawn on a loop, and on no frame of it; give `frame`, or a box in the table",
        "9, image: frame: missing; the file has 3 frames; give 0 to 2",
        "10, image: absent",
    ]
    assert not (tmp_path / "out" / "cohort.parquet").exists()
    kept = run(source, tmp_path / "out", drop_faulty=True).table
    assert [Path(str(it)).name for it in kept["image"]] == ["1.dcm#frame=0"]

    (source / "torn.dcm").write_bytes((source / "1.dcm").read_bytes()[:300])
    with pytest.raises(UserError, match=r"DICOM files cannot be read \(1\)") as caught:
        run(source, tmp_path / "out")
    assert caught.value.details == ["torn.dcm"]
    assert len(run(source, tmp_path / "out", drop_faulty=True).table) == 1

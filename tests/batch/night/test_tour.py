"""The tour of docs/pacs.md: one night of real files, read back, judged and rendered."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")

from model_def.images.decode import decode
from tests.batch.dicom import pacs, rendered, ultrasound
from tests.batch.dicom.pacs import Orthanc
from tests.test_docs import ROOT, blocks, run

pytestmark = pytest.mark.live
MORE = {  # of pydicom-data: box and frame
    "gdcm-US-ALOKA-16.dcm": (150, 100, 400, 300, ""),  # implicit VR, palette of 16 bits
    "OBXXXX1A_rle_2frame.dcm": (200, 150, 500, 400, 1),  # RLE, private elements
    "JPGLosslessP14SV1_1s_1f_8b.dcm": (300, 200, 700, 500, ""),  # grey
}
LETTERS = {  # character set and name, as of other countries' devices
    "gdcm-US-ALOKA-16.dcm": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    "OBXXXX1A_rle_2frame.dcm": ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
}
UID_OF_PYDICOM = pydicom.dcmread(get_testdata_file("examples_palette.dcm")).SOPInstanceUID
TEXT = (235, 235, 235)


@pytest.fixture
def without_password(tmp_path: Path) -> Iterator[Orthanc]:
    with pacs.started(tmp_path / "orthanc", AuthenticationEnabled=False) as it:
        yield it


def today(name: str, folder: Path) -> Dataset:
    """A file of pydicom-data as today's, JPEG Lossless unpacked: pydicom alone cannot read it."""
    path = str(get_testdata_file(name, download=False))
    file = pydicom.dcmread(path)
    if file.file_meta.TransferSyntaxUID == pydicom.uid.JPEGLosslessSV1:
        subprocess.run(["dcmdjpeg", path, str(folder / "plain.dcm")], check=True)
        file = pydicom.dcmread(folder / "plain.dcm")
    if name in LETTERS:
        file.SpecificCharacterSet, file.PatientName = LETTERS[name]
    file.StudyDate = f"{datetime.now():%Y%m%d}"
    if file.SOPInstanceUID == UID_OF_PYDICOM:  # one of its files as well, which has other pixels
        file.StudyInstanceUID += ".1"
        file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = f"{UID_OF_PYDICOM}.1"
    return file


@pytest.mark.slow  # its steps have tests of their own
def test_the_tour(
    without_password: Orthanc, archive_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("dsr2html") is None:
        pytest.skip("DCMTK is not installed: apt-get install dcmtk")
    monkeypatch.setenv("PACS", without_password.dicomweb)
    (tmp_path / "work/store").mkdir(parents=True)
    (tmp_path / "work/store/breast_us-1.0.mar").symlink_to(archive_path)
    steps = blocks((ROOT / "docs/pacs.md").read_text().partition("## From a PACS")[0])
    fill, night, back, show = [(kind, text) for kind, text in steps if kind != "bash"]
    run([sys.executable, "-W", "ignore", "-c", fill[1]], tmp_path)
    with (tmp_path / "boxes.csv").open("a") as table:
        for name, box in MORE.items():
            file = today(name, tmp_path)
            without_password.put(ultrasound.encoded(file))
            print(file.SOPInstanceUID, *box, sep=",", file=table)
    said = run(f"({night[1]}) 2>&1", tmp_path)
    assert re.search(r"objects at the PACS, accepted +21\n", said)
    run([sys.executable, "-W", "ignore", "-c", back[1]], tmp_path)
    run(show[1], tmp_path)

    rows = pd.read_parquet(tmp_path / "work/night/results").set_index("instance_uid")
    assert len(rows) == 4 + len(MORE)
    files = {it: pydicom.dcmread(it) for it in (tmp_path / "back").glob("*.dcm")}
    images = {it.SOPInstanceUID: path for path, it in files.items() if it.Modality == "US"}
    seen = {"SR": 0, "OT": 0, "PR": 0}
    for path, made in files.items():
        if made.Modality == "US":
            continue
        seen[made.Modality] += 1
        assert ultrasound.check(tmp_path / "it.dcm", path.read_bytes()) == []
        (uid,) = {str(it.value) for it in made.iterall() if str(it.value) in images}
        image = pydicom.dcmread(images[uid])
        assert (made.PatientName, made.PatientID) == (image.PatientName, image.PatientID)
        for secret in (image.PatientName, image.PatientID, image.StudyInstanceUID):
            assert len(str(secret)) < 5 or str(secret) not in said
        judge = {"SR": judge_report, "OT": judge_capture, "PR": judge_state}[made.Modality]
        judge(path, made, rows.loc[uid], images[uid])
    assert {str(it.PatientName) for it in files.values()} > {name for _, name in LETTERS.values()}
    assert seen == {"SR": 7, "OT": 7, "PR": 7}


def judge_report(path: Path, made: Dataset, row: pd.Series, _: Path) -> None:
    """The text has the numbers of the Parquet row, and the model that they are of."""
    text = rendered.report(path)
    assert "Imaging Measurement Report" in text and row["model_sha256"] in text
    assert "Probability of cancer" in text and "Probability of ALNM" in text
    for head in ("malignancy", "alnm"):
        assert str(round(row[f"{head}_probability"], 6)) in text
        assert str(round(row[f"{head}_threshold"], 6)) in text


def judge_capture(path: Path, made: Dataset, row: pd.Series, image: Path) -> None:
    """The box is burnt in around the RoI, the frame is the one that was scored, maps are there."""
    shown = rendered.pixels(rendered.picture(path))
    frame = None if pd.isna(row["frame"]) else int(row["frame"])
    grey = decode(image.read_bytes(), frame).grey_HW
    rows, columns = grey.shape
    x0, y0, x1, y1 = map(int, row["roi_used"])
    within = shown[32 : 32 + rows, 8 : 8 + columns]
    outline = np.zeros((rows, columns), bool)
    outline[y0:y1, x0:x1] = True
    outline[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = False
    assert (within[outline] == rendered.BOX).all()
    assert (within[~outline] == grey[~outline][:, None]).all()
    below = shown[32 + rows :].reshape(-1, 3)
    assert (np.ptp(below, axis=1) > 30).sum() > 1000  # heat maps in colour
    assert ((below == TEXT).all(axis=1)).sum() > 500


def judge_state(path: Path, made: Dataset, row: pd.Series, image: Path) -> None:
    """The line runs around the RoI of its frame; of a grey image DCMTK draws and reads it."""
    x0, y0, x1, y1 = map(float, row["roi_used"])
    outline = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    (annotation,) = made.GraphicAnnotationSequence
    (reference,) = annotation.ReferencedImageSequence
    number = reference.get("ReferencedFrameNumber")
    assert number == (None if pd.isna(row["frame"]) else row["frame"] + 1)
    original = pydicom.dcmread(io.BytesIO(image.read_bytes()))
    if original.PhotometricInterpretation == "MONOCHROME2":
        shown, line, said = rendered.state(path, image)
        assert np.abs(np.asarray(shown).astype(int) - original.pixel_array).max() <= 2  # a window
        assert f"P(malignant) = {row['malignancy_probability']:.3f}" in said
    else:  # DCMTK applies no colour states, so this is a picture for the eye
        line = np.reshape(annotation.GraphicObjectSequence[0].GraphicData, (5, 2)).tolist()
        frame = None if number is None else int(number) - 1
        shown = Image.fromarray(decode(image.read_bytes(), frame).grey_HW)
    assert [tuple(it) for it in line] == outline
    rendered.drawn(shown, outline).save(path.with_suffix(".drawn.png"))

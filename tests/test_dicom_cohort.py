"""Loops in hospital files, from the import to the night's scores: one frame for each box."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from archives.packing.loader import load_archive
from archives.packing.pack import pack
from batch import run
from batch.results import schema
from sonode.console import progress
from sonode.files.parquet import ROI_COLUMNS
from tests.command_line import sonode
from tests.handlers.dicoms import dataset, write
from tests.train.trainings import train
from train.cohorts.cohort import Cohort
from train.importers.dicom import import_dicom


@pytest.fixture
def loops(phantom: Cohort, tmp_path: Path) -> Path:
    """The phantom's images as the second frames of loops, with a table."""
    source = tmp_path / "files"
    source.mkdir()
    rows = phantom.table.drop(columns=["image", "pixels_sha256"]).copy()
    rows["file"] = [f"{number}.dcm" for number in range(len(rows))]
    rows["frame"] = 1
    for number, (file, patient) in enumerate(zip(rows["file"], rows["patient_id"], strict=True)):
        still = np.asarray(Image.open(phantom.image_path(number)).convert("L"))
        facts = {"SOPInstanceUID": f"1.2.3.{number}", "PatientID": patient, "frames": 2}
        made = dataset(np.stack([255 - still, still]), "MONOCHROME2", **facts)
        (source / file).write_bytes(write(made))
    rows.to_csv(source / "labels.csv", index=False)
    return source


def test_a_network_of_loops_scores_alike_in_evaluation_and_at_night(
    loops: Path, phantom: Cohort, tmp_path: Path
) -> None:
    cohort = import_dicom(loops, tmp_path / "cohort", name="loops")
    # The pixels of the stills: no other frame, and nothing lost.
    assert cohort.table["pixels_sha256"].tolist() == phantom.table["pixels_sha256"].tolist()

    done = train("fit", cohort.folder, tmp_path / "out", "--trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "out" / "checkpoint"
    done = sonode("evaluate", checkpoint, cohort.folder, tmp_path / "report", "--part", "test")
    assert done.returncode == 0, done.stderr
    judged = pd.read_parquet(tmp_path / "report" / "predictions.parquet")

    reference = judged["image"].str.extract(r"(?P<image_uri>.*)#frame=(?P<frame>\d+)")
    asked = judged[[*ROI_COLUMNS, "patient_id", "lesion_id"]].join(reference)
    asked.astype({"frame": "int64"}).to_parquet(tmp_path / "m.parquet")
    archive = pack(checkpoint, "loops", "1.0", tmp_path / "store")
    with load_archive(archive) as loaded:
        summary = run.score(
            *(str(tmp_path / "m.parquet"), str(tmp_path / "night"), loaded),
            explain=None,
            progress=progress,
        )
    night = schema.read(str(tmp_path / "night")).to_pandas()
    assert (night["status"] == "ok").all()
    for head in ("malignancy", "alnm"):
        near = pytest.approx(judged[f"{head}_probability"].tolist(), abs=1e-4)
        assert night[f"{head}_probability"].tolist() == near

    file = tmp_path / "night" / summary.units["lesion_id"]["file"]
    lesions = pd.read_parquet(file).set_index(["patient_id", "lesion_id"])
    by_hand = night.groupby(["patient_id", "lesion_id"])["malignancy_probability"]
    assert lesions["malignancy_probability_max"].tolist() == by_hand.max().tolist()
    assert lesions["malignancy_probability_mean"].tolist() == pytest.approx(by_hand.mean().tolist())

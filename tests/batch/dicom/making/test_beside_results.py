"""`sonode score --dicom`: objects beside the rows, each row accounted for, however often."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pydicom
import pytest

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")

from archives.packing.loader import load_archive
from batch import run
from batch.dicom.making import beside_results
from batch.results import schema
from batch.storage import objects
from sonode.console import progress
from sonode.demo.local_s3 import LocalS3
from tests.batch.dicom import ultrasound
from tests.handlers import dicoms

BOX = {"roi_x_min": 10, "roi_y_min": 20, "roi_x_max": 50, "roi_y_max": 45}


def manifest_of(folder: Path, files: dict[str, bytes], **columns: object) -> str:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    frame = pd.DataFrame({"image_uri": list(files), **BOX, **columns})
    frame.to_parquet(folder / "m.parquet")
    return str(folder / "m.parquet")


def scored(archive_path: Path, manifest: str, out: str, explain: str | None = None):
    """Score and make the objects; give what was written."""
    with load_archive(archive_path) as archive:
        summary = run.score(manifest, out, archive, explain=explain, progress=progress)
        return written_of(out, summary, archive, explain)


def written_of(out: str, summary, archive, explain: str | None = None):
    return beside_results.write(
        out, summary.dataset, archive, explain, progress, total=summary.rows
    )


def records(out: str) -> list[dict[str, str | None]]:
    files = objects.list_files(objects.join(out, "_dicom"), deep=True)
    tables = [schema.parquet(objects.read(uri).data).read() for uri in files if uri[-4:] != ".dcm"]
    return [row for table in tables for row in table.to_pylist()]


def dcm_files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.rglob("*.dcm"))}


def test_every_row_has_objects_or_a_reason(
    archive_path: Path, tmp_path: Path, frame: object
) -> None:
    from tests.conftest import encode

    loop = ultrasound.data_of("examples_ybr_color.dcm")
    files = {
        "a.dcm": ultrasound.data_of("examples_rgb_color.dcm"),
        "b.dcm": loop,
        "c.png": encode(frame),  # type: ignore[arg-type]
        "d.dcm": loop[:5000],
        "e.dcm": ultrasound.data_of("examples_rgb_color.dcm", StudyInstanceUID=None),
    }
    frames = pd.array([None, 3, None, 0, None], dtype="Int64")
    manifest = manifest_of(tmp_path, files, frame=frames)
    out = tmp_path / "out"
    written = scored(archive_path, manifest, str(out), "gradcam")
    assert written.by_status == {"written": 2, "none": 2, "failed": 1}
    assert written.by_code == {"not_dicom": 1, "not_scored": 1, "uid_missing": 1}
    rows = records(str(out))
    assert [row["status"] for row in rows] == ["written", "written", "none", "none", "failed"]
    scores = schema.read(str(out)).to_pylist()
    for number in (0, 1):
        for kind in ("sr", "sc", "pr"):
            path = out / str(rows[number][kind])
            assert ultrasound.check(tmp_path / "it.dcm", path.read_bytes()) == []
    report = pydicom.dcmread(out / str(rows[1]["sr"]))
    text = str(report)
    assert scores[1]["model_sha256"] in text
    assert f"{scores[1]['malignancy_probability']:.6f}".rstrip("0") in text
    with_maps = pydicom.dcmread(out / str(rows[1]["sc"])).Rows
    without = pydicom.dcmread(io.BytesIO(loop)).Rows
    assert with_maps > without + 2 * 64  # two heat maps

    first = dcm_files(out)
    assert len(first) == 6
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.dcm")}
    assert scored(archive_path, manifest, str(out), "gradcam") == written
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.dcm")} == before  # none anew


def test_a_killed_run_is_completed_with_the_same_bytes(
    archive_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ultrasound.data_of("examples_rgb_color.dcm")
    manifest = manifest_of(tmp_path, {"a.dcm": data, "b.dcm": data})
    out = tmp_path / "out"
    scored(archive_path, manifest, str(out))
    first = dcm_files(out)
    # As killed between the objects and the record, and in the middle of the objects.
    for path in [*out.rglob("_dicom/**/*.parquet"), out / str(next(out.rglob("*-pr.dcm")))]:
        path.unlink()
    assert scored(archive_path, manifest, str(out)).by_status["written"] == 2
    assert dcm_files(out) == first


def test_a_file_that_was_changed_gets_no_objects(archive_path: Path, tmp_path: Path) -> None:
    files = {"a.dcm": ultrasound.data_of("examples_rgb_color.dcm")}
    manifest = manifest_of(tmp_path, files)
    out = str(tmp_path / "out")
    with load_archive(archive_path) as archive:
        summary = run.score(manifest, out, archive, explain=None, progress=progress)
        other = ultrasound.data_of("examples_rgb_color.dcm", PatientID="another")
        (tmp_path / "a.dcm").write_bytes(other)
        written = written_of(out, summary, archive)
    assert written.by_code == {"object_changed": 1}
    (tmp_path / "a.dcm").write_bytes(files["a.dcm"])  # and is tried again
    assert scored(archive_path, manifest, out).by_status["written"] == 1


@pytest.mark.live
def test_a_store_has_the_same_objects(
    archive_path: Path, tmp_path: Path, server: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    manifest = manifest_of(tmp_path, {"a.dcm": ultrasound.data_of("examples_rgb_color.dcm")})
    out = "s3://studies/dicom-out"
    assert scored(archive_path, manifest, out).by_status["written"] == 1
    (row,) = records(out)
    stored = objects.read(objects.join(out, str(row["sr"]))).data
    assert ultrasound.check(tmp_path / "it.dcm", stored) == []
    assert scored(archive_path, manifest, out).by_status["written"] == 1


def test_no_name_or_id_leaves_the_objects(archive_path: Path, tmp_path: Path) -> None:
    kinds = dicoms.all_kinds()
    uids = ("1.2.3.4", "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2")
    whole = pydicom.dcmread(io.BytesIO(kinds["grey"]))
    whole.StudyInstanceUID, whole.SeriesInstanceUID = uids[1:]
    whole.PatientName = dicoms.SECRETS[0]
    files = {
        "whole.dcm": ultrasound.encoded(whole),
        "no study.dcm": kinds["grey"],
        "letters.dcm": ultrasound.encoded(whole).replace(b"Quixotte", b"Quix\xf6tte"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    pd.DataFrame({"image_uri": list(files)}).to_parquet(tmp_path / "m.parquet")
    words = [*("score", str(tmp_path / "m.parquet"), str(tmp_path / "out"), "--dicom", "--json")]
    done = subprocess.run(
        [sys.executable, "-m", "sonode", *words, "--archive", str(archive_path)],
        check=False,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])["dicom"]
    assert facts["by_status"] == {"written": 1, "none": 0, "failed": 2}
    assert facts["by_code"] == {"character_set_missing": 1, "uid_missing": 1}
    said = {"output": done.stdout + done.stderr}
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and path.suffix != ".dcm":
            said[str(path)] = path.read_bytes()
            if path.suffix == ".parquet":
                said[str(path)] += str(pq.read_table(path).to_pylist()).encode()
        said[f"name of {path}"] = str(path.relative_to(tmp_path)).encode()
    secrets = [text.encode() for text in (*dicoms.SECRETS, *uids[1:], "Quix", "77410932")]
    assert {place for place, data in said.items() if any(it in data for it in secrets)} == set()
    (report,) = (tmp_path / "out").rglob("*-sr.dcm")
    assert dicoms.SECRETS[1].encode() in report.read_bytes()  # it would have been found

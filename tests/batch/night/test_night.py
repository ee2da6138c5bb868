"""`sonode dicom night` with a real Orthanc; test_tour.py looks at the objects that it sends."""

from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
import yaml

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from batch.night import night
from batch.night import settings as night_settings
from batch.storage import objects
from sonode.console import UserError
from tests.batch.dicom import ultrasound
from tests.batch.dicom.conftest import BY_DIMSE
from tests.batch.dicom.pacs import Orthanc
from tests.batch.night.night_of_boxes import fill
from tests.command_line import sonode

pytestmark = BY_DIMSE
DAY = date(2026, 11, 27)
BOXES = {  # of ultrasound.NAMES: box and frame; the last has none
    "examples_rgb_color.dcm": (60, 60, 180, 150, ""),
    "examples_palette.dcm": (200, 120, 420, 300, ""),
    "examples_jpeg2k.dcm": (150, 100, 400, 300, ""),
    "examples_ybr_color.dcm": (80, 60, 220, 180, 3),
}


def of_that_day(name: str) -> bytes:
    return ultrasound.data_of(name, StudyDate=f"{DAY:%Y%m%d}")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"folder": "x", "archive": "a.mar"}, "pacs: Field required"),
        ({"pacs": "p", "folder": "x", "archive": "a.mar"}, "archive a.mar: no such file; correct"),
        ({"pacs": "p", "folder": "x", "archive": "a.mar", "day": 2}, "day: Extra inputs"),
        ({"pacs": "p", "folder": "x", "archive": "a.mar", "days": 0}, "days: "),
        ({"pacs": "p", "folder": "", "archive": "a.mar"}, "folder: .*no path"),
        ({"pacs": "p", "folder": "x", "archive": "a.mar", "boxes": ""}, "boxes: .*no path"),
    ],
)
def test_settings_that_are_not_understood(
    tmp_path: Path, keys: dict[str, object], says: str
) -> None:
    (tmp_path / "night.yaml").write_text(yaml.safe_dump(keys))
    with pytest.raises(UserError, match=says):
        night_settings.read(tmp_path / "night.yaml")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"pacs": "pacs.example"}, "^pacs: not the address of a PACS"),
        ({"pacs": "http://pacs.example/dicom-web"}, "^pacs: .* or plain in a network"),
        ({"pacs": "A@pacs.example:104", "title": "\\"}, "^title: an AE title has no backslash"),
        ({"pacs": "https://pacs.example", "boxes": "/none.csv"}, "^boxes /none.csv: "),
        ({"pacs": "https://pacs.example", "receive": 104}, "^receive: a DICOMweb service"),
    ],
)
def test_messages_name_the_settings(tmp_path: Path, keys: dict[str, object], says: str) -> None:
    settings = {"archive": "a.mar", "folder": str(tmp_path), **keys}
    with pytest.raises(UserError, match=says):
        night.run(night_settings.Settings(**settings), DAY)  # type: ignore[arg-type]


@pytest.mark.live
def test_a_night_and_the_next(orthanc: Orthanc, archive_path: Path, tmp_path: Path) -> None:
    images = {name: pydicom.dcmread(io.BytesIO(of_that_day(name))) for name in ultrasound.NAMES}
    for name in images:
        orthanc.put(of_that_day(name))
    lines = ["instance_uid,roi_x_min,roi_y_min,roi_x_max,roi_y_max,frame"]
    lines += [
        ",".join(map(str, (images[name].SOPInstanceUID, *box))) for name, box in BOXES.items()
    ]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    file = tmp_path / "night.yaml"
    keys = {
        "pacs": orthanc.dicomweb,
        "archive": str(archive_path),
        "folder": str(tmp_path / "night"),
        "explain": "gradcam",
        "boxes": str(tmp_path / "boxes.csv"),
    }
    file.write_text(yaml.safe_dump(keys))
    done = sonode("dicom", "night", file, "--date", DAY, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["pull"]["without_roi"] == {"no_box": 1}
    assert report["score"]["by_status"] == {"ok": 4, "failed": 0}
    assert report["push"]["by_status"]["accepted"] == report["push"]["sent"] == 12
    assert {*report["stages"]} == {"pull", "load", "score", "objects", "push"}
    assert sum(it["share"] for it in report["stages"].values()) == pytest.approx(1)
    assert json.loads((tmp_path / f"night/nights/{DAY}.json").read_text()) == report

    settings = night_settings.read(file)
    again = night.run(settings, DAY)
    assert (again["exit_code"], again["pull"]) == (0, report["pull"])
    assert (again["score"]["scored"], again["push"]["sent"]) == (0, 0)
    orthanc.put(ultrasound.data_of("ExplVR_BigEnd.dcm", StudyDate="20261128"))
    by_dimse = settings.model_copy(update={"pacs": orthanc.node, "plain": True})
    following = night.run(by_dimse, date(2026, 11, 28))
    # Nothing new has a box: what sonode drew is none.
    assert following["exit_code"] == 0
    assert "score" not in following
    assert sum(following["push"]["by_status"].values()) == 0  # the first night is closed

    said = (done.stdout + done.stderr).encode()
    said += b"".join(path.read_bytes() for path in (tmp_path / "night/nights").iterdir())
    for it in images.values():
        for secret in (it.get("PatientName"), it.get("PatientID"), it.StudyInstanceUID):
            assert len(str(secret)) < 5 or str(secret).encode() not in said


@pytest.mark.live
@pytest.mark.slow
def test_a_night_in_a_store(orthanc: Orthanc, archive_path: Path, tmp_path: Path, s3: str) -> None:
    """All of it is there, nothing here; and it is not done twice."""
    boxes = fill(orthanc, tmp_path, images=2)
    before = sorted(tmp_path.iterdir())
    keys = {"pacs": orthanc.dicomweb, "archive": str(archive_path), "boxes": boxes}
    settings = night_settings.Settings(**keys, folder=s3)
    report = night.run(settings, DAY)
    assert (report["exit_code"], report["push"]["by_status"]["accepted"]) == (0, 6)
    assert json.loads(objects.read(f"{s3}/nights/{DAY}.json").data) == report
    (pulled,) = [it for it in objects.list_files(f"{s3}/images") if "/night-" in it]
    uris = pq.read_table(io.BytesIO(objects.read(pulled).data))["image_uri"].to_pylist()
    assert [bool(objects.read(objects.join(f"{s3}/images", it)).data) for it in uris] == [True] * 2
    again = night.run(settings, DAY)
    assert (again["exit_code"], again["score"]["scored"], again["push"]["sent"]) == (0, 0, 0)
    following = night.run(settings, date(2026, 11, 28))
    assert (following["exit_code"], "score" in following) == (0, False)
    made = [pydicom.dcmread(io.BytesIO(it)) for it in orthanc.instances()]
    assert sum(it.get("Manufacturer") == "sonode" for it in made) == 6
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.live
def test_a_pacs_that_is_gone_is_asked_again_later(archive_path: Path, tmp_path: Path) -> None:
    settings = night_settings.Settings(
        pacs="http://127.0.0.1:9/dicom-web", archive=str(archive_path), folder=str(tmp_path / "x")
    )
    assert night.run(settings, DAY)["exit_code"] == 75


@pytest.mark.live
def test_a_night_that_was_cut_short_or_missed_loses_no_image(
    orthanc: Orthanc,
    archive_path: Path,
    tmp_path: Path,
) -> None:
    def put(number: int, day: str) -> None:
        uids = {"StudyInstanceUID": f"2.25.1{number}", "SOPInstanceUID": f"2.25.2{number}"}
        orthanc.put(ultrasound.data_of("examples_rgb_color.dcm", StudyDate=day, **uids))

    lines = ["instance_uid,roi_x_min,roi_y_min,roi_x_max,roi_y_max"]
    lines += [f"2.25.2{number},60,60,180,150" for number in (1, 2)]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    settings = night_settings.Settings(
        pacs=orthanc.dicomweb,
        archive=str(tmp_path / "not-there.mar"),
        folder=str(tmp_path / "night"),
        boxes=str(tmp_path / "boxes.csv"),
        days=1,
    )
    put(1, "20261128")
    with pytest.raises(UserError) as stopped:  # after its images have come
        night.run(settings, date(2026, 11, 28))
    cut = json.loads((tmp_path / "night/nights/2026-11-28.json").read_text())
    assert (cut["exit_code"], cut["why"]) == (2, str(stopped.value))
    assert cut["pull"]["by_status"]["pulled"] == 1
    put(2, "20261201")

    settings = settings.model_copy(update={"archive": str(archive_path)})
    following = night.run(settings, date(2026, 12, 3))
    assert following["exit_code"] == 0
    assert following["pull"]["since"] == "2026-11-28"
    assert following["score"]["by_status"] == {"ok": 1, "failed": 0}
    assert following["earlier"]["2026-11-28"]["score"]["by_status"] == {"ok": 1, "failed": 0}
    assert following["push"]["sent"] == 6

    last = night.run(settings, date(2026, 12, 4))
    assert (last["exit_code"], last["push"]["sent"], "earlier" in last) == (0, 0, False)


@pytest.mark.live
def test_by_dimse_a_corrected_patient_fails_one_night_and_is_mended_elsewhere(
    orthanc: Orthanc,
    archive_path: Path,
    tmp_path: Path,
) -> None:
    def night_of(day: str, folder: str, **changed: object) -> dict[str, object]:
        keys = {"archive": str(archive_path), "folder": str(tmp_path / folder), **changed}
        asked = {"pacs": orthanc.node, "plain": True, "boxes": str(tmp_path / "boxes.csv"), **keys}
        return night.run(night_settings.Settings(**asked), date.fromisoformat(day))

    name = "examples_rgb_color.dcm"
    orthanc.put(of_that_day(name))
    uid = pydicom.dcmread(io.BytesIO(of_that_day(name))).SOPInstanceUID
    lines = ["instance_uid,roi_x_min,roi_y_min,roi_x_max,roi_y_max", f"{uid},60,60,180,150"]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    with pytest.raises(UserError):  # after the image has come
        night_of("2026-11-27", "a", archive=str(tmp_path / "not-there.mar"))
    orthanc.correct_patient("the-right-one")

    keys = {"pacs": orthanc.node, "plain": True, "archive": str(archive_path)}
    keys |= {"folder": str(tmp_path / "a"), "boxes": str(tmp_path / "boxes.csv")}
    (tmp_path / "night.yaml").write_text(yaml.safe_dump(keys))
    said = sonode("dicom", "night", tmp_path / "night.yaml", "--date", "2026-11-28")
    assert said.returncode == 1
    assert "3 objects not at the PACS: the PACS has their studies under another" in said.stderr
    assert "the-right-one" not in said.stdout + said.stderr
    first = json.loads((tmp_path / "a/nights/2026-11-28.json").read_text())
    assert (first["exit_code"], first["standing"]) == (1, {})
    assert first["why"] == "3 objects of the night of 2026-11-27 not at the PACS"
    for day in ("2026-11-29", "2026-12-05", "2026-12-06"):  # offered for a week, then told
        later = night_of(day, "a")
        assert (later["exit_code"], later["standing"]) == (0, {"2026-11-27": 3})
    assert len(orthanc.instances()) == 1

    words = ("--date", "2026-11-27", "--folder", tmp_path / "b")
    anew = sonode("dicom", "night", tmp_path / "night.yaml", *words)
    assert anew.returncode == 0, anew.stderr
    assert "objects at the PACS, accepted            3" in anew.stdout
    sent = [pydicom.dcmread(io.BytesIO(it)) for it in orthanc.instances()]
    assert {it.PatientID for it in sent} == {"the-right-one"}
    done = sonode("dicom", "push", tmp_path / "a/results", "--to", orthanc.node, "--plain")
    assert (done.returncode, "present                  3" in done.stdout) == (0, True)
    assert night_of("2026-12-07", "a")["standing"] == {}
    assert len(orthanc.instances()) == 4

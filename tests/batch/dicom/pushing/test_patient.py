"""No result goes to a patient whom the PACS has taken the study from, and none to nobody."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from pydicom.dataset import Dataset

from batch.dicom.pushing import patient
from tests.batch.dicom import ultrasound
from tests.batch.dicom.conftest import BY_DIMSE, NAMES
from tests.batch.dicom.pacs import Orthanc
from tests.batch.dicom.pushing.test_push import NONE, pushed_to, read
from tests.command_line import sonode

pytestmark = BY_DIMSE
IMAGE = pydicom.dcmread(ultrasound.FILES / NAMES[0], stop_before_pixels=True)


def told(**elements: str) -> Dataset:
    made = Dataset()
    facts = {"PatientID": "7", "PatientName": "Doe^Jane", "PatientBirthDate": "19700102"}
    for keyword, value in {**facts, **elements}.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"PatientName": "DOE^JANE^^^ =  =  "}, True),
        ({"PatientName": "", "PatientBirthDate": ""}, True),  # a PACS need not tell them
        ({"PatientBirthDate": "1970.01.02"}, True),
        ({"IssuerOfPatientID": "A"}, True),
        ({"PatientID": "8"}, False),
        ({"PatientID": ""}, False),
        ({"PatientID": "07"}, False),
        ({"PatientName": "Roe^Jane"}, False),
        ({"PatientBirthDate": "19700103"}, False),
    ],
)
def test_a_patient_is_the_same_by_all_that_both_tell(changed: dict[str, str], same: bool) -> None:
    assert patient.is_same(told(), told(**changed)) is same
    assert patient.is_same(told(**changed), told()) is same


def test_another_issuer_is_another_patient() -> None:
    assert not patient.is_same(told(IssuerOfPatientID="A"), told(IssuerOfPatientID="B"))


def test_letters_that_a_character_set_lacks_do_not_count() -> None:
    assert patient.is_same(told(PatientName="Müller^Jérôme"), told(PatientName="M?ller^J?r?me"))
    assert patient.is_same(told(PatientName="İnce^Groß"), told(PatientName="?nce^Gro?"))


@pytest.mark.live
@pytest.mark.parametrize("way", ["dicomweb", "node"])
@pytest.mark.parametrize(
    ("elements", "status"),
    [
        ({"PatientID": "corrected"}, "patient_changed"),
        ({"PatientName": "Other^Name"}, "patient_changed"),
        ({"PatientBirthDate": "19010203"}, "patient_changed"),
        ({"StudyInstanceUID": "2.25.77"}, "image_unknown"),
    ],
)
def test_what_is_corrected_between_pull_and_push(
    out: Path, orthanc: Orthanc, way: str, elements: dict[str, str], status: str
) -> None:
    image = {"PatientBirthDate": "19700102"} if "PatientBirthDate" in elements else {}
    if image:
        for path in out.rglob("*.dcm"):
            made = pydicom.dcmread(path)
            made.PatientBirthDate = "19700102"
            made.save_as(path)
    orthanc.put(ultrasound.data_of(NAMES[0], **{**image, **elements}))
    done = pushed_to(str(out), getattr(orthanc, way))
    assert done.by_status == {**NONE, status: 6}  # the images are of one study
    unknown = pushed_to(str(out), getattr(orthanc, way), unknown=True)
    assert unknown.by_status[status] == (6 if status == "patient_changed" else 0)
    sent = [read(it) for it in orthanc.instances()]
    wrong = IMAGE.StudyInstanceUID if status == "patient_changed" else "2.25.77"
    assert [it.Modality for it in sent if it.StudyInstanceUID == wrong] == ["US"]


@pytest.mark.live
@pytest.mark.parametrize("way", ["dicomweb", "node"])
def test_a_study_that_two_patients_have_gets_nothing(out: Path, orthanc: Orthanc, way: str) -> None:
    """As a PACS is while patients are merged: it answers with both."""
    orthanc.put(ultrasound.data_of(NAMES[0]))
    orthanc.put(ultrasound.data_of(NAMES[0], PatientID="merged"))
    assert pushed_to(str(out), getattr(orthanc, way)).by_status["patient_changed"] == 6
    assert len(orthanc.instances()) == 2


@pytest.mark.live
@pytest.mark.parametrize("way", ["dicomweb", "node"])
def test_of_an_image_that_was_deleted_nothing_is_sent(
    out: Path, orthanc: Orthanc, way: str
) -> None:
    """The study is there, with another image of it."""
    orthanc.put(ultrasound.data_of(NAMES[0], SOPInstanceUID="2.25.5"))
    assert pushed_to(str(out), getattr(orthanc, way)).by_status == {**NONE, "image_unknown": 6}
    assert len(orthanc.instances()) == 1


@pytest.mark.live
def test_orthancs_own_correction_and_what_the_command_says(out: Path, orthanc: Orthanc) -> None:
    orthanc.put(ultrasound.data_of(NAMES[0]))
    orthanc.correct_patient("9999-corrected")
    (image,) = map(read, orthanc.instances())
    assert image.PatientID == "9999-corrected"
    assert image.SOPInstanceUID == IMAGE.SOPInstanceUID
    done = sonode("dicom", "push", out, "--to", orthanc.dicomweb)
    assert done.returncode == 1
    assert "patient_changed          6" in done.stdout
    assert "6 objects not at the PACS: the PACS has their studies under another" in done.stderr
    assert "--date DATE --folder EMPTY" in done.stderr
    for secret in ("9999", IMAGE.PatientID, str(IMAGE.PatientName), IMAGE.StudyInstanceUID):
        assert secret not in done.stdout + done.stderr
    assert len(orthanc.instances()) == 1

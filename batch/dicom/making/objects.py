"""A scored image -> its DICOM objects, as bytes.

The same image, RoI and archive give objects of the same UIDs, and the same result the same bytes.
Each model has one series of each kind in a study. Times are of the image's own time zone where it
states one, else of this machine's.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import pydicom
from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from batch.dicom.making import picture, presentation, structured_report
from batch.dicom.making.codes import MAX_MEANING
from batch.dicom.making.errors import CannotWrite
from batch.dicom.making.identity import uid
from batch.dicom.making.picture import Pixels
from batch.dicom.making.result import Result
from batch.dicom.making.source import UTF8, Source
from sonode.pixel_digest import pixels_sha256

KINDS = ("sr", "sc", "pr")
"""Comprehensive SR, Secondary Capture, presentation state."""

_LAYOUT = {"sr": "2", "sc": "1", "pr": "2"}
"""What an object holds of the same result: another one where that changes, for another UID."""
_NUMBER = {"sr": 9001, "sc": 9002, "pr": 9003}
_MAX_TEXT = 1024  # of a text object (ST)


def make(source: Source, frame_HW: Pixels, result: Result) -> dict[str, bytes]:
    """Make a file of each of `KINDS`.

    Args:
        source: of the scored image (`source.read`).
        frame_HW: the scored frame as it is displayed, grey, uint8 (rows, columns).
        result: what the archive said.

    Raises CannotWrite: with what stands in the way; nothing is cut off or left out.
    """
    try:
        uids = sop_instance_uids(source, frame_HW, result)
        return {kind: _encoded(_made(kind, source, frame_HW, result, uids[kind])) for kind in KINDS}
    except CannotWrite:
        raise
    except Exception as error:  # of any kind: its text may hold the file's
        raise CannotWrite(
            "not_written", f"making the objects raised {type(error).__name__}"
        ) from None


def sop_instance_uids(source: Source, frame_HW: Pixels, result: Result) -> dict[str, str]:
    """The UID of each object, before it is made.

    An image that a PACS moved to another study or series, or whose pixels were replaced under its
    UID, has other objects: those of before say of another image what is said.
    """
    image = source.dataset
    of_image = (image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID)
    names = (*of_image, pixels_sha256(frame_HW), str(result.frame), str(result.roi))
    of_kind = {"sc": (result.explain or "",)}
    return {
        kind: uid(kind, *names, result.model.sha256, *of_kind.get(kind, ()), layout=_LAYOUT[kind])
        for kind in KINDS
    }


def check_text(heads: Mapping[str, Any]) -> list[str]:
    """Name the labels that no coded concept can hold: (head, label) as text."""
    return [
        f"{head}: {label}"
        for head, labels in heads.items()
        for label in (head, *labels)
        if len(f"Probability of {label}") > MAX_MEANING or "\\" in label
    ]


def _made(
    kind: str, source: Source, frame_HW: Pixels, result: Result, sop_instance_uid: str
) -> Dataset:
    model = result.model
    common: dict[str, Any] = {
        "series_instance_uid": uid("series", kind, source.dataset.StudyInstanceUID, model.sha256),
        "series_number": _NUMBER[kind],
        "sop_instance_uid": sop_instance_uid,
        "instance_number": _instance_number(source),
        "manufacturer": "sonode",
        "manufacturer_model_name": _at_most(model.name),
        "software_versions": _at_most(model.version),
        "device_serial_number": model.sha256,
        "series_description": "sonode: research use only",
        "specific_character_set": UTF8,
        "transfer_syntax_uid": ExplicitVRLittleEndian,
    }
    evidence = _evidence(source)
    if kind == "sr":
        made = structured_report.make(source, result, evidence, **common)
    elif kind == "pr":
        text = "\r\n".join([picture.RESEARCH, *picture.lines(result)])
        if len(text) > _MAX_TEXT:
            raise CannotWrite("text_too_long", f"the scores are over {_MAX_TEXT} characters")
        made = presentation.make(source, result, evidence, text, **common)
    else:
        made = _secondary_capture(source, picture.draw(frame_HW, result), common)
    _complete(made, source, result)
    return made


def _secondary_capture(source: Source, picture_HW3: Pixels, common: dict[str, Any]) -> Dataset:
    made: Dataset = SCImage(
        pixel_array=picture_HW3,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=source.dataset.StudyInstanceUID,
        **common,
    )
    image = source.dataset
    made.PatientOrientation = None  # of type 2: a picture of text and maps has none
    made.ConversionType = "WSD"
    made.DerivationDescription = "sonode: box, heat maps and scores, research use only"
    made.BurnedInAnnotation = image.get("BurnedInAnnotation") or "YES"  # may be: it is not stated
    for keyword in image.dir("LossyImageCompression"):
        made[keyword] = image[keyword]
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    made.SourceImageSequence = [reference]
    return made


def _evidence(source: Source) -> Dataset:
    """The image for highdicom, without patient: those elements are copied as they are."""
    made = Dataset()
    made.update(source.dataset)
    made.SpecificCharacterSet = UTF8
    for element in source.patient_and_study():
        if element.keyword not in ("StudyInstanceUID", "TimezoneOffsetFromUTC"):
            made[element.keyword] = pydicom.DataElement(element.tag, element.VR, None)
    made.PatientBirthDate = made.StudyDate = None
    return made


def _complete(made: Dataset, source: Source, result: Result) -> None:
    """Put in patient, study and the times of the result."""
    made.update(source.patient_and_study())
    at = result.scored_at.astimezone(_zone(source))
    day, time = at.strftime("%Y%m%d"), at.strftime("%H%M%S")
    for name in ("InstanceCreation", "Content", "PresentationCreation", "OfSecondaryCapture"):
        for keyword, value in ((f"{name}Date", day), (f"{name}Time", time)):
            found = keyword if name[0] != "O" else f"{keyword[-4:]}{name}"
            if found in made:
                setattr(made, found, value)
    for equipment in made.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = day + time
    if made.Modality != "SR":
        made.Laterality = None  # a series has results of both sides; the originals tell theirs


def _zone(source: Source) -> timezone | None:
    offset = str(source.dataset.get("TimezoneOffsetFromUTC") or "")
    try:
        delta = datetime.strptime(offset, "%z").utcoffset()
    except ValueError:
        return None
    return timezone(delta or timedelta())


def _instance_number(source: Source) -> int:
    number = source.dataset.get("InstanceNumber")
    try:
        return max(1, int(number))
    except (TypeError, ValueError):
        return 1


def _at_most(text: str) -> str:
    if len(text) > MAX_MEANING:
        raise CannotWrite("text_too_long", f"the model's name is over {MAX_MEANING} characters")
    return text


def _encoded(made: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()

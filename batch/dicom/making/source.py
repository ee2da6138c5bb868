"""A DICOM file's bytes -> what its result's objects take from it: patient, study, references.

Nothing of it is logged. Private elements and pixels are left behind.
"""

from __future__ import annotations

import io
import re
from typing import Any, NamedTuple

import pydicom
from pydicom.charset import convert_encodings, decode_element, default_encoding
from pydicom.dataset import Dataset
from pydicom.uid import UID, UltrasoundImageStorage
from pydicom.valuerep import DA, TM

from batch.dicom.making.errors import CannotWrite

_OLD_DATE = re.compile(r"[0-9]{4}\.[0-9]{2}\.[0-9]{2}")
UTF8 = "ISO_IR 192"

_PATIENT_AND_STUDY = [
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "TimezoneOffsetFromUTC",
]
_REFERENCE = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "InstanceNumber",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BurnedInAnnotation",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ICCProfile",
    "VOILUTSequence",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
]
_EMPTY = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
]  # must be there, and may be empty (type 2)


class Source(NamedTuple):
    """What the objects of a scored image take from its file."""

    dataset: Dataset
    """The elements named above alone, as the objects have them."""

    @property
    def is_multi_frame(self) -> bool:
        """Whether a reference must name the frame."""
        return int(self.dataset.get("NumberOfFrames") or 1) > 1

    def patient_and_study(self) -> Dataset:
        """The elements that every object of the study has alike."""
        kept = Dataset()
        for keyword in _PATIENT_AND_STUDY:
            if keyword in self.dataset:
                kept[keyword] = self.dataset[keyword]
        return kept


def is_dicom(data: bytes) -> bool:
    """Whether it is a file with a preamble, or a data set that pydicom finds a UID in."""
    if data[128:132] == b"DICM":
        return True
    try:
        return "SOPClassUID" in _read(data)
    except Exception:  # of any kind: pydicom takes whatever it is for a data set
        return False


def read(data: bytes) -> Source:
    """Read what the objects need.

    A date, time or sex that DICOM does not allow is left empty, as an element of type 2 may be.

    Raises CannotWrite: a UID that is missing or none, a SOP class that no object can refer to, or
    text of an unknown character set.
    """
    try:
        file = _read(data)
        found = Dataset()
        declared = file.get("SpecificCharacterSet")
        sets = [declared] if isinstance(declared, str) else list(declared or [])
        for keyword in (*_PATIENT_AND_STUDY, *_REFERENCE):
            if keyword in file:
                element = file[keyword]
                decode_element(element, sets or None)
                found[keyword] = element
    except Exception:  # pydicom raises many types on damaged files
        raise CannotWrite("unreadable", "the header cannot be read again") from None
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        value = found.get(keyword)
        if not isinstance(value, str) or not value or not UID(value).is_valid:
            raise CannotWrite("uid_missing", f"{keyword} is missing or not a UID")
    sop_class = UID(found.SOPClassUID)
    stills = sop_class == UltrasoundImageStorage and Source(found).is_multi_frame
    if sop_class.is_retired or sop_class.is_private or stills:
        raise CannotWrite(
            "sop_class_unfit",
            "the file's SOP class is retired or private, or of still images while it has frames",
        )
    text = "".join(str(element.value) for element in found)
    if "\ufffd" in text:
        raise CannotWrite("text_undecodable", "the text is not in the file's own character set")
    for keyword in _EMPTY:
        vr = pydicom.datadict.dictionary_VR(keyword)
        found[keyword] = pydicom.DataElement(keyword, vr, _mended(keyword, found.get(keyword)))
    # pydicom takes no set, ASCII and an unknown one alike, and then each byte for a letter.
    if {*convert_encodings(sets)} == {default_encoding} and not text.isascii():
        raise CannotWrite(
            "character_set_missing",
            "SpecificCharacterSet is missing, unknown or ASCII, and the patient's or study's text "
            "is not ASCII; export it again with the right one",
        )
    return Source(found)


def _read(data: bytes) -> Dataset:
    return pydicom.dcmread(
        io.BytesIO(data),
        stop_before_pixels=True,
        force=True,
        specific_tags=["SpecificCharacterSet", *_PATIENT_AND_STUDY, *_REFERENCE],
    )


def _mended(keyword: str, value: Any) -> Any:
    """A value as DICOM has it today (before 1993 dates had points, and times colons), or None."""
    if keyword.endswith(("Date", "Time")):
        text = str(value or "").strip()
        text = text.replace(".", "") if _OLD_DATE.fullmatch(text) else text.replace(":", "")
        try:
            (DA if keyword.endswith("Date") else TM)(text)
        except ValueError:
            return None
        return text or None
    if keyword == "PatientSex" and value not in ("M", "F", "O"):
        return None
    return value

"""The coded concepts of the SR: standard ones where there are any, else those of `99SONODE`."""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

_SCHEME = "99SONODE"
SCHEME = CodingSchemeIdentificationItem(
    designator=_SCHEME, name="sonode", responsible_organization="sonode"
)
MAX_MEANING = 64
"""Characters (LO, PS3.5, 6.2)."""

_KNOWN_LABELS = {"benign": codes.SCT.Benign, "malignant": codes.SCT.Malignant}
NO_UNITS = codes.UCUM.NoUnits


def own(value: str, meaning: str) -> CodedConcept:
    """A concept of this scheme."""
    return CodedConcept(value=value, scheme_designator=_SCHEME, meaning=meaning)


def head(name: str) -> CodedConcept:
    """A head, as the finding of its measurement group."""
    return own(f"head:{name}", name)


def probability(label: str) -> CodedConcept:
    """The probability of a label."""
    if label.casefold() == "malignant":
        return CodedConcept.from_code(codes.DCM.ProbabilityOfCancer)
    return own(f"probability:{label}", f"Probability of {label}")


def label(text: str) -> CodedConcept:
    """A label."""
    known = _KNOWN_LABELS.get(text.casefold())
    return CodedConcept.from_code(known) if known else own(f"label:{text}", text)


def yes_or_no(value: bool) -> CodedConcept:
    """An answer."""
    return CodedConcept.from_code(codes.SCT.Yes if value else codes.SCT.No)


THRESHOLD = own("threshold", "Decision threshold")
LEVEL = own("level", "Level of the label set")
LABEL = own("label", "Label")
UNCERTAIN = own("uncertain", "Uncertain")
IN_LABEL_SET = own("label-set", "Label that the image may have")
NO_LABEL = own("no-label", "No label")
GIVEN = own("given", "Probability holds given")
SET_GIVEN = own("set-given", "Label set holds given")
CONSISTENT = own("consistent", "Heads are consistent")
WARNING = own("warning", "Warning")
OUT_OF_DISTRIBUTION = own("out-of-distribution", "Unlike the images of the training")
PROPOSED = own("roi-proposed", "Region proposed by software")
ROI_CONFIDENCE = own("roi-confidence", "Confidence of the proposed region")
DISTANCE = own("distance", "Distance to the images of the training")

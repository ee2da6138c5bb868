"""The presentation state of a result: the box and the scores, drawn on the original."""

from __future__ import annotations

import struct
from typing import Any

from highdicom.content import PresentationLUTTransformation
from highdicom.pr import (
    ColorSoftcopyPresentationState,
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    TextObject,
)
from PIL import ImageCms
from pydicom.dataset import Dataset
from pydicom.uid import UID

from batch.dicom.making.errors import CannotWrite
from batch.dicom.making.result import Result
from batch.dicom.making.source import Source
from batch.dicom.making.structured_report import corners

_GROUPS = {
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}
_CONTENT_LABEL = "SONODE"


def make(source: Source, result: Result, evidence: Dataset, text: str, **common: Any) -> Dataset:
    """A grayscale state for a grey image, a colour one for others; `text` stands by the box.

    `evidence` stands for the image. `common`: the series and instance that it is to have.
    """
    x0, y0, _, y1 = result.roi
    rows, columns = int(source.dataset.Rows), int(source.dataset.Columns)
    # Below the box or above it, or over it where neither has a quarter of the height; and at least
    # half of the width, else viewers cut the text off.
    top, bottom = (y1, rows) if y0 + y1 < rows else (0, y0)
    if 4 * (bottom - top) < rows:
        top, bottom = 0, rows
    left = min(x0, columns // 2)
    layer = GraphicLayer("SONODE", order=1, description="Box and scores: research use only")
    annotation = GraphicAnnotation(
        referenced_images=[evidence],
        graphic_layer=layer,
        referenced_frame_number=(result.frame or 0) + 1 if source.is_multi_frame else None,
        graphic_objects=[
            GraphicObject(graphic_type="POLYLINE", graphic_data=corners(result.roi), units="PIXEL")
        ],
        text_objects=[
            TextObject(
                text,
                units="PIXEL",
                bounding_box=(float(left), float(top), float(columns), float(bottom)),
                text_justification="LEFT",
            )
        ],
    )
    photometric = str(source.dataset.PhotometricInterpretation)
    grey = photometric.startswith("MONOCHROME")
    kind = GrayscaleSoftcopyPresentationState if grey else ColorSoftcopyPresentationState
    shown = _for_highdicom(evidence, source, grey)
    if photometric == "MONOCHROME1":  # what comes out of the state is P-values, which grow brighter
        common["presentation_lut_transformation"] = PresentationLUTTransformation("INVERSE")
    if not grey:
        common["icc_profile"] = source.dataset.get("ICCProfile") or _srgb()
    made: Dataset = kind(
        referenced_images=[shown],
        content_label=_CONTENT_LABEL,
        content_description="Box and scores: research use only",
        graphic_annotations=[annotation],
        graphic_layers=[layer],
        concept_name=None,
        content_creator_name=None,
        **common,
    )
    return made


def _srgb() -> bytes:
    """The colours of a file that does not say which: sRGB, with no time of its making.

    The class is that of an input device, as PS3.3, C.11.15.1.1 asks for (ICC.1, 7.2.5 and 7.2.8).
    """
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[12:16] = b"scnr"
    made[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    return bytes(made)


def _for_highdicom(evidence: Dataset, source: Source, grey: bool) -> Dataset:
    """The image as highdicom reads one.

    It counts samples: the colours of a palette are three. It looks for the window of a loop in its
    functional groups, as of an enhanced image, where a loop of an ultrasound device has none.
    """
    shown = Dataset()
    shown.update(evidence)
    shown.SamplesPerPixel = 1 if grey else 3
    several = source.is_multi_frame or "Multi-frame" in UID(shown.SOPClassUID).name
    if not several or "SharedFunctionalGroupsSequence" in shown:
        return shown
    if "VOILUTSequence" in shown or "ModalityLUTSequence" in shown:
        raise CannotWrite("lut_of_loop", "a loop with a VOI LUT or modality LUT is not supported")
    groups = Dataset()
    for name, keywords in _GROUPS.items():
        group = Dataset()
        for keyword in keywords:
            if keyword in shown:
                group[keyword] = shown[keyword]
        if len(group):
            setattr(groups, name, [group])
    shown.SharedFunctionalGroupsSequence = [groups]
    shown.PerFrameFunctionalGroupsSequence = [Dataset()]
    return shown

"""Heads and warnings of an answer in plain words; docs/integrate.md has them for programs."""

from __future__ import annotations

HEADS = {"malignancy": "Malignancy", "alnm": "Axillary lymph-node metastasis (ALNM)"}
"""Names of heads in `train/configs/`; others are shown as they are."""

WORDS = {
    "whole_frame": "No box was given: the whole image was scored.",
    "ultrasound_region_used": "No box was given: the tissue region of the DICOM file was scored.",
    "small_roi": "The box is so small that the image is enlarged more than 8 times.",
    "flat_image": "The box has almost no contrast.",
    "saturated_image": "Over a quarter of the box is white.",
    "colour_doppler": "There is colour in the box. The model knows grey images only.",
    "out_of_distribution": (
        "This image is unlike those that the model learned from. Do not rely on its scores."
    ),
    "exif_orientation_ignored": "The file asks to be turned. It is shown and scored as stored.",
    "further_pictures_ignored": "The file has several pictures. Only the first one was used.",
    "modality_not_us": "The DICOM file does not say that it is ultrasound.",
    "inconsistent": "The labels contradict each other: one is positive and what it needs is not.",
}


def in_words(codes: list[str]) -> list[dict[str, str]]:
    """Each warning with its sentence; what a header lacks or has wrong says so by its code."""
    header = "About the file's header: {}."
    return [
        {"code": code, "words": WORDS.get(code, header.format(code.replace("_", " ")))}
        for code in codes
    ]

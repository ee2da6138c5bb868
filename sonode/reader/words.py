"""Warnings of an answer in plain words; docs/integrate.md has them for programs."""

from __future__ import annotations

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
    "colour_space_contradicted": "The file's colours are not as its header says. Pixels decided.",
    "transfer_syntax_contradicted": "The file is not encoded as its header says. Bytes decided.",
    "offset_table_ignored": "The file's table of frames was wrong and was not used.",
    "ybr_422_stored_in_full": "The file's colour is not stored as its header says.",
    "pixel_data_too_long": "The file has more pixel data than its header says.",
    "transfer_syntax_assumed": "The file does not say how it is encoded; it was assumed.",
    "samples_per_pixel_assumed": (
        "The header lacks SamplesPerPixel; the only possible value is used."
    ),
    "bits_stored_assumed": "The header lacks BitsStored; the only possible value is used.",
    "pixel_representation_assumed": (
        "The header lacks PixelRepresentation, or it is wrong; the only possible value is used."
    ),
    "code_string_mended": "A code in the header was not in capitals.",
    "rescale_ignored": "The header's rescale values cannot be used.",
    "window_ignored": "The header's window cannot be used.",
    "voi_lut_ignored": "The header's VOI LUT cannot be used.",
    "voi_lut_in_bytes": "The header's VOI LUT is stored in bytes.",
    "inconsistent": "The labels contradict each other: one is positive and what it needs is not.",
}


def in_words(codes: list[str]) -> list[dict[str, str]]:
    """Each warning with its sentence; one of a newer server has its code alone."""
    return [{"code": code, "words": WORDS.get(code, code)} for code in codes]

"""A request's bytes -> the crop of its RoI and the network's input; CPU only."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.errors import InvalidRoI
from handlers.images import quality
from handlers.requests import Explain, ScoringRequest
from model_def.images.decode import decode
from model_def.preprocessing import Pixels, Preprocessing, RoI, crop, resize


@dataclass(frozen=True)
class Prepared:
    """A row ready for the network."""

    crop_HW: Pixels
    """The widened RoI at its own resolution, for overlays."""
    input_SS: Pixels
    """The same, resized to the network's input."""
    roi: RoI
    """The RoI that was scored, before widening."""
    explain: Explain | None
    warnings: list[str]
    frame_size: tuple[int, int]
    """Height and width of the full stored frame."""
    frame_HW: Pixels | None = None
    """That frame, for overlays; only where `explain` asks for one in it."""


def prepare(request: ScoringRequest, facts: Preprocessing) -> Prepared:
    """Decode, check the RoI against the frame, crop and resize.

    Without a RoI it is the one usable tissue region of a DICOM file, or else the whole frame; a
    warning says which.

    Raises:
        InvalidRoI: empty or outside the frame; it is never clipped in silence.
        RowError: whatever `decode` raises.
    """
    frame = decode(request.image, request.frame)
    height, width = frame.grey_HW.shape
    notes = list(frame.warnings)
    roi = request.roi
    if roi is None:
        notes.append("ultrasound_region_used" if frame.tissue else "whole_frame")
        roi = frame.tissue or RoI(0, 0, width, height)
    if not roi.lies_inside(width, height):
        raise InvalidRoI(
            f"roi: {list(roi)} is empty or outside the {width} x {height} frame; send "
            "x_min < x_max and y_min < y_max inside it"
        )
    crop_HW = crop(frame.grey_HW, roi, facts)
    if crop_HW.size < frame.grey_HW.size:
        crop_HW = crop_HW.copy()  # a view would keep the whole frame in memory
    input_SS = resize(crop_HW, facts)
    notes += quality.grey_warnings(roi, input_SS)
    if frame.has_colour_in(roi):
        notes.append("colour_doppler")
    return Prepared(
        crop_HW=crop_HW,
        input_SS=input_SS,
        roi=roi,
        explain=request.explain,
        warnings=notes,
        frame_size=(height, width),
        frame_HW=frame.grey_HW if request.explain and request.explain.full_frame else None,
    )

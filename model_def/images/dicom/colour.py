"""Three stored samples -> RGB, by the compressed frame's colour space or else the header's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.pixels.processing import convert_color_space

from model_def.images.dicom.codestreams import Codestream, Space
from model_def.images.errors import UnreadableImage
from model_def.preprocessing import Pixels

_STATED: dict[str, Space] = {"RGB": "RGB", "YBR_FULL": "YBR", "YBR_FULL_422": "YBR"}
_NEAR = 8
"""Grey levels that lossy compression may move a sample by."""


def to_rgb(
    samples: Pixels, photometric: str, stream: Codestream | None, notes: list[str]
) -> Pixels:
    """RGB of samples (H, W, 3); `notes` gets `colour_space_contradicted`.

    The header's YBR_RCT and YBR_ICT are transforms of JPEG 2000, which its decoder undoes;
    elsewhere they mean nothing. In a codestream without marker the component ids are custom, and
    the header is often wrong: the pixels decide where they are clear. Ultrasound is mostly grey,
    which makes three equal samples of RGB, or neutral chrominance of YBR.

    Raises UnreadableImage: naming PhotometricInterpretation, where they are not clear.
    """
    stated = _STATED.get(photometric)
    in_stream = stream.space if stream else None
    space: Space | None
    if stream and stream.certain:
        space = in_stream
    elif stream and (plain := _plain(samples)):
        space = plain
    elif in_stream and stated and in_stream != stated:
        space = None
    else:
        space = stated or in_stream or _plain(samples)
        if space is None and stream and not stream.for_libjpeg:
            space = "RGB"  # JPEG 2000 that mixed nothing: there is nothing to undo
    if space is None:
        raise UnreadableImage(
            f"image: PhotometricInterpretation is {photometric}, but the compressed frame and the "
            "pixels do not confirm it; export it again"
        )
    undone = photometric in ("YBR_RCT", "YBR_ICT") and stream is not None and stream.transformed
    if space != stated and not undone:
        notes.append("colour_space_contradicted")
    return convert_color_space(samples, "YBR_FULL", "RGB") if space == "YBR" else samples


def _plain(samples: Pixels) -> Space | None:
    """What the greater part of the pixels can only be; None where that is both or neither."""
    first, second, third = (samples[..., band].astype(np.int16) for band in range(3))

    def mostly(condition: npt.NDArray[Any]) -> bool:
        return bool(condition.mean() > 0.5)

    equal = mostly((abs(second - first) <= _NEAR) & (abs(third - first) <= _NEAR))
    neutral = mostly((abs(second - 128) <= _NEAR) & (abs(third - 128) <= _NEAR))
    return None if equal == neutral else "RGB" if equal else "YBR"

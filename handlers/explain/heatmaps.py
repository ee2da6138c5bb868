"""The heat maps that one row asks for: attributed, drawn, and rounded."""

from __future__ import annotations

import math

import numpy as np
import torch

from handlers.explain.attribution import SIGNED, Attributor
from handlers.images.prepare import Prepared
from handlers.responses import Heatmap
from model_def.overlay import Canvas, Map
from model_def.preprocessing import widen

GRID_DIGITS = 6


def of_row(
    item: Prepared,
    attributor: Attributor,
    logits_L: torch.Tensor,
    features_Chw: torch.Tensor,
    deadline: float = math.inf,
) -> dict[str, Heatmap]:
    """The heat maps of a row by head; none where it asks for none.

    `deadline` is of `time.monotonic()`; after it no map is begun but Grad-CAM, which takes no time.

    Raises:
        ExplanationFailed: a map is not finite.
        ExplanationTooLong: the deadline came first.
    """
    if item.explain is None:
        return {}
    height, width = item.frame_size
    box = widen(item.roi, attributor.card.preprocessing.context, width, height)
    crop = Canvas.of_crop(item.crop_HW)
    frame = None if item.frame_HW is None else Canvas.of_frame(item.frame_HW, box, item.roi)
    method = item.explain.method
    found = {}
    for head in item.explain.heads:
        map_hw, target = attributor.attribute(
            method, head, item.input_SS, logits_L, features_Chw, deadline
        )
        caption = f"{method.replace('_', ' ')}\n{target}"  # together they may be too wide
        signed = method in SIGNED
        found[head] = Heatmap(
            method=method,
            target=target,
            box=box,
            max=float(np.abs(map_hw).max()),
            png=crop.draw(map_hw, caption, signed=signed),
            full_frame_png=frame.draw(map_hw, caption, signed=signed) if frame else None,
            grid=_rounded(map_hw) if item.explain.grid else None,
        )
    return found


def _rounded(map_hw: Map) -> list[list[float]]:
    """The values to `GRID_DIGITS` digits of the largest; what lies below is noise of float32."""
    peak = float(np.abs(map_hw).max())
    decimals = GRID_DIGITS - 1 - math.floor(math.log10(peak)) if peak > 0 else 0
    rounded: list[list[float]] = np.round(map_hw.astype(float), decimals).tolist()
    return rounded

"""Figure S1: heat-map response over the distance to the crop's centre, with its spread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from train import pages
from train.evidence import plots
from train.evidence.plots import Profile
from train.paper.sections import Figure, Section
from train.repeats.runs import OF_A_RUN
from train.repeats.variants import TASKS

NUMBERS, FIGURE = "tables/figure-s1.csv", "figures/figure-s1.png"


def cam_section(network: str, runs: Sequence[Path], out: Path) -> Section:
    """The mean over the repeats of one network, and its numbers; `runs`: their folders."""
    each = [json.loads((run / OF_A_RUN).read_text()) for run in runs]
    found: dict[str, Profile] = {}
    rows = []
    for head in dict.fromkeys(head for its in each for head in its):
        its = [Profile(**of_run[head]) for of_run in each if head in of_run]
        mean_GR = np.array([it.mean for it in its]).T
        known = [it.sd for it in its if it.sd is not None]
        # The root of the variance over images, which is the mean of that of the repeats.
        sd_G = np.sqrt(np.mean(np.square(known), axis=0)) if known else None
        name = TASKS[head].title
        found[name] = Profile(
            radius=its[0].radius,
            mean=mean_GR.mean(axis=1).tolist(),
            sd=None if sd_G is None else sd_G.tolist(),
            images=max(it.images for it in its),
            cells=its[0].cells,
        )
        for place, radius in enumerate(its[0].radius):
            rows.append(
                {
                    "task": head,
                    "model": network,
                    "distance": radius,
                    "mean": found[name].mean[place],
                    "sd_over_images": None if sd_G is None else sd_G[place],
                    "sd_over_repeats": mean_GR[place].std(ddof=1) if len(its) > 1 else None,
                    "images": found[name].images,
                    "repeats": len(its),
                }
            )
    title = "Figure S1: heat maps and the distance to the centre"
    if not found:
        return Section(title=title, text=["No heat map of the network responds at all: no curve."])
    (out / NUMBERS).parent.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(out / NUMBERS, index=False)
    ends = (f"{name} {its.mean[0]:.2f} to {its.mean[-1]:.2f}" for name, its in found.items())
    return Section(
        title=title,
        figures=[
            Figure(
                caption=f"{network}: response of Grad-CAM over the distance to the centre of the "
                "crop, each map scaled by its maximum. Lines: mean over the images of the test "
                "part and over the repeats. Bands: one SD over images on each side. "
                f"{next(iter(found.values())).resolution} Numbers: {NUMBERS}.",
                alt=f"Mean response from centre to corner: {'; '.join(ends)}",
                uri=pages.svg_uri(plots.cam_over_distance(found, out / FIGURE)),
                file=FIGURE,
            )
        ],
    )

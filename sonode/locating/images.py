"""A cohort's images, each with all of its boxes: what a detector learns from and is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model_def.preprocessing import Pixels, RoI
from train.cohorts.images import read_image
from train.cohorts.split import Part
from train.data.datamodule import CohortData


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image of a cohort."""

    name: str
    """As the cohort's table has it."""
    path: Path
    patient: str
    boxes: list[RoI]

    def pixels(self) -> Pixels:
        """Its grey pixels (H, W)."""
        return read_image(self.path)


def images_of(data: CohortData, part: Part) -> list[Image]:
    """The images of a part of the split, in the cohort's order.

    Raises UserError: the cohort has faults.
    """
    found: dict[str, Image] = {}
    for row in data.rows_of(part):
        name = str(data.cohort.table["image"].iloc[row])
        patient = str(data.cohort.table["patient_id"].iloc[row])
        path = data.cohort.image_path(row)
        image = found.setdefault(name, Image(name=name, path=path, patient=patient, boxes=[]))
        image.boxes.append(data.cohort.roi(row))
    return list(found.values())

"""BUSI: class folders with masks."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from model_def.preprocessing import RoI
from sonode_console import UserError, progress, say
from train.cohort import Cohort
from train.import_draft import Draft


def import_busi(source: Path, out: Path, *, drop_faulty: bool = False) -> Cohort:
    """BUSI's class folders and masks -> cohort in `out`, images left where they are.

    (Al-Dhabyani et al. 2020, Data in Brief 28:104863.) One row per mask: its bounding box is the
    RoI. Malignancy comes from the folder; ALNM and node counts are not in the set and stay
    missing. There is no patient id either: each image counts as a patient, images with equal
    pixels as one. `normal` images have no lesion and are left out.

    Raises:
        UserError: not the layout of BUSI, or the cohort has faults.
    """
    folders = [source / "benign", source / "malignant"]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"SRC {source}: no folder `{folder.name}`; give BUSI's top folder")
    images = [
        p for folder in folders for p in sorted(folder.glob("*.png")) if "_mask" not in p.stem
    ]
    draft = Draft(out)
    first_of: dict[str, str] = {}
    seen: set[tuple[str, bool, RoI]] = set()
    repeated = 0
    for path in progress(images, total=len(images), what="reading masks"):
        stem = f"busi_{path.parent.name}_{''.join(re.findall(r'[0-9]+', path.stem))}"
        patient, malignant = stem, path.parent.name == "malignant"
        if (pixels := draft.pixels(path)) is not None:
            patient = first_of.setdefault(hashlib.sha256(pixels.tobytes()).hexdigest(), stem)
            repeated += patient != stem
            if patient != stem and malignant and "benign" in patient:
                say(
                    f"{path.name} shows the same pixels as an image of the folder benign: one of "
                    "the two labels is wrong; both are kept, take one out of SRC"
                )
        drawn = [draft.mask(mask) for mask in sorted(path.parent.glob(f"{path.stem}_mask*.png"))]
        boxes = [box for box in drawn if box is not None]
        new = [box for box in boxes if (patient, malignant, box) not in seen]
        seen.update((patient, malignant, box) for box in boxes)
        if boxes and not new and len(boxes) == len(drawn):
            draft.skip()
            continue
        draft.add(
            path.name,
            path,
            new,
            patient_id=patient,
            lesion_id=stem,
            malignant=malignant,
        )
    if repeated:
        say(
            f"{repeated} images repeat the pixels of another and share its patient id; "
            "a lesion that stands twice is kept once"
        )
    return draft.finish(name="BUSI", source="BUSI", synthetic=False, drop_faulty=drop_faulty)

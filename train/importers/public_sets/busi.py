"""BUSI: class folders with masks."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from pathlib import Path

from model_def.preprocessing import RoI
from sonode.console import UserError, progress
from train.cohorts.cohort import Cohort
from train.importers.draft import Draft
from train.importers.import_warnings import PICTURES
from train.importers.left_out import LeftOut
from train.importers.write_draft import write_draft

_NUMBERED = re.compile(r"(?:benign|malignant) \(([0-9]+)\)")


def import_busi(source: Path, out: Path, *, drop_faulty: bool = False) -> Cohort:
    """BUSI's class folders and masks -> cohort in `out`, images left where they are.

    (Al-Dhabyani et al. 2020, Data in Brief 28:104863.) One row per mask: its bounding box is the
    RoI. Malignancy comes from the folder; ALNM and node counts are not in the set and stay
    missing. There is no patient id either: each image counts as a patient, and similar images as
    one (`near_duplicates`); where their folders differ one of the two is wrong, and both are
    faults. `normal` images have no lesion and are left out.

    Raises UserError: not the layout of BUSI, or the cohort has faults.
    """
    folders = [source / "benign", source / "malignant"]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"SRC {source}: no folder `{folder.name}`; give BUSI's top folder")
    draft = Draft(out)
    images, masks_of = _pictures(source, folders, draft.left_out)
    first_of: dict[tuple[bool, str], str] = {}
    seen: set[tuple[str, bool, RoI]] = set()
    repeated = skipped = 0
    for path in progress(images, total=len(images), what="reading masks"):
        numbered = _NUMBERED.fullmatch(path.stem)
        stem = f"busi_{path.parent.name}_{numbered.group(1) if numbered else path.stem}"
        patient, malignant = stem, path.parent.name == "malignant"
        if (pixels := draft.pixels(path)) is not None:
            digest = hashlib.sha256(pixels.tobytes()).hexdigest()
            patient = first_of.setdefault((malignant, digest), stem)
            repeated += patient != stem
        drawn = [draft.mask(mask) for mask in masks_of[path.parent.name, path.stem]]
        boxes = [box for box in drawn if box is not None]
        new = [box for box in boxes if (patient, malignant, box) not in seen]
        seen.update((patient, malignant, box) for box in boxes)
        if boxes and not new and len(boxes) == len(drawn):
            draft.skip()
            skipped += 1
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
        draft.note(
            "images repeat the pixels of another and share its patient id; a duplicate lesion is "
            "kept once",
            repeated,
        )
    draft.left_out.counted("images repeat pixels and lesions of another", skipped, patients=0)
    return write_draft(
        draft,
        name="BUSI",
        source="BUSI",
        synthetic=False,
        drop_faulty=drop_faulty,
        patient_ids=False,
    )


def _pictures(
    source: Path, folders: list[Path], left_out: LeftOut
) -> tuple[list[Path], dict[tuple[str, str], list[Path]]]:
    """The images of the class folders, and the masks of each by its folder and stem.

    Other files are left out, and reported.
    """
    images: list[Path] = []
    masks_of: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for folder in folders:
        files = sorted(folder.iterdir())
        pictures = [it for it in files if it.suffix.lower() in PICTURES and it.name[0] != "."]
        left_out.files(
            f"files of {folder.name} do not have the name of an image", set(files) - set(pictures)
        )
        masks = [it for it in pictures if "_mask" in it.stem]
        mine = [it for it in pictures if "_mask" not in it.stem]
        stems = {image.stem for image in mine}
        for mask in masks:
            masks_of[folder.name, mask.stem.rpartition("_mask")[0]].append(mask)
        left_out.files(
            f"masks of {folder.name} have no image",
            [mask for mask in masks if mask.stem.rpartition("_mask")[0] not in stems],
        )
        images += mine
    normal = source / "normal"
    others = [it for it in source.iterdir() if it.is_dir() or it.suffix.lower() in PICTURES]
    left_out.files(
        "files or folders are not one of BUSI's three",
        [it for it in others if it not in (*folders, normal) and it.name[0] != "."],
    )
    if normal.is_dir():
        lesionless = [it for it in normal.iterdir() if it.suffix.lower() in PICTURES]
        count = sum("_mask" not in it.stem for it in lesionless)
        left_out.counted("normal images have no lesion", count, patients=None)
    return images, masks_of

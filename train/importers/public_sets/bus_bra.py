"""BUS-BRA: one table with boxes, masks beside the images."""

from __future__ import annotations

from pathlib import Path

from model_def.preprocessing import RoI
from sonode.console import UserError, progress
from train.cohorts.cohort import Cohort
from train.importers.draft import Draft
from train.importers.write_draft import write_draft
from train.tables.records import read_records
from train.tables.texts import spelt_id, spelt_label
from train.tables.values import bbox, malignancy

TABLE = "bus_data.csv"
FOLDS = {"fold_5": "5-fold-cv.csv", "fold_10": "10-fold-cv.csv"}
_COLUMNS = ("ID", "Case", "Histology", "Pathology", "BIRADS", "Device", "BBOX")


def import_bus_bra(source: Path, out: Path, *, drop_faulty: bool = False) -> Cohort:
    """BUS-BRA's folder (`bus_data.csv`, `Images/`, `Masks/`) -> cohort in `out`.

    (Gómez-Flores et al. 2024, Medical Physics 51:3110; https://doi.org/10.5281/zenodo.7730709.)
    A row of the table is one image, `Images/ID.png`; `Case` is the patient, and the views of a case
    show one lesion (assumed; the set's 722 benign and 342 malignant tumours are its 1064 cases).
    The RoI is the bounding box of the mask, `Masks/mask_....png` for `bus_....png`; it is a fault
    where an edge lies more than a pixel off `BBOX`. Without a mask it is `BBOX`. `histology` and
    `birads` are carried along, and the official folds (`kFold` of `5-fold-cv.csv` and
    `10-fold-cv.csv`, where they are there) as `fold_5` and `fold_10`; ALNM is not in the set and
    stays missing.

    Raises UserError: not the layout of BUS-BRA, or the cohort has faults.
    """
    if not (source / TABLE).is_file():
        raise UserError(f"SRC {source}: has no {TABLE}; give BUS-BRA's top folder")
    records = read_records(source / TABLE, _COLUMNS)
    folds = {column: _folds(source / name) for column, name in FOLDS.items()}
    folds = {column: of_image for column, of_image in folds.items() if of_image}
    draft = Draft(out, dict.fromkeys(("histology", "birads", *folds), str))
    both = list(zip(records.places, records.rows, strict=True))
    for place, record in progress(both, total=len(both), what="reading masks"):
        case = draft.parse("Case", spelt_id, record["Case"]) or ""
        draft.add(
            place,
            source / "Images" / f"{record['ID']}.png",
            _boxes(draft, record, source / "Masks"),
            patient_id=case and f"bus_bra_{case}",
            lesion_id=f"bus_bra_{case}",
            malignant=draft.parse("Pathology", malignancy, record["Pathology"]),
            device=draft.parse("Device", spelt_label, record["Device"]),
            histology=draft.parse("Histology", spelt_label, record["Histology"]),
            birads=draft.parse("BIRADS", spelt_label, record["BIRADS"]),
            **{column: of_image.get(record["ID"]) or None for column, of_image in folds.items()},
        )
    for folder, prefix, report in (
        ("Images", "bus_", draft.left_out.images),
        ("Masks", "mask_", draft.left_out.files),
    ):
        named = {f"{record['ID'].replace('bus_', prefix, 1)}.png" for record in records.rows}
        found = (source / folder).iterdir() if (source / folder).is_dir() else ()
        report(
            f"files of {folder} have no row in {TABLE}",
            [path for path in found if path.name not in named and path.name[0] != "."],
        )
    return write_draft(
        draft, name="BUS-BRA", source="BUS-BRA", synthetic=False, drop_faulty=drop_faulty
    )


def _folds(path: Path) -> dict[str, str]:
    """The official fold of each image; none where there is no such file."""
    if not path.is_file():
        return {}
    return {row["ID"]: row["kFold"] for row in read_records(path, ("ID", "kFold")).rows}


def _boxes(draft: Draft, record: dict[str, str], masks: Path) -> list[RoI | None]:
    written = draft.parse("BBOX", bbox, record["BBOX"])
    mask = masks / f"{record['ID'].replace('bus_', 'mask_', 1)}.png"
    if not mask.is_file():
        draft.note("images have no mask in Masks: their box is BBOX")
        return [written]
    drawn = draft.mask(mask)
    if drawn is None:
        return []
    if written and max(abs(a - b) for a, b in zip(drawn, written, strict=True)) > 1:
        draft.fault(
            "roi",
            f"{mask.name} shows the box {list(drawn)}, and BBOX says {list(written)}; correct one",
        )
    return [drawn]

"""BrEaST-Lesions-USG: one image per patient, masks, and an Excel sheet of clinical facts."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from pathlib import Path

import pandas as pd

from sonode.console import UserError, progress
from train.cohorts.cohort import Cohort
from train.importers.draft import Draft
from train.importers.import_warnings import PICTURES
from train.importers.write_draft import write_draft
from train.tables.texts import missing_words, spelt_label
from train.tables.values import malignancy, number

_MASK = re.compile(r"_(tumor|other)\d*$")
_COLUMNS = ("Image_filename", "Mask_tumor_filename", "Classification", "Age", "BIRADS", "Diagnosis")


def import_breast(source: Path, out: Path, *, drop_faulty: bool = False) -> Cohort:
    """BrEaST's folder (the .xlsx and the PNGs, at any depth) -> cohort in `out`.

    (Pawłowska et al. 2024, Scientific Data 11:148; https://doi.org/10.7937/9WKK-Q141.) The first
    sheet has one row per image, which is one patient. Boxes come from the tumour masks named in
    `Mask_tumor_filename`, several joined by `&`; masks of other findings are not lesions and are
    not read. `Classification` (benign, malignant) holds for all tumours of the image (assumed);
    `normal` images have no lesion and are left out. `age`, `birads` and `diagnosis` are carried
    along, blank where the sheet says "not available"; ALNM and device are not in the set.

    Raises UserError: openpyxl is absent, not the layout of BrEaST, or the cohort has faults.
    """
    sheet = _read_sheet(source)
    pictures = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in PICTURES]
    files = {path.name: path for path in pictures}
    twice = [name for name, times in Counter(path.name for path in pictures).items() if times > 1]
    if twice:
        raise UserError(
            f"SRC {source}: has {len(twice)} duplicate names ({twice[0]}); keep one of each"
        )
    draft = Draft(out, {"age": float, "birads": str, "diagnosis": str})
    normal = 0
    rows = list(sheet.to_dict("records"))
    for line, row in enumerate(progress(rows, total=len(rows), what="reading masks"), start=2):
        record = {str(column): str(value).strip() for column, value in row.items()}
        if record["Classification"].lower() == "normal":
            normal += 1
            continue
        image = files.get(record["Image_filename"], source / record["Image_filename"])
        names = [name.strip() for name in record["Mask_tumor_filename"].split("&") if name.strip()]
        boxes = [draft.mask(files.get(name, source / name)) for name in names]
        known = {field: value for field, value in record.items() if not missing_words([value])}
        draft.add(
            f"row {line} ({record['Image_filename']})",
            image,
            [box for box in boxes if box is not None],
            patient_id=f"breast_{image.stem}",
            lesion_id=f"breast_{image.stem}",
            malignant=draft.parse("Classification", malignancy, record["Classification"]),
            age=draft.parse("Age", number, known.get("Age", "")),
            birads=draft.parse("BIRADS", spelt_label, known.get("BIRADS", "")),
            diagnosis=draft.parse("Diagnosis", spelt_label, known.get("Diagnosis", "")),
        )
    named = {str(row["Image_filename"]).strip() for row in rows}
    named |= {
        name.strip()
        for row in rows
        for column in ("Mask_tumor_filename", "Mask_other_filename")
        for name in str(row.get(column, "")).split("&")
    }
    unnamed = [it for it in pictures if it.name not in named]
    masks = [it for it in unnamed if _MASK.search(it.stem)]
    draft.left_out.files("masks are not in the sheet", masks)
    draft.left_out.images("images are not in the sheet", set(unnamed) - set(masks))
    draft.left_out.counted("normal images have no lesion", normal, patients=normal)
    return write_draft(
        draft,
        name="BrEaST-Lesions-USG",
        source="BrEaST-Lesions-USG",
        synthetic=False,
        drop_faulty=drop_faulty,
    )


def _read_sheet(source: Path) -> pd.DataFrame:
    """The first sheet as text, blanks as the empty one."""
    books = [path for path in sorted(source.rglob("*.xlsx")) if not path.name.startswith("~$")]
    if len(books) != 1:
        raise UserError(f"SRC {source}: has {len(books)} .xlsx files; keep only that of BrEaST")
    try:
        sheet = pd.read_excel(books[0], dtype=str, keep_default_na=False, engine="openpyxl")
    except ImportError as error:
        raise UserError(
            "import breast: needs openpyxl to read .xlsx; install it with the extra `train`"
        ) from error
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"SRC {books[0].name}: not an Excel workbook; download it again") from error
    absent = [column for column in _COLUMNS if column not in sheet.columns]
    if absent:
        raise UserError(f"SRC {books[0].name}: no column {', '.join(absent)} on the first sheet")
    return sheet

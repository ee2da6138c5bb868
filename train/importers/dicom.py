"""Cohorts from DICOM files: labels from a table, boxes from it or drawn in the folder."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from model_def.preprocessing import RoI
from sonode.boxes.dicom_rois import DrawnBox
from sonode.console import UserError, say
from train.cohorts.cohort import SCHEMA, Cohort
from train.cohorts.images import FRAME
from train.importers.column_kinds import NUMBERS, further_columns
from train.importers.dicom_folder import DicomFolder, Instance, read_folder
from train.importers.draft import Draft
from train.importers.label_rows import LABELS, box_in_row, has_boxes, read_id, read_labels
from train.importers.write_draft import write_draft
from train.tables.records import Records, read_records
from train.tables.texts import spelt_label
from train.tables.values import file_path, whole

KEY = "patient_key"
_FACTS = ("device", "age", "pixel_width_mm", "pixel_height_mm")
_PLACE = ("instance_uid", "file", "frame")
_Boxes = list[tuple[int | None, RoI | None]]  # with the frame; None where none is named


def import_dicom(
    source: Path,
    out: Path,
    *,
    name: str,
    table: Path | None = None,
    patient_key: Path | None = None,
    drop_faulty: bool = False,
    kinds: Mapping[str, str] | None = None,
) -> Cohort:
    """DICOM files at any depth of `source`, and a table of labels -> cohort in `out`.

    The table (`labels.csv` in `source` unless given) has `instance_uid` (the image's
    SOPInstanceUID) or `file` (a path from `source`), `frame` (from 0) for loops, and the columns of
    `import_csv`. A row without box takes the boxes that SRs and presentation states in `source`
    draw on its image; an image that has such a box and no row has missing labels. `patient_id` is
    the table's column, or else PatientID keyed (HMAC-SHA256) by the file `patient_key`, which is
    made in `out` unless given: two cohorts of one key name a patient alike. `device` is
    Manufacturer and ManufacturerModelName, as a pull writes it, `age` PatientAge in years,
    `pixel_width_mm` and `pixel_height_mm` the size of a pixel in the box, unless the table has such
    columns.

    Raises UserError: no such table or key, a column is absent or of another type, or faults.
    """
    table = table or source / LABELS
    records = read_records(table, ())
    if not {"instance_uid", "file"} & set(records.columns):
        raise UserError(f"SRC {table.name}: no column `instance_uid` or `file`; add one")
    has_boxes(records, table)
    key = _key(patient_key, out)
    folder = read_folder(source)
    if folder.damaged and not drop_faulty:
        raise UserError(
            f"SRC: DICOM files cannot be read ({len(folder.damaged)}); copy them again, or leave "
            "them out with --drop-faulty",
            [path.name for path in folder.damaged],
        )
    rows = _Rows(source, out, records, folder, key, kinds)
    for place, record in zip(records.places, records.rows, strict=True):
        rows.add(place, record)
    rows.add_drawn_alone()
    draft = rows.draft
    draft.left_out.files("DICOM files cannot be read", folder.damaged)
    others = [path for path in folder.others if not path.samefile(table)]
    draft.left_out.files("files are no DICOM image and draw no box", others)
    if folder.not_boxes:
        draft.note("drawings enclose nothing and are no boxes", folder.not_boxes)
    if elsewhere := sum(len(its) for it, its in folder.boxes.items() if it not in folder.images):
        draft.note("boxes are drawn on images that are not in SRC", elsewhere)
    say(
        "patient_id is the table's"
        if rows.own_patients
        else f"patient_id is PatientID, keyed by {patient_key or out / KEY}; keep that file secret"
    )
    if not rows.own_patients and patient_key is None and not (out / KEY).exists():
        draft.secret = (out / KEY, key.hex())
    return write_draft(draft, name=name, source="DICOM", synthetic=False, drop_faulty=drop_faulty)


def _key(path: Path | None, out: Path) -> bytes:
    """The key in a file; that of an earlier import into `out`, or a new one, unless it is given."""
    try:
        text = (path or out / KEY).read_text()
        if len(key := bytes.fromhex(text.strip())) >= 16:
            return key
    except FileNotFoundError:
        if path is None:
            return secrets.token_bytes(32)
        raise UserError(f"--patient-key {path}: no such file; give that of a cohort") from None
    except (OSError, ValueError):
        pass
    raise UserError(f"--patient-key {path or out / KEY}: not 32 or more hexadecimal digits")


class _Rows:
    """The draft of a cohort, and what its rows are made from."""

    def __init__(
        self,
        source: Path,
        out: Path,
        records: Records,
        folder: DicomFolder,
        key: bytes,
        kinds: Mapping[str, str] | None,
    ) -> None:
        self._source, self._records, self._folder, self._key = source, records, folder, key
        self._further = further_columns(records, (*SCHEMA.names, *_PLACE), kinds)
        columns = {column: float if it in NUMBERS else str for column, it in self._further.items()}
        self._own = [it for it in _FACTS if it not in records.columns]
        facts = dict.fromkeys((it for it in self._own if it != "device"), float)
        self.draft = Draft(out, {**columns, **facts})
        self.own_patients = "patient_id" in records.columns
        self._patients: dict[str, str] = {}  # by PatientID the table's id
        self._images = {it.path: it for its in folder.images.values() for it in its}
        self._used: set[Path] = set()
        self._taken: set[DrawnBox] = set()
        self._lesions: Counter[str] = Counter()

    def add(self, place: str, record: Mapping[str, str]) -> None:
        """Add a row of the table: one of the cohort for each of its boxes."""
        draft = self.draft
        path, image = self._file(record)
        frame = draft.parse("frame", whole, record.get("frame", ""))
        in_row = box_in_row(draft, record) if "roi_x_min" in record else []
        boxes: _Boxes = [(frame, box) for box in in_row]
        if image and not in_row:
            boxes = self._drawn(image, frame)
        values = read_labels(draft, record, self._further)
        lesion = read_id(draft, self._records, record, "lesion_id") if "lesion_id" in record else ""
        patient = ""
        if self.own_patients:
            patient = read_id(draft, self._records, record, "patient_id")
            if image and image.patient:
                before = self._patients.setdefault(image.patient, patient)
                if before != patient:
                    draft.fault("patient_id", "the file's PatientID has another id in a row above")
        elif image:
            patient = self._keyed(image)
        self._add(place, path, image, boxes or [(frame, None)], values, patient, lesion)

    def add_drawn_alone(self) -> None:
        """Add the images with drawn boxes of which the table has no row: their labels are missing.

        Images without row and box are left out, and reported.
        """
        no_box, no_patient = [], []
        for path, image in self._images.items():
            if path in self._used:
                continue
            boxes = self._drawn(image, None)
            if not boxes and not self.draft.pending:
                no_box.append(path)
                continue
            of_table = self._patients.get(image.patient, "")
            patient = of_table if self.own_patients else self._keyed(image)
            if self.own_patients and not patient:
                no_patient.append(path)
                self.draft.skip()
                continue
            self._check_single(image)
            self.draft.note("images have a drawn box and no row: their labels are missing")
            self._add(path.name, path, image, boxes or [(None, None)], {}, patient, "")
        known = (its for uid, its in self._folder.boxes.items() if uid in self._folder.images)
        if unused := sum(it not in self._taken for its in known for it in its):
            self.draft.note("drawn boxes are not used: a row has a box or names a frame", unused)
        left_out = self.draft.left_out
        left_out.images("images have no row in the table and no box", no_box)
        left_out.images("images with a box have no row, which names the patient", no_patient)

    def _file(self, record: Mapping[str, str]) -> tuple[Path, Instance | None]:
        """The file of a record, and its image where it is one."""
        uid, file = record.get("instance_uid", ""), record.get("file", "")
        path = self._source / (self.draft.parse("file", file_path, file) or "no file")
        if uid:
            found = self._folder.images.get(uid, [])
            if not found:
                self.draft.fault("image", "no file in SRC has this SOPInstanceUID")
                return path, None
            if file and path not in [it.path for it in found]:
                self.draft.fault("image", f"{path.name} has another SOPInstanceUID")
            path = found[0].path
        elif not file:
            self.draft.fault("image", "neither instance_uid nor file")
        if (image := self._images.get(path)) is None:
            return path, None
        self._check_single(image)
        self._used |= {path, *(it.path for it in self._folder.images[image.uid] if image.uid)}
        return path, image

    def _check_single(self, image: Instance) -> None:
        images = self._folder.images[image.uid]
        if image.uid and len(images) > 1:
            names = " and ".join(it.path.name for it in images)
            self.draft.fault("image", f"{names} have the same SOPInstanceUID; keep one")

    def _drawn(self, image: Instance, frame: int | None) -> _Boxes:
        """The boxes drawn on an image, or on one frame of it."""
        found: _Boxes = []
        for it in self._folder.boxes.get(image.uid, ()):
            if image.frames == 1:
                found.append((it.frame if frame is None else frame, RoI(*it.box)))
            elif frame is None and it.frame is None:
                what = "drawn on a loop, and on no frame of it; give `frame`, or a box in the table"
                self.draft.fault("roi", what)
            elif frame is None or it.frame in (None, frame):
                found.append((it.frame if frame is None else frame, RoI(*it.box)))
            else:
                continue
            self._taken.add(it)
        return found

    def _keyed(self, image: Instance) -> str:
        """PatientID under the key, "" where there is none."""
        digest = hmac.new(self._key, image.patient.encode(), hashlib.sha256)
        return f"dicom_{digest.hexdigest()[:16]}" if image.patient else ""

    def _add(
        self,
        place: str,
        path: Path,
        image: Instance | None,
        boxes: _Boxes,
        values: Mapping[str, object],
        patient: str,
        lesion: str,
    ) -> None:
        """Add a row for each box; all have the faults of the record."""
        facts = self._facts(image)
        pending = self.draft.pending
        on_frame: Counter[int | None] = Counter()
        for order, (frame, box) in enumerate(boxes, start=1):
            still = frame is None or (frame == 0 and image is not None and image.frames == 1)
            name = path.name if still else f"{path.name}{FRAME}{frame}"
            if lesion:  # on several frames one lesion, on one frame several
                times, of_box = on_frame[frame], lesion
                on_frame[frame] += 1
            else:
                times, of_box = self._lesions[name], name
                self._lesions[name] += 1
            self.draft.pending = list(pending)
            self.draft.add(
                place + (f" box {order}" if len(boxes) > 1 else ""),
                path.with_name(name),
                [] if box is None else [box],
                patient_id=patient,
                lesion_id=of_box + (f"_{times}" if times else ""),
                **{**values, **facts, **self._sizes(image, box)},
            )

    def _facts(self, image: Instance | None) -> dict[str, object]:
        """What the header says of the patient and the device, and the table does not."""
        found: dict[str, object] = {}
        if image and "device" in self._own:
            found["device"] = self.draft.parse("device", spelt_label, image.device)
        if image and "age" in self._own:
            found["age"] = image.age
        return found

    def _sizes(self, image: Instance | None, box: RoI | None) -> dict[str, object]:
        """The size of a pixel in a box, where the header says it and the table does not."""
        sizes = image.pixel_mm(box) if image and box else None
        return {it: v for it, v in zip(_FACTS[2:], sizes or (), strict=False) if it in self._own}

"""Rows on their way into a cohort: each remembers its place in the source, so that faults can."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
import pyarrow as pa

from model_def.preprocessing import Pixels, RoI
from sonode.console import UserError, say
from train.cohorts.checks import Fault, Scan, column_faults, find_faults
from train.cohorts.cohort import (
    RESERVED,
    ROI_COLUMNS,
    SCHEMA,
    Cohort,
    ImageError,
    check_out,
    checked_cohort,
    read_image,
    scan_images,
    to_table,
    write_cohort,
)
from train.cohorts.import_record import counts_of, write_record
from train.cohorts.near_duplicates import MOST, SIMILAR
from train.cohorts.similar_images import (
    SHEET,
    Similar,
    find_similar,
    label_faults,
    one_patient,
    patient_faults,
    write_sheet,
)
from train.importers.import_warnings import report_alike, report_images
from train.importers.left_out import LeftOut, of_checks
from train.importers.values import (
    MASK_THRESHOLD,
    FormatError,
    mask_box,
    mask_greys,
    several_lesions,
)

T = TypeVar("T")


class _BoxFile(NamedTuple):
    """A file that boxes of a record's rows come from, be it text or a mask."""

    path: Path
    size: tuple[int | None, int | None]
    rows: tuple[int, ...]
    image: str


class Draft:
    """A cohort to be in `out`; nothing is written before `finish` has checked it."""

    def __init__(self, out: Path, further: Mapping[str, type] | None = None) -> None:
        """Take the cohort's folder, and the further columns as name -> str or float."""
        self.out = out
        self.further = dict(further or {})
        self.rows: list[dict[str, object]] = []
        self.places: list[str] = []
        self.faults: list[Fault] = []
        self.pending: list[tuple[str, str]] = []
        self.box_files: list[_BoxFile] = []
        self._box_files: list[tuple[Path, tuple[int | None, int | None]]] = []
        self.classes: dict[str, Counter[str]] = defaultdict(Counter)
        """How many boxes have which class that says no label, by the kind of box file."""
        self.left_out = LeftOut()
        self._notes: Counter[str] = Counter()

    def parse(self, field: str, parser: Callable[[str], T], text: str) -> T | None:
        """The value of a field of the record that is added next; a fault of it if it has none."""
        try:
            return parser(text)
        except FormatError as error:
            self.fault(field, str(error))
            return None

    def fault(self, field: str, what: str) -> None:
        """Note a fault of the record that is added next."""
        self.pending.append((field, what))

    def pixels(self, path: Path, field: str = "image") -> Pixels | None:
        """Grey pixels (H, W) of an image or mask; a fault of the next record if unreadable."""
        try:
            return read_image(path)
        except ImageError as error:
            self.fault(field, f"{path.name}: {error}")
            return None

    def drawn_in(self, path: Path, size: tuple[int | None, int | None] = (None, None)) -> None:
        """Note a file that has boxes of the record that is added next.

        `size` is the (width, height) of the frame that they were drawn on, None where unknown.
        """
        self._box_files.append((path, size))

    def mask(self, path: Path) -> RoI | None:
        """The box of a mask of the record that is added next; a fault of it if there is none."""
        pixels = self.pixels(path, "roi")
        if pixels is None:
            return None
        height, width = pixels.shape
        self.drawn_in(path, (width, height))
        greys = mask_greys(pixels)
        if several_lesions(greys):
            what = (
                f"holds the greys {', '.join(map(str, greys))}; give a mask of 0 and 255 for each"
            )
            self.fault("roi", f"{path.name} {what}")
            return None
        if len(greys) > 1:
            self.note(
                "masks have more than two grey levels (stored as JPEG?): pixels from "
                f"{MASK_THRESHOLD} on count as the lesion"
            )
        if (box := mask_box(pixels)) is None:
            self.fault("roi", f"{path.name} shows no lesion")
        return box

    def skip(self) -> None:
        """Forget what was noted of a record that is not added after all."""
        self.pending = []
        self._box_files = []

    def note(self, what: str, times: int = 1) -> None:
        """Count what `finish` is to say, as "TIMES WHAT", whatever becomes of the rows."""
        self._notes[what] += times

    def add(
        self,
        place: str,
        image: Path,
        boxes: Sequence[RoI | None],
        *,
        lesion_id: str,
        **values: object,
    ) -> None:
        """Add a record of the source: one row per box, each a lesion of its own.

        `values` are the cohort's other columns; those left out are missing. A second box's lesion
        is LESION_1, and so on. The faults noted since the last record are those of all its rows.
        """
        rows = tuple(range(len(self.rows), len(self.rows) + max(1, len(boxes))))
        self.faults += [Fault(rows[0], *fault, spoils=rows) for fault in self.pending]
        self.pending = []
        reference = _reference(image, self.out)
        self.box_files += [_BoxFile(*its, rows, reference) for its in self._box_files]
        self._box_files = []
        for order, box in enumerate(boxes or [None]):
            self.rows.append(
                {
                    "image": reference,
                    "lesion_id": lesion_id + (f"_{order}" if order else ""),
                    **dict(zip(ROI_COLUMNS, box or (None,) * 4, strict=True)),
                    **values,
                }
            )
            self.places.append(place + (f" box {order + 1}" if len(boxes) > 1 else ""))

    def finish(
        self,
        *,
        name: str,
        source: str,
        synthetic: bool,
        drop_faulty: bool,
        patient_ids: bool = True,
    ) -> Cohort:
        """Check every row, write the cohort and give it back; what is refused is not written.

        With `drop_faulty` the rows with faults are left out and named, and with them those that
        share a doubtful image or lesion. Without `patient_ids` the ids are of images, and similar
        images become one patient. Where images are similar, a page that shows them is written, also
        where the cohort is refused.

        Raises:
            UserError: a further column's name is no plain one; faults without `drop_faulty`, all
                at once; no row is left.
        """
        for what, times in self._notes.items():
            say(f"{times} {what}")
        for classes in self.classes.values():
            if len(classes) > 1:
                all_of = [f"{name or 'no name'} ({times})" for name, times in classes.items()]
                say(f"boxes of all classes are used as lesions: {', '.join(all_of)}")
        labels = [column for column, kind in self.further.items() if kind is str]
        report_alike(self.rows, self.places, ("patient_id", "device", *labels))
        rows = pd.DataFrame(self.rows, columns=[*SCHEMA.names, *self.further])
        rows = rows.astype({name: kind for name, kind in self.further.items() if kind is float})
        table = to_table(rows)
        for column_fault in column_faults(pa.schema(list(table.schema)[len(SCHEMA) :]), RESERVED):
            raise UserError(f"SRC: {column_fault}")
        frame = table.to_pandas(types_mapper=pd.ArrowDtype)
        check_out(self.out, name, frame["image"])
        scans = scan_images(self.out, frame)
        self.faults += self._box_file_faults(scans)
        frame = self._join_similar(frame, scans, patient_ids=patient_ids)
        known = {(fault.row, fault.field) for fault in self.faults}
        doubtful = {fault.row for fault in self.faults}
        for fault in find_faults(frame, scans):
            boxless = fault.field == "roi" and pd.isna(frame["roi_x_min"].iloc[fault.row])
            if (fault.row, fault.field) in known or (boxless and fault.row in doubtful):
                continue  # the cause is listed already
            self.faults.append(fault)
        read, exclusions = counts_of(frame), list(self.left_out.exclusions)
        if self.faults:
            faults = sorted(self.faults, key=lambda fault: fault.row)
            lines = [fault.line(self.places.__getitem__) for fault in faults]
            if not drop_faulty:
                raise UserError(
                    f"SRC: {len(lines)} faults; correct them and import again, or leave these rows "
                    "out with --drop-faulty",
                    lines,
                )
            # Faults of one lesion or image share one tuple, which is gone through once.
            shared = {id(fault.spoils): fault.spoils for fault in faults}.values()
            spoilt = sorted({fault.row for fault in faults}.union(*shared))
            say(f"left out {len(spoilt)} of {len(frame)} rows for {len(lines)} faults:")
            for line in lines:
                say(f"  {line}")
            say("rows left out: " + ", ".join(self.places[row] for row in spoilt))
            exclusions += of_checks(frame, faults, spoilt)
            frame = frame.drop(index=spoilt).reset_index(drop=True)
        if frame.empty:
            raise UserError("SRC: no row is left for a cohort")
        about: dict[str, Any] = {"name": name, "synthetic": synthetic, "patient_ids": patient_ids}
        write_record(
            write_cohort(self.out, frame, source=source, **about),
            source=source,
            read=read,
            kept=counts_of(frame),
            exclusions=exclusions,
            other_files=dict(self.left_out.other_files),
            notes=dict(self._notes),
        )
        report_images({image: scans[image] for image in frame["image"].unique()})
        return checked_cohort(self.out, frame, scans, **about)

    def _join_similar(
        self, frame: pd.DataFrame, scans: Mapping[str, Scan | str], *, patient_ids: bool
    ) -> pd.DataFrame:
        """Note the faults of similar images; the frame, in which they may be one patient now."""
        found = find_similar(frame, scans)
        if patient_ids:  # `find_faults` reports equal pixels
            found = [pair for pair in found if not pair.same_pixels]
        if not found:
            (self.out / SHEET).unlink(missing_ok=True)  # of an earlier import
            return frame
        conflicts: dict[Similar, Fault] = {}
        if patient_ids:
            self.faults += patient_faults(found)
            meaning = "are of different patients"
        else:
            conflicts = dict(label_faults(frame, found))
            self.faults += conflicts.values()
            # Equal pixels are one image whatever their labels; `conflicts` reports these.
            joined = [pair for pair in found if pair.same_pixels or pair not in conflicts]
            frame = one_patient(frame, joined)
            meaning = "count as one patient, since there are no ids"

        def pixels(row: int) -> Pixels:
            return read_image(self.out / str(frame["image"].iloc[row]))

        sheet = write_sheet(
            self.out,
            found,
            conflicting=conflicts.keys(),
            doubtful_first=not patient_ids,
            place=self.places.__getitem__,
            pixels=pixels,
        )
        say(
            f"{len(found)}{' or more' * (len(found) == MOST)} pairs of similar images (correlation "
            f"of {SIMILAR} or more) {meaning}: "
            f"{sheet} shows them"
        )
        more = " (or more)" * (len(found) == MOST)
        self._notes[f"pairs of similar images {meaning}{more}"] = len(found)
        return frame

    def _box_file_faults(self, scans: Mapping[str, Scan | str]) -> Iterator[Fault]:
        """Files drawn on a frame of another size, and files that stand for two images."""
        first: dict[Path, _BoxFile] = {}
        for its in self.box_files:
            row, scan = its.rows[0], scans[its.image]
            if isinstance(scan, Scan) and any(
                drawn not in (None, found)
                for drawn, found in zip(its.size, (scan.width, scan.height), strict=True)
            ):
                width, height = ("?" if side is None else side for side in its.size)
                what = (
                    f"{its.path.name} was drawn on a frame of {width} x {height}, and the image is "
                    f"{scan.width} x {scan.height}; draw it again on this one"
                )
                kind = "box was drawn on an image of another size"
                yield Fault(row, "roi", what, spoils=its.rows, kind=kind)
            other = first.setdefault(its.path, its)
            if other.image != its.image:
                what = (
                    f"{its.path.name} has the boxes of {{other}}, too; give each image a name and "
                    "a box file of its own"
                )
                both = (*other.rows, *its.rows)
                kind = "one box file for several images"
                yield Fault(row, "roi", what, other.rows[0], both, kind)


def _reference(image: Path, out: Path) -> str:
    """The image relative to the cohort where it lies inside it, else its absolute path."""
    image, out = image.resolve(), out.resolve()
    return str(image.relative_to(out) if image.is_relative_to(out) else image)

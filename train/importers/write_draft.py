"""A draft -> a cohort on the disk: every row checked, and all faults listed at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from model_def.preprocessing import Pixels
from sonode.console import UserError, counted, say
from sonode.files.atomic import beside
from train.cohorts.checks import Fault, Scan, column_faults, find_faults
from train.cohorts.cohort import (
    RESERVED,
    SCHEMA,
    Cohort,
    check_out,
    checked_cohort,
    to_table,
    write_cohort,
)
from train.cohorts.images import read_image, scan_images
from train.cohorts.import_record import counts_of, write_record
from train.cohorts.similar.near_duplicates import MOST, SIMILAR
from train.cohorts.similar.similar_images import (
    SHEET,
    Similar,
    find_similar,
    label_faults,
    one_patient,
    patient_faults,
    write_sheet,
)
from train.cohorts.split import check_partition, partitions
from train.importers.draft import BoxFile, Draft
from train.importers.import_warnings import report_alike, report_images
from train.importers.left_out import of_checks


def write_draft(
    draft: Draft,
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

    Raises UserError: a further column's name is no plain one, or a partition cannot be used; faults
    without `drop_faulty`, all at once; no row is left.
    """
    for what, times in draft.notes.items():
        say(f"{what} ({times})")
    for classes in draft.classes.values():
        if len(classes) > 1:
            all_of = [f"{name or 'no name'} ({times})" for name, times in classes.items()]
            say(f"boxes of all classes are used as lesions: {', '.join(all_of)}")
    labels = [column for column, kind in draft.further.items() if kind is str]
    report_alike(draft.rows, draft.places, ("patient_id", "device", *labels))
    rows = pd.DataFrame(draft.rows, columns=[*SCHEMA.names, *draft.further])
    rows = rows.astype({name: kind for name, kind in draft.further.items() if kind is float})
    table = to_table(rows)
    for column_fault in column_faults(pa.schema(list(table.schema)[len(SCHEMA) :]), RESERVED):
        raise UserError(f"SRC: {column_fault}")
    frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    for column in partitions(draft.further):
        check_partition(frame, column, f"SRC: column `{column}`", draft.places.__getitem__)
    check_out(draft.out, name, frame["image"])
    scans = scan_images(draft.out, frame)
    draft.faults += _box_file_faults(draft, scans)
    frame = _join_similar(draft, frame, scans, patient_ids=patient_ids)
    known = {(fault.row, fault.field) for fault in draft.faults}
    doubtful = {fault.row for fault in draft.faults}
    for fault in find_faults(frame, scans):
        boxless = fault.field == "roi" and pd.isna(frame["roi_x_min"].iloc[fault.row])
        if (fault.row, fault.field) in known or (boxless and fault.row in doubtful):
            continue  # the cause is listed already
        draft.faults.append(fault)
    read, exclusions = counts_of(frame), list(draft.left_out.exclusions)
    if draft.faults:
        faults = sorted(draft.faults, key=lambda fault: fault.row)
        lines = [fault.line(draft.places.__getitem__) for fault in faults]
        how_many = counted(len(lines), "fault")
        if not drop_faulty:
            raise UserError(
                f"SRC: {how_many}; correct the rows and import again, or leave them out with "
                "--drop-faulty",
                lines,
            )
        # Faults of one lesion or image share one tuple, which is gone through once.
        shared = {id(fault.spoils): fault.spoils for fault in faults}.values()
        spoilt = sorted({fault.row for fault in faults}.union(*shared))
        say(f"left out {len(spoilt)} of {counted(len(frame), 'row')} for {how_many}:")
        for line in lines:
            say(f"  {line}")
        say("rows left out: " + ", ".join(draft.places[row] for row in spoilt))
        exclusions += of_checks(frame, faults, spoilt)
        frame = frame.drop(index=spoilt).reset_index(drop=True)
    if frame.empty:
        raise UserError("SRC: no row is left for a cohort")
    if draft.secret is not None:
        path, text = draft.secret
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as part:
            part.chmod(0o600)
            part.write_text(text)
            part.replace(path)
    about: dict[str, Any] = {"name": name, "synthetic": synthetic, "patient_ids": patient_ids}
    write_record(
        write_cohort(draft.out, frame, source=source, **about),
        source=source,
        read=read,
        kept=counts_of(frame),
        exclusions=exclusions,
        other_files=dict(draft.left_out.other_files),
        notes=dict(draft.notes),
    )
    report_images({image: scans[image] for image in frame["image"].unique()})
    return checked_cohort(draft.out, frame, scans, **about)


def _join_similar(
    draft: Draft, frame: pd.DataFrame, scans: Mapping[str, Scan | str], *, patient_ids: bool
) -> pd.DataFrame:
    """Note the faults of similar images; the frame, in which they may be one patient now."""
    found = find_similar(frame, scans)
    if patient_ids:  # `find_faults` reports equal pixels
        found = [pair for pair in found if not pair.same_pixels]
    if not found:
        (draft.out / SHEET).unlink(missing_ok=True)  # of an earlier import
        return frame
    conflicts: dict[Similar, Fault] = {}
    if patient_ids:
        draft.faults += patient_faults(found)
        meaning = "are of different patients"
    else:
        conflicts = dict(label_faults(frame, found))
        draft.faults += conflicts.values()
        # Equal pixels are one image whatever their labels; `conflicts` reports these.
        joined = [pair for pair in found if pair.same_pixels or pair not in conflicts]
        frame = one_patient(frame, joined)
        meaning = "count as one patient, since there are no ids"

    def pixels(row: int) -> Pixels:
        return read_image(draft.out / str(frame["image"].iloc[row]))

    sheet = write_sheet(
        draft.out,
        found,
        conflicting=conflicts.keys(),
        doubtful_first=not patient_ids,
        place=draft.places.__getitem__,
        pixels=pixels,
    )
    pairs = counted(len(found), "pair") + " or more" * (len(found) == MOST)
    say(
        f"similar images (correlation of {SIMILAR} or more) {meaning} ({pairs}): {sheet} shows them"
    )
    more = " (or more)" * (len(found) == MOST)
    draft.notes[f"pairs of similar images {meaning}{more}"] = len(found)
    return frame


def _box_file_faults(draft: Draft, scans: Mapping[str, Scan | str]) -> Iterator[Fault]:
    """Files drawn on a frame of another size, and files that stand for two images."""
    first: dict[Path, BoxFile] = {}
    for its in draft.box_files:
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

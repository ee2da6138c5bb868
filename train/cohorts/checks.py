"""Checks of a cohort: every fault with its row, its field and the rows it spoils."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from model_def.preprocessing import RoI
from sonode.files.parquet import ROI_COLUMNS

K = TypeVar("K")

LABELS = ("malignant", "alnm", "n_nodes")
ABSENT = "absent"
_REASONS = {
    "image": "image absent, damaged or not accepted",
    "roi": "no valid lesion box",
    "patient_id": "no valid patient id",
}
CONTRADICTION = "labels contradict each other"
SAME_PICTURE = "same picture under another patient"
_PLAIN = re.compile(r"[a-z][a-z0-9_]*")
_FURTHER_TYPES = (pa.string(), pa.float64())


class Scan(NamedTuple):
    """What one image is: the hash of its size and pixels, and its size in pixels."""

    sha256: str
    width: int
    height: int
    thumbnail: bytes
    """How it looks: `near_duplicates.thumbnail`."""
    turned: bool = False
    """Whether its EXIF orientation, which is not applied, would show it turned or mirrored."""
    brightest: int = 255
    """Its brightest pixel."""


@dataclass(frozen=True)
class Fault:
    """One thing that cannot be true."""

    row: int
    field: str
    what: str
    """What is wrong; `{other}` stands for the row of `other`."""
    other: int | None = None
    spoils: tuple[int, ...] = ()
    """Further rows that cannot be trusted: nobody knows which of them is right."""
    kind: str = ""
    """What is wrong, in words that fit every such fault; "" where the field says it."""

    @property
    def reason(self) -> str:
        """Why the row is left out, without anything of the row: to be counted."""
        return self.kind or _REASONS.get(self.field, f"{self.field} is not valid")

    def line(self, place: Callable[[int], str]) -> str:
        """The fault as `ROW, FIELD: WHAT`; `place` names a row."""
        what = self.what if self.other is None else self.what.replace("{other}", place(self.other))
        return f"{place(self.row)}, {self.field}: {what}"


def column_faults(further: pa.Schema, reserved: Collection[str]) -> Iterator[str]:
    """What is wrong with the columns beyond the fixed ones: names, types, repetitions."""
    seen = set(reserved)
    for field in further:
        if not _PLAIN.fullmatch(field.name):
            yield f"column `{field.name}`: invalid name; use lower-case letters, digits and _"
        elif field.name in seen:
            yield f"column `{field.name}`: the name is reserved; rename it"
        elif field.type not in _FURTHER_TYPES:
            yield f"column `{field.name}`: holds {field.type}; write it as string or float64"
        seen.add(field.name)


def find_faults(frame: pd.DataFrame, scans: Mapping[str, Scan | str]) -> Iterator[Fault]:
    """Every fault of a cohort table, row by row; `scans` has a text for an image not taken: why."""
    rows: list[Any] = list(frame.itertuples(index=False))
    covariates = [name for name in frame.columns if pd.api.types.is_float_dtype(frame[name].dtype)]
    finite = {name: np.isfinite(frame[name].to_numpy(float, na_value=0.0)) for name in covariates}
    hashes = [its.sha256 if isinstance(its := scans[row.image], Scan) else None for row in rows]
    sharing = _together(hashes)
    lesions = _together([(row.patient_id, row.lesion_id) for row in rows])
    first_known = {lesion: _first_known(rows, members) for lesion, members in lesions.items()}
    boxes: dict[tuple[object, ...], int] = {}
    for index, row in enumerate(rows):
        if not row.patient_id.strip():
            yield Fault(index, "patient_id", "missing; the split needs it")
        found = scans[row.image]
        scan = found if isinstance(found, Scan) else None
        if isinstance(found, str):
            yield Fault(index, "image", found)
        yield from _box_faults(index, row, scan)
        yield from _label_faults(index, row.malignant, row.alnm, row.n_nodes)
        if row.lesion_id:
            lesion = row.patient_id, row.lesion_id
            yield from _lesion_faults(index, rows, first_known[lesion], lesions[lesion])
        for name in covariates:
            if not finite[name][index]:
                yield Fault(index, name, "must be a finite number")
        if scan is None:
            continue
        same = sharing[scan.sha256]
        if row.patient_id != rows[same[0]].patient_id:
            what = "same pixels as {other}, which is another patient"
            yield Fault(index, "image", what, same[0], same, SAME_PICTURE)
        first = boxes.setdefault((scan.sha256, *_corners(row)), index)
        if first != index:
            what = "same image and box as {other}"
            yield Fault(index, "roi", what, first, kind="same image and box as another row")


def _together(keys: Sequence[K]) -> dict[K, tuple[int, ...]]:
    """The rows that share each key."""
    rows: dict[K, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        rows[key].append(index)
    return {key: tuple(members) for key, members in rows.items()}


def _corners(row: Any) -> list[Any]:
    return [getattr(row, column) for column in ROI_COLUMNS]


def _box_faults(index: int, row: Any, scan: Scan | None) -> Iterator[Fault]:
    corners = _corners(row)
    if any(pd.isna(corner) for corner in corners):
        yield Fault(index, "roi", "no box")
        return
    roi = RoI(*(int(corner) for corner in corners))
    if not (roi.x_min < roi.x_max and roi.y_min < roi.y_max):
        yield Fault(index, "roi", f"box {list(roi)} is empty")
    elif min(roi) < 0 or (scan and (roi.x_max > scan.width or roi.y_max > scan.height)):
        size = f" of {scan.width} x {scan.height}" if scan else ""
        yield Fault(index, "roi", f"box {list(roi)} reaches outside the image{size}")


def _label_faults(index: int, malignant: object, alnm: object, n_nodes: object) -> Iterator[Fault]:
    """Labels that contradict each other; missing ones contradict nothing."""
    has_nodes = None if pd.isna(n_nodes) else n_nodes > 0  # type: ignore[operator,call-overload]
    alnm = None if pd.isna(alnm) else bool(alnm)  # type: ignore[call-overload]
    malignant = None if pd.isna(malignant) else bool(malignant)  # type: ignore[call-overload]
    if not pd.isna(n_nodes) and n_nodes < 0:  # type: ignore[operator,call-overload]
        yield Fault(index, "n_nodes", f"{n_nodes} is negative")
    if malignant is False and (alnm or has_nodes):
        yield Fault(index, "malignant", "benign with positive nodes", kind=CONTRADICTION)
    if alnm is not None and has_nodes is not None and alnm != has_nodes:
        what = f"{alnm} contradicts n_nodes {n_nodes}"
        yield Fault(index, "alnm", what, kind=CONTRADICTION)


def _first_known(rows: list[Any], lesion: Sequence[int]) -> dict[str, int]:
    """The first row of a lesion in which each label is known."""
    found = {}
    for field in LABELS:
        known = (index for index in lesion if not pd.isna(getattr(rows[index], field)))
        if (first := next(known, None)) is not None:
            found[field] = first
    return found


def _lesion_faults(
    index: int, rows: list[Any], first_known: Mapping[str, int], lesion: tuple[int, ...]
) -> Iterator[Fault]:
    """Labels of the row that differ from the first known ones of the same lesion."""
    for field, first in first_known.items():
        value, known = getattr(rows[index], field), getattr(rows[first], field)
        if not pd.isna(value) and value != known:
            what = f"{value} contradicts {{other}} ({known}), same lesion"
            yield Fault(index, field, what, first, lesion, CONTRADICTION)

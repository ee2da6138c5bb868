"""The cohort: one Parquet table of lesion boxes with labels, and images by reference.

One row is one lesion in one image. Missing labels are null and stay null.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from model_def.preprocessing import Pixels, RoI, to_grey
from sonode_console import UserError, progress

TABLE = "cohort.parquet"
ROI_COLUMNS = ("roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max")
SCHEMA = pa.schema(
    [
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("lesion_id", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),  # relative to the table, or absolute
        *(pa.field(column, pa.int32()) for column in ROI_COLUMNS),
        pa.field("malignant", pa.bool_()),
        pa.field("alnm", pa.bool_()),
        pa.field("n_nodes", pa.int32()),
        pa.field("device", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """A checked cohort; `table` has the columns of `SCHEMA` and `pixels_sha256`."""

    name: str
    """What the cohort calls itself, for cards and reports."""
    synthetic: bool
    """True where no patient is in it."""
    folder: Path
    """What relative image references start from."""
    table: pd.DataFrame

    @property
    def sha256(self) -> str:
        """Digest of rows and pixels, independent of where the images lie."""
        facts = self.table.drop(columns="image").to_csv(index=False)
        return hashlib.sha256(facts.encode()).hexdigest()

    def image_path(self, index: int) -> Path:
        """Where the image of row `index` lies."""
        return self.folder / str(self.table["image"].iloc[index])

    def roi(self, index: int) -> RoI:
        """The box of row `index`."""
        return RoI(*(int(self.table[column].iloc[index]) for column in ROI_COLUMNS))


class _Scan(NamedTuple):
    sha256: str
    width: int
    height: int


def read_image(path: Path) -> Pixels:
    """Grey pixels (H, W) of a stored 8-bit image.

    Raises:
        OSError: the file is absent or no readable image.
    """
    with Image.open(path) as image:
        return to_grey(image)


def write_cohort(
    folder: Path, rows: pd.DataFrame, *, name: str, source: str, synthetic: bool
) -> Path:
    """Write `rows` as a cohort into `folder`; the table appears complete or not at all."""
    about = {"format": 1, "name": name, "source": source, "synthetic": synthetic}
    table = pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False)
    table = table.replace_schema_metadata({b"sonode": json.dumps(about).encode()})
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{TABLE}.partial"
    pq.write_table(table, partial)
    partial.replace(folder / TABLE)
    return folder / TABLE


def load_cohort(folder: Path) -> Cohort:
    """Read a cohort, open every image, and refuse it with all its faults at once.

    Raises:
        UserError: not a cohort, or rows that cannot be true; each fault names row and field.
    """
    path = folder / TABLE
    remedy = "make one with `sonode phantom` or `sonode import`"
    if not path.is_file():
        raise UserError(f"COHORT {folder}: not a cohort (no {TABLE}); {remedy}")
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[b"sonode"])
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise UserError(f"COHORT {folder}: {TABLE} is not a cohort table; {remedy}") from error
    if table.schema.names != SCHEMA.names or table.schema.types != SCHEMA.types:
        raise UserError(f"COHORT {folder}: {TABLE} has other columns than a cohort; {remedy}")
    frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    scans = _scan_images(folder, list(frame["image"].unique()))
    faults = list(find_faults(frame, scans))
    if faults:
        raise UserError(
            f"COHORT {folder}: {len(faults)} faults; correct these rows and import again", faults
        )
    if frame.empty:
        raise UserError(f"COHORT {folder}: has no rows; {remedy}")
    frame["pixels_sha256"] = [scan.sha256 for image in frame["image"] if (scan := scans[image])]
    return Cohort(name=about["name"], synthetic=about["synthetic"], folder=folder, table=frame)


def _scan_images(folder: Path, images: list[str]) -> dict[str, _Scan | None]:
    """Pixel hash and frame size of each image; None where it cannot be read."""

    def scan(image: str) -> _Scan | None:
        try:
            pixels = read_image(folder / image)
        except (OSError, Image.DecompressionBombError):
            return None
        height, width = pixels.shape
        digest = hashlib.sha256(f"{width}x{height}:".encode() + pixels.tobytes())
        return _Scan(digest.hexdigest(), width, height)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scans = progress(pool.map(scan, images), total=len(images), what="checking images")
        return dict(zip(images, scans, strict=True))


def find_faults(frame: pd.DataFrame, scans: dict[str, _Scan | None]) -> Iterator[str]:
    """Every fault of a cohort table as `row N, field: what and why`; rows count from 0."""
    patient_of: dict[str, tuple[str, int]] = {}
    seen: dict[tuple[object, ...], int] = {}
    rows: Iterator[Any] = frame.itertuples(index=False)
    for index, row in enumerate(rows):
        corners = [getattr(row, column) for column in ROI_COLUMNS]
        scan = scans[row.image]
        if scan is None:
            yield f"row {index}, image: absent or not a readable image"
        if any(pd.isna(corner) for corner in corners):
            yield f"row {index}, roi: no box"
        else:
            roi = RoI(*(int(corner) for corner in corners))
            if not (roi.x_min < roi.x_max and roi.y_min < roi.y_max):
                yield f"row {index}, roi: box {list(roi)} is empty"
            elif min(roi) < 0 or (scan and (roi.x_max > scan.width or roi.y_max > scan.height)):
                size = f" of {scan.width} x {scan.height}" if scan else ""
                yield f"row {index}, roi: box {list(roi)} reaches outside the image{size}"
        yield from _label_faults(index, row.malignant, row.alnm, row.n_nodes)
        if scan is None:
            continue
        patient, first = patient_of.setdefault(scan.sha256, (row.patient_id, index))
        if patient != row.patient_id:
            yield f"row {index}, image: same pixels as row {first}, which is another patient"
        first = seen.setdefault((scan.sha256, *corners), index)
        if first != index:
            yield f"row {index}, roi: same image and box as row {first}"


def _label_faults(index: int, malignant: object, alnm: object, n_nodes: object) -> Iterator[str]:
    """Labels that contradict each other; missing ones contradict nothing."""
    has_nodes = None if pd.isna(n_nodes) else n_nodes > 0  # type: ignore[operator,call-overload]
    alnm = None if pd.isna(alnm) else bool(alnm)  # type: ignore[call-overload]
    malignant = None if pd.isna(malignant) else bool(malignant)  # type: ignore[call-overload]
    if not pd.isna(n_nodes) and n_nodes < 0:  # type: ignore[operator,call-overload]
        yield f"row {index}, n_nodes: {n_nodes} is negative"
    if malignant is False and (alnm or has_nodes):
        yield f"row {index}, malignant: benign with positive nodes"
    if alnm is not None and has_nodes is not None and alnm != has_nodes:
        yield f"row {index}, alnm: {alnm} contradicts n_nodes {n_nodes}"

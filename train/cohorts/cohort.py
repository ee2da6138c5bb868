"""The cohort: one Parquet table of lesion boxes with labels, and images by reference.

One row is one lesion in one image. After the fixed columns of `SCHEMA` a cohort may carry further
ones: strings (categorical labels such as `subtype`) and float64 (covariates such as `age`), and
partitions (`split`, `fold`, `fold_5`), which are neither.
Missing values are null and stay null.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from model_def.preprocessing import RoI
from sonode.console import UserError, counted, say
from sonode.files.atomic import beside
from sonode.files.parquet import ROI_COLUMNS
from train.cohorts.checks import (
    ABSENT,
    Scan,
    column_faults,
    find_faults,
)
from train.cohorts.images import scan_images
from train.cohorts.similar.similar_images import Similar, find_similar, patient_faults
from train.cohorts.split import partitions

TABLE = "cohort.parquet"
SCHEMA = pa.schema(
    [
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("lesion_id", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),  # PATH or PATH#frame=N, see `images`
        *(pa.field(column, pa.int32()) for column in ROI_COLUMNS),
        pa.field("malignant", pa.bool_()),
        pa.field("alnm", pa.bool_()),
        pa.field("n_nodes", pa.int32()),
        pa.field("device", pa.string()),
    ]
)
RESERVED = (*SCHEMA.names, "pixels_sha256")


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """A checked cohort; `table` has `SCHEMA`'s columns, further ones, and `pixels_sha256`."""

    name: str
    """What the cohort calls itself, for cards and reports."""
    synthetic: bool
    """True where no patient is in it."""
    patient_ids: bool = True
    """False where the set has none, so that each group of similar images counts as a patient."""
    folder: Path
    """What relative image references start from."""
    table: pd.DataFrame
    thumbnails: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Of each image, as the table names it; of `near_duplicates.thumbnail`."""
    similar: Sequence[Similar] = field(default=(), repr=False)
    """Similar images of different patients, where it was loaded."""
    mixed: bool = False
    """Whether it is made of several, see `train.cohorts.mixed`."""

    @property
    def sha256(self) -> str:
        """Digest of rows and pixels, independent of where the images lie."""
        facts = self.table.drop(columns="image").to_csv(index=False)
        return hashlib.sha256(facts.encode()).hexdigest()

    @property
    def about(self) -> dict[str, str | bool]:
        """What cards and reports say of it."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "synthetic": self.synthetic,
            "patient_ids": self.patient_ids,
        }

    @property
    def patients(self) -> str:
        """How many patients are in it, in words; where it has no ids, what stands for them."""
        count = self.table["patient_id"].nunique()
        if self.patient_ids:
            return counted(count, "patient")
        return f"{count} images or groups of similar ones (no patient ids)"

    @property
    def categorical(self) -> list[str]:
        """Names of the further columns that hold strings: labels such as `subtype`."""
        return self._further(pa.string())

    @property
    def covariates(self) -> list[str]:
        """Names of the further columns that hold numbers: facts such as `age`."""
        return self._further(pa.float64())

    @property
    def partitions(self) -> list[str]:
        """Names of the columns that say which part or fold a row belongs to."""
        return partitions(self.table.columns)

    def _further(self, kind: pa.DataType) -> list[str]:
        taken = (*RESERVED, *self.partitions)
        names = [name for name in self.table.columns if name not in taken]
        return [name for name in names if self.table[name].dtype == pd.ArrowDtype(kind)]

    def image_path(self, index: int) -> Path:
        """Where the image of row `index` lies, for `images.read_image`."""
        return self.folder / str(self.table["image"].iloc[index])

    def roi(self, index: int) -> RoI:
        """The box of row `index`."""
        return RoI(*(int(self.table[column].iloc[index]) for column in ROI_COLUMNS))


def to_table(rows: pd.DataFrame) -> pa.Table:
    """`rows` in the types of a cohort; further columns of numbers as float64, others as string."""
    further = [
        pa.field(name, pa.float64() if pd.api.types.is_numeric_dtype(rows[name]) else pa.string())
        for name in rows.columns[len(SCHEMA) :]
    ]
    return pa.Table.from_pandas(rows, schema=pa.schema([*SCHEMA, *further]), preserve_index=False)


def write_cohort(
    folder: Path,
    rows: pd.DataFrame,
    *,
    name: str,
    source: str,
    synthetic: bool,
    patient_ids: bool = True,
) -> Path:
    """Write `rows` as a cohort into `folder`; the table appears complete or not at all."""
    about = {"format": 1, "name": name, "source": source, "synthetic": synthetic}
    about["patient_ids"] = patient_ids
    table = to_table(rows).replace_schema_metadata({b"sonode": json.dumps(about).encode()})
    folder.mkdir(parents=True, exist_ok=True)
    with beside(path := folder / TABLE) as part:
        pq.write_table(table, part, write_page_checksum=True)
        part.replace(path)
    return path


def check_out(folder: Path, name: str, images: Iterable[str]) -> None:
    """Make sure that a cohort of this name and these images replaces none but its own earlier one.

    Its own is one of the same name that shares an image with it.

    Raises UserError: `folder` holds another cohort.
    """
    path = folder / TABLE
    if not path.exists():
        return
    try:
        earlier = pq.read_table(path, columns=["image"])
        about = json.loads((earlier.schema.metadata or {})[b"sonode"])
        own = about["name"] == name and not set(images).isdisjoint(earlier["image"].to_pylist())
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        own = False
    if not own:
        raise UserError(
            f"OUT {folder}: holds another cohort; give another folder, or remove its {TABLE} first"
        )
    say(f"replacing the previous import in {folder}")


def load_cohort(folder: Path) -> Cohort:
    """Read a cohort, open every image, and refuse it with all its faults at once.

    Raises UserError: not a cohort, or rows that cannot be true; each fault names row and field.
    """
    path = folder / TABLE
    remedy = "make one with `sonode phantom` or `sonode import`"
    if not path.is_file():
        raise UserError(f"COHORT {folder}: not a cohort (no {TABLE}); {remedy}")
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        about = json.loads((table.schema.metadata or {})[b"sonode"])
        name, synthetic = str(about["name"]), bool(about["synthetic"])
        patient_ids = bool(about.get("patient_ids", True))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"COHORT {folder}: {TABLE} is not a cohort table; {remedy}") from error
    fixed, further = list(table.schema)[: len(SCHEMA)], list(table.schema)[len(SCHEMA) :]
    if [(field.name, field.type) for field in fixed] != [(it.name, it.type) for it in SCHEMA]:
        raise UserError(f"COHORT {folder}: {TABLE} does not have the columns of a cohort; {remedy}")
    for fault in column_faults(pa.schema(further), RESERVED):
        raise UserError(f"COHORT {folder}: {fault}")
    for column in (it.name for it in SCHEMA if not it.nullable):
        if table[column].null_count:
            raise UserError(f"COHORT {folder}: column `{column}`: has nulls; {remedy}")
    frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    scans = scan_images(folder, frame)
    if ABSENT in scans.values() and len(set(scans.values())) == 1:
        raise UserError(
            f"COHORT {folder}: none of its {len(scans)} images is at the table's path; restore "
            "them, or import again"
        )
    similar = find_similar(frame, scans)
    every = (*find_faults(frame, scans), *patient_faults(similar))
    faults = [fault.line("row {}".format) for fault in every]
    if faults:
        raise UserError(
            f"COHORT {folder}: {counted(len(faults), 'fault')}; correct the rows and import again",
            faults,
        )
    if frame.empty:
        raise UserError(f"COHORT {folder}: has no rows; {remedy}")
    cohort = checked_cohort(
        folder, frame, scans, name=name, synthetic=synthetic, patient_ids=patient_ids
    )
    return replace(cohort, similar=similar)


def checked_cohort(
    folder: Path,
    frame: pd.DataFrame,
    scans: Mapping[str, Scan | str],
    *,
    name: str,
    synthetic: bool,
    patient_ids: bool,
) -> Cohort:
    """The cohort of a frame without faults."""
    hashes = [scan.sha256 for it in frame["image"] if isinstance(scan := scans[it], Scan)]
    thumbnails = {it: scan.thumbnail for it, scan in scans.items() if isinstance(scan, Scan)}
    table = frame.assign(pixels_sha256=hashes)
    return Cohort(
        name=name,
        synthetic=synthetic,
        patient_ids=patient_ids,
        folder=folder,
        table=table,
        thumbnails=thumbnails,
    )

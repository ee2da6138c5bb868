"""What an import left out of its source and why, as counts in a file beside the cohort's table.

It names no patient and no file: reasons are the same few texts for every source. A cohort made
before there was such a file has none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError, model_validator

from sonode.files.atomic import write_whole

RECORD = "import.json"
Stage = Literal["source", "checks"]
"""`source`: before there was a row of it. `checks`: rows with faults (`--drop-faulty`)."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Counts(_Closed):
    """How many there are; a row is one lesion box in one image."""

    patients: NonNegativeInt
    images: NonNegativeInt
    rows: NonNegativeInt


class Exclusion(_Closed):
    """What is left out for one reason: each image and patient is counted once, and only if none of
    its rows stays.
    """

    stage: Stage
    reason: str
    images: NonNegativeInt
    patients: NonNegativeInt | None
    """None where nobody knows whose images they are."""
    rows: NonNegativeInt = 0
    """Of the stage `checks`."""


class ImportRecord(_Closed):
    """Source -> rows -> kept; the exclusions between them add up.

    Raises ValidationError: they do not.
    """

    format: Literal[1] = 1
    source: str
    table_sha256: str
    """Of the file of the cohort's table that it speaks of."""
    read: Counts
    """The rows that the source gave; without patient ids, after similar images became one."""
    kept: Counts
    exclusions: tuple[Exclusion, ...] = ()
    other_files: dict[str, int] = {}
    """Files that are no images of lesions and were left out (masks without image, say)."""
    notes: dict[str, int] = {}
    """How often the import decided something that leaves nothing out."""

    def of(self, stage: Stage) -> list[Exclusion]:
        """The exclusions of a stage."""
        return [it for it in self.exclusions if it.stage == stage]

    @property
    def source_images(self) -> int:
        """How many images the source has."""
        return self.read.images + sum(it.images for it in self.of("source"))

    @property
    def source_patients(self) -> int | None:
        """How many patients the source has; None where images are left out of unknown ones."""
        left = [it.patients for it in self.of("source") if it.images]
        known = [it for it in left if it is not None]
        return self.read.patients + sum(known) if len(known) == len(left) else None

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        for unit in ("patients", "images", "rows"):
            left = sum(getattr(it, unit) for it in self.of("checks"))
            if getattr(self.read, unit) - left != getattr(self.kept, unit):
                raise ValueError(f"{unit}: read minus left out is not what is kept")
        return self


def counts_of(table: pd.DataFrame) -> Counts:
    """Of a cohort's table; a blank id is no patient."""
    patients = table["patient_id"][table["patient_id"].str.strip() != ""]
    return Counts(patients=patients.nunique(), images=table["image"].nunique(), rows=len(table))


def write_record(table: Path, **facts: Any) -> None:
    """Write it beside the cohort's `table`, whole or not at all; `facts`: fields of the record."""
    record = ImportRecord(table_sha256=digest(table), **facts)
    write_whole(table.with_name(RECORD), record.model_dump_json(indent=2) + "\n")


def read_record(table: Path) -> ImportRecord | str:
    """The record beside a cohort's `table`; a text that says why there is none of it."""
    path = table.with_name(RECORD)
    if not path.is_file():
        return "not recorded: the cohort was imported by a version that did not keep it"
    try:
        record = ImportRecord.model_validate_json(path.read_bytes())
    except ValidationError:
        return f"not recorded: {RECORD} is damaged; import again"
    if record.table_sha256 != digest(table):
        return f"not recorded: {RECORD} is of another table; import again"
    return record


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()

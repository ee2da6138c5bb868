"""A run's results as the page lists them, with those of a second run beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch.manifest.read import requests
from batch.results import schema
from batch.storage import objects
from batch.storage.errors import StorageError
from model_def.limits import MAX_DICOM_BYTES
from sonode.console import UserError

PAGE = 100  # rows at a time
NAMES = ["lesion_id", "study_id", "study_uid", "patient_id", "patient_key"]

Mask = npt.NDArray[np.bool_]


class Picked(NamedTuple):
    """A row's image, read again."""

    data: bytes
    roi: list[int] | None
    frame: int
    changed: bool
    """Whether its bytes are others than those that the run scored."""


class Results:
    """Results of one run, or of two over the same manifest."""

    def __init__(self, runs: Sequence[str], folder: str) -> None:
        """`runs`: folders with the results of one model each; `folder`: where relative image_uris
        begin. Raises UserError where a folder has none, or those of several models, or the rows of
        the second are others.
        """
        self._folder = folder
        self._tables = [_read(run) for run in runs]
        self._frames = [table.to_pandas() for table in self._tables]
        uris = [table["image_uri"] for table in self._tables]
        if any(not one.equals(uris[0]) for one in uris):
            raise UserError(
                "--run: the second has other images than the first; give the same manifest"
            )
        ending = "_threshold"
        self.heads = [
            name.removesuffix(ending)
            for name in self._frames[0]
            if name.endswith(ending) and all(name in frame for frame in self._frames)
        ]

    def about(self) -> dict[str, Any]:
        """What the page needs to list them."""
        return {"heads": self.heads, "runs": len(self._frames), "page": PAGE}

    def rows(self, which: str, order: str, start: int) -> dict[str, Any]:
        """`PAGE` rows from the `start`-th on, and how many there are in all.

        `which`: all, failed, uncertain or flipped. `order`: `manifest`, `high:HEAD` or
        `change:HEAD`, the largest first; rows without a number come last.
        """
        found = np.flatnonzero(self._mask(which))
        kind, _, head = order.partition(":")
        if head in self.heads:
            found = found[np.argsort(-self._numbers(kind, head)[found], kind="stable")]
        shown = [self._row(int(number)) for number in found[start : start + PAGE]]
        return {"total": len(found), "rows": shown}

    def image(self, number: int) -> Picked:
        """Read a row's image again. Raises UserError where it is not a local file, or not there."""
        if not 0 <= number < self._tables[0].num_rows:
            raise UserError("row: there is none of that number")
        (asked,) = requests(self._tables[0].slice(number, 1), self._folder)
        if objects.is_s3(asked.image_uri):
            raise UserError("the image is in an object store; the reader opens local files only")
        try:
            found = objects.read(asked.image_uri, limit=MAX_DICOM_BYTES)
        except StorageError as error:
            raise UserError(f"the image cannot be read: {error}; check --images") from None
        (row,) = self._tables[0].slice(number, 1).to_pylist()
        given = asked.fields.get("roi")
        used = row["roi_used"] if row["roi_used"] is not None else given and given.split(",")
        return Picked(
            data=found.data,
            roi=None if used is None else [int(corner) for corner in used],
            frame=int(asked.fields.get("frame", 0)),
            changed=row["image_etag"] not in (None, found.etag),
        )

    def _mask(self, which: str) -> Mask:
        frames = self._frames
        masks: list[Any] = []
        if which == "failed":
            masks = [frame["status"] == schema.FAILED for frame in frames]
        if which == "uncertain":
            columns = [f"{head}_uncertain" for head in self.heads]
            masks = [frame[name] == True for frame in frames for name in columns if name in frame]  # noqa: E712 - null is not uncertain
        if which == "flipped":
            masks = [self._flipped(head) for head in self.heads]
        everything = np.full(len(frames[0]), which == "all")
        for mask in masks:
            everything |= np.asarray(mask, bool)
        return everything

    def _flipped(self, head: str) -> Any:
        """Rows that both have scored, with other labels."""
        first, last = (self._frames[at][f"{head}_label"] for at in (0, -1))
        return (first != last) & first.notna() & last.notna()

    def _numbers(self, kind: str, head: str) -> npt.NDArray[np.float64]:
        first, last = (self._frames[at][f"{head}_probability"].to_numpy(float) for at in (0, -1))
        change: npt.NDArray[np.float64] = np.abs(first - last)
        return change if kind == "change" else first

    def _row(self, number: int) -> dict[str, Any]:
        runs = [table.slice(number, 1).to_pylist()[0] for table in self._tables]
        return {
            "number": number,
            "names": [str(its) for name in NAMES if (its := runs[0].get(name)) is not None],
            "runs": [self._result(row) for row in runs],
        }

    def _result(self, row: dict[str, Any]) -> dict[str, Any]:
        scored = row["status"] == schema.OK
        return {
            "status": row["status"],
            "message": row["message"],
            "heads": {
                head: {
                    "probability": row[f"{head}_probability"],
                    "label": row[f"{head}_label"],
                    "uncertain": row.get(f"{head}_uncertain") is True,
                }
                for head in self.heads
                if scored
            },
        }


def _read(run: str) -> pa.Table:
    try:
        if not schema.parts_in(run):
            raise UserError(f"--run {run}: has no results; give OUT of `sonode score`")
        table = schema.read(run)
    except (StorageError, pa.ArrowInvalid, OSError) as error:
        raise UserError(f"--run {run}: cannot be read ({error})") from None
    if missing := {"status", "image_uri", "roi_used"} - {*table.column_names}:
        raise UserError(
            f"--run {run}: lacks {', '.join(sorted(missing))}; give OUT of `sonode score`"
        )
    models = table.group_by(["model_name", "model_version"]).aggregate([])
    if models.drop_null().num_rows > 1:
        raise UserError(
            f"--run {run}: has the results of several models; give the folder "
            "date=.../model=... of one"
        )
    return table

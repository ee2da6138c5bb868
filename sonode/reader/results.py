"""A run's results as the page lists them, with those of a second run beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batch.manifest.read import requests
from batch.results import schema
from batch.storage import objects
from batch.storage.errors import StorageError
from model_def.limits import MAX_DICOM_BYTES
from sonode.console import UserError
from sonode.files.parquet import ROI_COLUMNS
from sonode.reader.judgements.study import Key, Study

PAGE = 100  # rows at a time
NAMES = ["lesion_id", "study_id", "study_uid", "patient_id", "patient_key"]
OF_IMAGE = {"image_uri", "roi", *ROI_COLUMNS, "frame", "roi_used", "image_etag", *NAMES}
OF_RUN = {"status", "message", "model_name", "model_version"}
READ = {"after": "first reading", "done": "both readings", "seen": "judged outside the study"}
ENDINGS = ("_probability", "_label", "_uncertain")  # of a head

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
        self._images = read_columns(runs[0], OF_IMAGE)
        of_others = (read_columns(run, {"image_uri", "frame", "roi_used"}) for run in runs[1:])
        if not all(_are_same(self._images, it) for it in of_others):
            raise UserError(
                "--run: the second has other images than the first, or other boxes; give the same "
                "manifest"
            )
        self._runs = [_results(run) for run in runs]
        first = self._runs[0].column_names
        self.heads = [
            name.removesuffix("_probability")
            for name in first
            if name.endswith("_probability")
            and all({name, _label(name)} <= {*run.column_names} for run in self._runs)
        ]

    def about(self, study: Study | None = None) -> dict[str, Any]:
        """What the page needs to list them; in a study no score is listed."""
        heads = [] if study else self.heads
        return {"heads": heads, "runs": 0 if study else len(self._runs), "page": PAGE}

    def rows(
        self, which: str, order: str, start: int, study: Study | None = None
    ) -> dict[str, Any]:
        """`PAGE` rows from the `start`-th on, and how many there are in all.

        `which`: all, failed, uncertain or flipped. `order`: `manifest`, `high:HEAD` or
        `change:HEAD`, the largest first; rows without a number come last. In a study each row says
        how far it is, and nothing else, and their order is the manifest's.
        """
        if study:
            rows = range(start, min(start + PAGE, self._images.num_rows))
            read = [{"number": it, "names": self._read(it, study), "runs": []} for it in rows]
            return {"total": self._images.num_rows, "rows": read}
        found = np.flatnonzero(self._mask(which))
        kind, _, head = order.partition(":")
        if head in self.heads:
            found = found[np.argsort(-self._numbers(kind, head)[found], kind="stable")]
        shown = [self._row(int(number)) for number in found[start : start + PAGE]]
        return {"total": len(found), "rows": shown}

    def image(self, number: int) -> Picked:
        """Read a row's image again. Raises UserError where it is not there."""
        if not 0 <= number < self._images.num_rows:
            raise UserError("row: there is none of that number")
        (asked,) = requests(self._images.slice(number, 1), self._folder)
        try:
            found = objects.read(asked.image_uri, limit=MAX_DICOM_BYTES)
        except StorageError as error:
            raise UserError(f"the image cannot be read: {error}; check --images") from None
        (row,) = self._images.slice(number, 1).to_pylist()
        given = asked.fields.get("roi")
        used = row["roi_used"] if row["roi_used"] is not None else given and given.split(",")
        return Picked(
            data=found.data,
            roi=None if used is None else [int(corner) for corner in used],
            frame=int(asked.fields.get("frame", 0)),
            changed=row["image_etag"] not in (None, found.etag),
        )

    def _mask(self, which: str) -> Mask:
        masks: list[pa.ChunkedArray] = []
        if which == "failed":
            masks = [pc.equal(run["status"], schema.FAILED) for run in self._runs]
        if which == "uncertain":
            columns = [f"{head}_uncertain" for head in self.heads]
            masks = [run[it] for run in self._runs for it in columns if it in run.column_names]
        if which == "flipped":
            masks = [self._flipped(head) for head in self.heads]
        everything = np.full(self._images.num_rows, which == "all")
        for mask in masks:  # null: not scored, or not known to be uncertain
            everything |= pc.fill_null(mask, False).to_numpy().astype(bool)
        return everything

    def _flipped(self, head: str) -> pa.ChunkedArray:
        """Rows with other labels; null where a run has not scored them."""
        first, last = (self._runs[at][f"{head}_label"] for at in (0, -1))
        return pc.not_equal(first, last)

    def _numbers(self, kind: str, head: str) -> npt.NDArray[np.float64]:
        column = f"{head}_probability"
        first, last = (self._runs[at][column].to_numpy().astype(float) for at in (0, -1))
        change: npt.NDArray[np.float64] = np.abs(first - last)
        return change if kind == "change" else first

    def _row(self, number: int) -> dict[str, Any]:
        (image,) = self._images.slice(number, 1).to_pylist()
        return {
            "number": number,
            "names": [str(its) for name in NAMES if (its := image.get(name)) is not None],
            "runs": [self._result(run.slice(number, 1).to_pylist()[0]) for run in self._runs],
        }

    def _read(self, number: int, study: Study) -> list[str]:
        """How far a row is in a study, of an image of local files."""
        (image,) = self._images.slice(number, 1).to_pylist()
        digest = (image["image_etag"] or "").removeprefix("sha256:")
        key = Key(digest, int(image.get("frame") or 0), tuple(image["roi_used"] or ()))
        return [READ[stage]] if (stage := study.stage(key)) in READ else []

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


def _label(probability: str) -> str:
    return probability.removesuffix("_probability") + "_label"


def _are_same(one: pa.Table, other: pa.Table) -> bool:
    """Whether the rows are of the same images and frames, with one box where both have scored."""
    frames = [it["frame"].to_pylist() if "frame" in it.column_names else [] for it in (one, other)]
    if not one["image_uri"].equals(other["image_uri"]) or frames[0] != frames[1]:
        return False
    both = pc.and_(*(it["roi_used"].is_valid() for it in (one, other)))
    mine, its = (it["roi_used"].filter(both) for it in (one, other))
    return bool(mine.equals(its))


def _results(run: str) -> pa.Table:
    """What one model said."""
    table = read_columns(run, OF_RUN, ENDINGS)
    models = table.group_by(["model_name", "model_version"]).aggregate([])
    if models.drop_null().num_rows > 1:
        raise UserError(
            f"--run {run}: has the results of several models; give the folder "
            "date=.../model=... of one"
        )
    names = table.column_names[table.column_names.index("status") :]  # before: the manifest's
    return table.select(names).drop_columns(["model_name", "model_version"])


def read_columns(run: str, names: set[str], endings: tuple[str, ...] = ()) -> pa.Table:
    """A run's columns of those names and endings; a million rows have several GiB in all.

    Raises UserError where there is no run, or not the columns of one.
    """
    try:
        if not schema.parts_in(run):
            raise UserError(f"--run {run}: has no results; give OUT of `sonode score`")
        table = schema.read(run, lambda name: name in names or name.endswith(endings))
    except (StorageError, pa.ArrowInvalid, OSError) as error:
        raise UserError(f"--run {run}: cannot be read ({error})") from None
    must = {"status", "image_uri", "roi_used", "image_etag"}
    if missing := (must & names) - {*table.column_names}:
        raise UserError(
            f"--run {run}: lacks {', '.join(sorted(missing))}; give OUT of `sonode score`"
        )
    return table

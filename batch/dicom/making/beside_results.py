"""The DICOM objects beside the rows of a partition, and the record of what became of each row.

A record lies beside each part and has a row for each of its rows: `written`, with the names of the
objects; `none`, for a row without a score or of an image that is not DICOM; `failed`, with the
reason. It is written after the objects that it names, in one step, and only if it is still the one
that was read: a run that is killed leaves no name without its object, and the next one makes the
rest. Objects of the same row have the same name and the same bytes, whichever run makes them.

Names of patients and ids are in the objects alone: the record has none, and no name of an object
is made from one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from batch import layout
from batch.dicom.making import objects as dicom_objects
from batch.dicom.making import source
from batch.dicom.making.errors import CannotWrite
from batch.dicom.making.result import HeadResult, Model, Result
from batch.manifest.read import Request, requests
from batch.results import schema as results
from batch.scoring.fetching import Limits
from batch.scoring.job import Archive
from batch.storage import objects
from batch.storage.errors import ObjectMissing, StorageError, as_user_error
from sonode.console import UserError
from sonode.files.parquet import file_bytes

WRITTEN, NONE, FAILED = "written", "none", "failed"
NOT_SCORED, NOT_DICOM = "not_scored", "not_dicom"

_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("status", "code", "message", *dicom_objects.KINDS)]
)

Row = dict[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What the records of a partition say."""

    by_status: dict[str, int]
    by_code: dict[str, int]
    """Of the rows without objects."""


class _Part(NamedTuple):
    """The rows of a part, and what is asked of each."""

    rows: list[results.Row]
    asked: list[Request]
    label_sets: Mapping[str, Mapping[str, Any] | None]


def check_heads(heads: Mapping[str, Any]) -> None:
    """Raise UserError for a label that no coded concept can hold."""
    if unfit := dicom_objects.check_text(heads):
        raise UserError(
            f"the label {unfit[0]!r} is over 49 characters or has a backslash; DICOM's "
            "code meanings cannot hold it; shorten it, or score without objects"
        )


def write(
    out: str,
    partition: str,
    archive: Archive,
    explain: str | None,
    progress: Callable[..., Iterator[Any]],
    *,
    total: int,
) -> Written:
    """Make the objects that are missing beside the parts of a partition, or failed before.

    `archive` must be loaded here: its own code decodes the frames. `progress` as
    `console.progress`; `total` rows are shown. Raises UserError where OUT cannot be read or
    written.
    """
    with as_user_error(f"{out}: DICOM objects"):
        folder = objects.join(out, partition)
        parts = [uri for uri in objects.list_files(folder) if layout.is_part(uri)]
        made = _Maker(out, partition, archive, explain)
        codes: Counter[str] = Counter()
        statuses = Counter({WRITTEN: 0, NONE: 0, FAILED: 0})
        rows = (row for uri in parts for row in made.rows_of(uri))
        for row in progress(rows, total=total, what="images as DICOM"):
            statuses[row["status"]] += 1
            if row["code"] is not None:
                codes[row["code"]] += 1
    return Written(by_status=dict(statuses), by_code=dict(sorted(codes.items())))


class _Maker:
    """Makes the objects of one partition."""

    def __init__(self, out: str, partition: str, archive: Archive, explain: str | None) -> None:
        self._out, self._partition = out, partition
        self._archive, self._explain = archive, explain

    def rows_of(self, part_uri: str) -> Iterator[Row]:
        """Complete the record of a part, and give its rows."""
        name = part_uri.rpartition("/")[2].removesuffix(".parquet")
        uri = objects.join(self._out, layout.dicom_record(self._partition, name))
        while True:
            part = _read(part_uri)
            held, etag = _record(uri, len(part.rows))
            rows = [
                was if was is not None and _stands(was, now) else self._row(name, number, part)
                for number, (was, now) in enumerate(zip(held, part.rows, strict=True))
            ]
            made = pa.Table.from_pylist(rows, schema=_SCHEMA)
            if rows == held or objects.update(uri, file_bytes(made), etag):
                yield from rows
                return

    def _row(self, name: str, number: int, part: _Part) -> Row:
        row, asked = part.rows[number], part.asked[number]
        if row["status"] != results.OK:
            return _without(NONE, NOT_SCORED, "the row has no score")
        try:
            data = objects.read(asked.image_uri, row["image_etag"], Limits().object_bytes).data
            if not source.is_dicom(data):
                return _without(NONE, NOT_DICOM, "the image is not a DICOM file")
            made = self._made(data, row, asked, part.label_sets)
        except (CannotWrite, StorageError) as error:
            return _without(FAILED, error.code, str(error))
        found: Row = dict.fromkeys(_SCHEMA.names)
        found["status"] = WRITTEN
        for kind, file in made.items():
            found[kind] = layout.dicom_object(self._partition, f"{name}-{number:05d}", kind)
            objects.write(objects.join(self._out, found[kind] or ""), file)
        return found

    def _made(
        self,
        data: bytes,
        row: results.Row,
        asked: Request,
        label_sets: Mapping[str, Mapping[str, Any] | None],
    ) -> dict[str, bytes]:
        archive = self._archive
        read = source.read(data)
        maps = {head: row.get(f"{head}_heatmap_uri") for head in archive.heads}
        flagged, distance = (row.get(f"out_of_distribution{end}") for end in ("", "_distance"))
        result = Result(
            roi=tuple(row["roi_used"]),
            roi_confidence=row.get("roi_confidence") if row.get("roi_proposed") else None,
            frame=int(asked.fields.get("frame", 0)) if read.is_multi_frame else None,
            heads={
                head: _head(head, labels, row, archive.given[head], label_sets.get(head))
                for head, labels in archive.heads.items()
            },
            consistent=row["consistent"],
            warnings=row["warnings"],
            out_of_distribution=flagged,
            distance=distance,
            scored_at=row["scored_at"],
            model=Model(
                name=row["model_name"],
                version=row["model_version"],
                sha256=row["model_sha256"],
                engine=row["engine"],
            ),
            heat_maps={head: objects.read(uri).data for head, uri in maps.items() if uri},
            explain=self._explain,
        )
        return dicom_objects.make(read, self._frame(data, result), result)

    def _frame(self, data: bytes, result: Result) -> Any:
        """The frame that was scored, decoded by the archive's own code."""
        asked: dict[str, object] = {
            "image": data,
            "roi": ",".join(map(str, result.roi)),
            "explain": f"{self._archive.methods[0]}+full_frame",  # keeps the frame
        }
        if result.frame is not None:
            asked["frame"] = str(result.frame)
        prepared = self._archive.preprocess(asked)
        if isinstance(prepared, tuple):
            raise CannotWrite(prepared[1]["code"], prepared[1]["message"])
        return prepared.frame_HW


def _head(
    name: str,
    labels: Any,
    row: results.Row,
    given: str | None,
    promise: Mapping[str, Any] | None,
) -> HeadResult:
    distribution = row.get(f"{name}_distribution")
    label_set = row.get(f"{name}_label_set")  # older parts have none
    known = promise if label_set is not None and promise is not None else {}
    return HeadResult(
        probabilities=dict(distribution or [(labels[1], row[f"{name}_probability"])]),
        label=row[f"{name}_label"],
        threshold=row[f"{name}_threshold"],
        given=given,
        uncertain=row.get(f"{name}_uncertain"),
        label_set=label_set,
        level=known.get("level"),
        set_given=known.get("given"),
    )


def _stands(was: Row, now: results.Row) -> bool:
    """Whether what the record says of a row is all that can be said of it."""
    if was["status"] == WRITTEN or was["code"] == NOT_DICOM:
        return True
    return was["code"] == NOT_SCORED and now["status"] != results.OK


def _without(status: str, code: str, message: str) -> Row:
    row: Row = dict.fromkeys(_SCHEMA.names)
    return {**row, "status": status, "code": code, "message": message}


def _read(part_uri: str) -> _Part:
    table = results.parquet(objects.read(part_uri).data).read()
    metadata = table.schema.metadata
    sets = json.loads(metadata.get(b"label_sets", b"{}"))  # older parts have none
    folder = json.loads(metadata[b"sonode"])["folder"]
    return _Part(table.to_pylist(), requests(table, folder), sets)


def _record(uri: str, rows: int) -> tuple[list[Row | None], str | None]:
    """The rows of a record, Nones where there is none yet, and its etag."""
    try:
        found = objects.read(uri)
    except ObjectMissing:
        return [None] * rows, None
    try:
        held = results.parquet(found.data).read(columns=_SCHEMA.names).to_pylist()
    except (pa.ArrowException, OSError):
        held = []
    if len(held) != rows:
        raise UserError(f"{uri}: not the record of this part; remove it and re-run") from None
    return held, found.etag

"""The part: a shard's rows in one Parquet file, and the rule by which it changes.

Its name is derived from all that went into it (rows, archive, parameters), so every run of a
manifest gives a shard's part the same name. A row is in one part and a part has all rows of its
shard: whoever reads the folder, at any moment, finds each row of a finished shard exactly once.

- A part appears by a create that fails where there is one (`If-None-Match: *`, a hard link
  locally). Of two runs that come at once, the first has written it, and the second sees that.
- It is replaced, in one step and under its name, only where that improves a row: where one that had
  failed has a score, or fails otherwise than before. A row with a score keeps it, unchanged.
- It is replaced only if it is still the one that was read (`If-Match`, a lock locally); else the
  newer one is read and improved in its turn. What was written is read again, since a store may let
  two writers pass at once: nothing that a run has found is lost to another.

Killed at any moment, a run leaves whole parts and, locally, hidden `.partial` files, which no
reader takes. The next run makes what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from batch.results import schema as results
from batch.scoring.job import Job
from batch.storage import objects
from batch.storage.errors import ObjectMissing
from sonode.console import UserError
from sonode.files.parquet import file_bytes


class Part(NamedTuple):
    """What a part holds."""

    rows: list[results.Row]
    etag: str


def load(uri: str, rows: int, columns: Sequence[pa.Field]) -> Part | None:
    """Read the part of a shard of `rows` rows, or None where there is none yet.

    Raises StorageError, and UserError for a file that is not such a part.
    """
    try:
        found = objects.read(uri)
    except ObjectMissing:
        return None
    try:
        file = results.parquet(found.data)
        read = file.read(columns=[column.name for column in columns]).to_pylist()
    except (pa.ArrowException, OSError):
        read = []
    if len(read) != rows or any(len(row) != len(columns) for row in read):
        raise unsound(uri)
    return Part(read, found.etag)


def read_columns(uri: str, names: list[str]) -> pa.Table:
    """Read some columns of a part. Raises StorageError, and UserError for what is not a part."""
    data = objects.read(uri).data
    try:
        return results.parquet(data).read(columns=names)
    except (pa.ArrowException, OSError):
        raise unsound(uri) from None


def unsound(uri: str) -> UserError:
    """The error of a file that is not a part, or damaged."""
    return UserError(f"{uri}: not the results of this shard; remove it and re-run the same command")


def improved(old: Sequence[results.Row], new: Sequence[results.Row]) -> list[results.Row] | None:
    """Put the better of each two rows together: a score beats a failure, a first score another.

    None where the old ones are as good: for failures, where the codes are the same, or where the
    new one says no more than that its turn did not come.
    """
    better = [
        old_row["status"] != results.OK
        and new_row.get("code") not in (old_row["code"], results.NOT_REACHED)
        for old_row, new_row in zip(old, new, strict=True)
    ]
    if not any(better):
        return None
    return [n if take else o for o, n, take in zip(old, new, better, strict=True)]


def commit(
    uri: str, shard: pa.Table, rows: list[results.Row], held: Part | None, job: Job
) -> list[results.Row]:
    """Write a shard's rows as its part, by the rule above; give the rows that are there then.

    `held`: the part that was there before, if any. Raises StorageError.
    """
    while True:
        if held is not None:
            best = improved(held.rows, rows)
            if best is None:
                return held.rows
            rows = best
        written = objects.update(uri, _encoded(shard, rows, job), held.etag if held else None)
        if written and held is None:
            return rows
        held = load(uri, len(rows), job.columns)


def _encoded(shard: pa.Table, rows: list[results.Row], job: Job) -> bytes:
    made_by = {"sha256": job.archive.sha256, "explain": job.explain, "folder": job.folder}
    about = {"sonode": made_by, "given": dict(job.archive.given), **job.archive.promises}
    metadata = {key: json.dumps(its) for key, its in about.items()}
    table = results.table(shard, rows, job.columns)
    return file_bytes(table.replace_schema_metadata(metadata))

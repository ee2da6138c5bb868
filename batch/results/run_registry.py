"""Which run owns a partition of the results: the first registers, others join or are refused.

Two records (see `batch.layout`), each made by a create that fails if there is one: the date of a
manifest and model, and what is scored in a partition, and how.

So a manifest keeps its date, and with it its parts, when it is run again after midnight; and a date
and model hold the rows of one manifest, scored in one way. A run that registered a partition and
then found its manifest under another date has left the partition free for others.
"""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, date, datetime
from typing import Any

from batch import layout
from batch.storage import objects
from batch.storage.errors import ObjectMissing, StorageError, as_user_error
from sonode.console import UserError
from sonode.defaults import SHARD_ROWS

_TRIES = 20
_REMEDIES = {  # what may differ from the run that owns the partition
    "manifest_key": (
        "give another --date (--since takes scores over), or the same manifest at the path that "
        "it had then"
    ),
    "model": "pack the archive with another version",
    "explain": "give --explain as that run did",
}


def date_of(out: str, manifest_key: str, name: str, version: str, asked: str | None) -> str:
    """Give the date that this manifest has in `out` for this model, or would have.

    `asked`: the user's, else today in UTC for a manifest that has none yet. Raises UserError for
    another date than the manifest's, and for what is not a date.
    """
    if asked is not None:
        try:
            sound = date.fromisoformat(asked).isoformat() == asked  # it takes 20261122 as well
        except ValueError:
            sound = False
        if not sound:
            raise UserError(f"--date {asked}: not a date; give YYYY-MM-DD")
    known = _read(_by_manifest(out, manifest_key, name, version), "date")
    if known is None:
        return asked or datetime.now(UTC).date().isoformat()
    found: str = known["date"]
    if asked not in (None, found):
        raise UserError(
            f"--date {asked}: {out} has this manifest under {found}; omit --date, or give "
            "another OUT"
        )
    return found


def register(
    out: str,
    date: str,
    intent: dict[str, Any],
    shard_rows: int | None,
    now: str,
    *,
    dry: bool = False,
) -> dict[str, Any]:
    """Make the partition of `date` and the model this run's, or join the run that owns it.

    `intent`: what makes two runs the same, with `model` and `manifest_key`. Returns the record that
    is there, with the `shard_rows` that all runs use: those of the first, `SHARD_ROWS` if it gave
    none. Raises UserError if the partition is of another manifest, archive or parameter. `dry`:
    only look.
    """
    model = intent["model"]
    uri = objects.join(out, layout.started(layout.partition(date, model["name"], model["version"])))
    rows = SHARD_ROWS if shard_rows is None else shard_rows
    record = {**intent, "date": date, "shard_rows": rows, "started": now}
    there = _read(uri, *record)
    if there is None or _left(out, there, date):
        if dry:
            return record
        there = _first(uri, record) if there is None else _taken_over(uri, out, record)
    place = f"{out}: date {date} and model {model['name']}-{model['version']}"
    for name, remedy in _REMEDIES.items():
        if there.get(name) != intent[name]:
            raise UserError(
                f"{place} hold the results of another run ({name.removesuffix('_key')} "
                f"differs); {remedy}, or give another OUT"
            )
    if shard_rows not in (None, there["shard_rows"]):
        raise UserError(
            f"--shard-rows {shard_rows}: {place} have shards of {there['shard_rows']} rows; omit "
            "--shard-rows, or give another OUT"
        )
    if not dry:
        by_manifest = _by_manifest(out, intent["manifest_key"], model["name"], model["version"])
        first = _first(by_manifest, {"date": date})
        if first["date"] != date:
            raise UserError(
                f"{out}: another run has just started this manifest; re-run the same command"
            )
    return there


def manifest_key(sha256: str, folder: str) -> str:
    """Name a manifest by its rows, and by the folder from which relative image_uris are taken."""
    return hashlib.sha256(f"{sha256}\n{folder}".encode()).hexdigest()[:32]


def _by_manifest(out: str, key: str, name: str, version: str) -> str:
    return objects.join(out, layout.manifest_date(key, name, version))


def _left(out: str, there: dict[str, Any], date: str) -> bool:
    """Whether the run that registered this partition went on under another date."""
    model = there["model"]
    uri = _by_manifest(out, there["manifest_key"], model["name"], model["version"])
    known = _read(uri, "date")
    return known is not None and known["date"] != date


def _taken_over(uri: str, out: str, record: dict[str, Any]) -> dict[str, Any]:
    """Write `record` over one that was left, and give what is there then."""
    with as_user_error(f"results cannot be written to {uri}"):
        found = objects.read(uri)
        there: dict[str, Any] = json.loads(found.data)
        if not _left(out, there, record["date"]):
            return there  # another run was faster
        written = objects.update(uri, as_json(record), found.etag)
    return record if written else _taken_over(uri, out, record)


def _first(uri: str, record: dict[str, Any]) -> dict[str, Any]:
    """Write `record` where there is none yet, and give what is there then."""
    for _ in range(_TRIES):
        with as_user_error(f"results cannot be written to {uri}"):
            if objects.update(uri, as_json(record), None):
                return record
        if (found := _read(uri, *record)) is not None:
            return found
        time.sleep(0.1)  # S3 refuses both of two that come at once, until one of them is through
    raise UserError(f"{uri}: another run is writing it; re-run the same command")


def _read(uri: str, *names: str) -> dict[str, Any] | None:
    """Read a record that has to hold these `names`; None where there is none."""
    try:
        found = json.loads(objects.read(uri).data)
    except ObjectMissing:
        return None
    except StorageError as error:
        raise UserError(f"results cannot be written to {uri}: {error}") from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not set(names) <= set(found):
        raise UserError(
            f"{uri}: not a file that a run wrote; restore it from a backup, or give another OUT"
        )
    return found


def as_json(value: dict[str, Any]) -> bytes:
    """Give JSON for people."""
    return json.dumps(value, indent=2).encode() + b"\n"

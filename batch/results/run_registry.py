"""Which run a place belongs to: the first writes it down, the others join it or are refused.

Two files, each made by a create that fails where there is one:

    OUT/_runs/manifests/KEY.json                     this manifest and model -> its date
    OUT/_runs/date=D/model=NAME-VERSION/started.json what is scored there, and how

So a manifest keeps its date, and with it its parts, when it is run again after midnight; and a date
and model hold the rows of one manifest, scored in one way. A run that began a place and then found
its manifest under another date has left the place free for others.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from datetime import UTC, datetime
from typing import Any

from batch.results import schema as results
from batch.storage import objects as storage
from batch.storage.errors import ObjectChanged, ObjectExists, ObjectMissing, StorageError
from sonode.console import UserError

RUNS = "_runs"
SHARD_ROWS = 1024
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_TRIES = 20
_REMEDIES = {  # what may differ from the run that has the place, the farthest first
    "manifest_key": "give another --date",
    "model": "pack the archive under another version",
    "explain": "give --explain as that run did",
}


def date_of(out: str, manifest_key: str, name: str, version: str, asked: str | None) -> str:
    """Give the date that this manifest has in `out` for this model, or would have.

    `asked`: the user's, else today in UTC for a manifest that has none yet. Raises UserError for
    another date than the manifest's, and for what is no date.
    """
    if asked is not None:
        try:
            datetime.strptime(asked, "%Y-%m-%d")
        except ValueError:
            asked = ""
        if not _DATE.fullmatch(asked):
            raise UserError("--date: not a date; write it as YYYY-MM-DD")
    known = _read(_by_manifest(out, manifest_key, name, version), "date")
    if known is None:
        return asked or datetime.now(UTC).date().isoformat()
    date: str = known["date"]
    if asked not in (None, date):
        raise UserError(
            f"--date {asked}: {out} has this manifest under {date}; leave --date out, or name "
            "another folder"
        )
    return date


def claim(
    out: str,
    date: str,
    intent: dict[str, Any],
    shard_rows: int | None,
    now: str,
    *,
    dry: bool = False,
) -> dict[str, Any]:
    """Make the place of `date` and the model this run's, or join the run that has it already.

    `intent`: what makes two runs the same, with `model` and `manifest_key`. Returns the record that
    stands there, with the `shard_rows` that all runs keep to: those of the first, `SHARD_ROWS`
    where it named none. Raises UserError where another manifest, archive or parameter has the
    place. `dry`: only look.
    """
    model = intent["model"]
    uri = started(out, results.partition(date, model["name"], model["version"]))
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
                f"{place} hold the results of another run ({name} differs); {remedy}, or name "
                "another folder"
            )
    if shard_rows not in (None, there["shard_rows"]):
        raise UserError(
            f"--shard-rows {shard_rows}: {place} are begun in shards of {there['shard_rows']} "
            "rows; leave --shard-rows out, or name another folder"
        )
    if not dry:
        by_manifest = _by_manifest(out, intent["manifest_key"], model["name"], model["version"])
        first = _first(by_manifest, {"date": date})
        if first["date"] != date:
            raise UserError(f"{out}: another run has begun this manifest just now; run again")
    return there


def started(out: str, partition: str) -> str:
    """Name the file that stands where a run has a place."""
    return storage.join(out, f"{RUNS}/{partition}/started.json")


def manifest_key(sha256: str, folder: str) -> str:
    """Name a manifest by its rows, and by the folder from which relative image_uris are taken."""
    return hashlib.sha256(f"{sha256}\n{folder}".encode()).hexdigest()[:32]


def _by_manifest(out: str, key: str, name: str, version: str) -> str:
    return storage.join(out, f"{RUNS}/manifests/{key}-{name}-{version}.json")


def _left(out: str, there: dict[str, Any], date: str) -> bool:
    """Whether the run that began this place went on under another date."""
    model = there["model"]
    uri = _by_manifest(out, there["manifest_key"], model["name"], model["version"])
    known = _read(uri, "date")
    return known is not None and known["date"] != date


def _taken_over(uri: str, out: str, record: dict[str, Any]) -> dict[str, Any]:
    """Write `record` over one that was left, and give what stands there then."""
    try:
        found = storage.read(uri)
        there: dict[str, Any] = json.loads(found.data)
        if not _left(out, there, record["date"]):
            return there  # another run was faster
        storage.replace(uri, as_json(record), found.etag)
        return record
    except ObjectChanged:
        return _taken_over(uri, out, record)
    except StorageError as error:
        raise _unwritable(uri, error) from None


def _first(uri: str, record: dict[str, Any]) -> dict[str, Any]:
    """Write `record` where there is none yet, and give what stands there then."""
    for _ in range(_TRIES):
        try:
            storage.create(uri, as_json(record))
            return record
        except ObjectExists:
            if (found := _read(uri, *record)) is not None:
                return found
        except StorageError as error:
            raise _unwritable(uri, error) from None
        time.sleep(0.1)  # S3 refuses both of two that come at once, until one of them is through
    raise UserError(f"{uri}: another run is writing it; run again")


def _unwritable(uri: str, error: StorageError) -> UserError:
    return UserError(f"results cannot be written to {uri.partition(RUNS)[0]}: {error}")


def _read(uri: str, *names: str) -> dict[str, Any] | None:
    """Read a record that has to hold these `names`; None where there is none."""
    try:
        found = json.loads(storage.read(uri).data)
    except ObjectMissing:
        return None
    except StorageError as error:
        raise UserError(f"results cannot be written there: {uri}: {error}") from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not set(names) <= set(found):
        raise UserError(
            f"{uri}: not what a run has written there, so what the results hold is not known; "
            "bring back the file as it was, or name another folder"
        )
    return found


def as_json(value: dict[str, Any]) -> bytes:
    """Give JSON for people."""
    return json.dumps(value, indent=2).encode() + b"\n"

"""Which night has which images and boxes, and how far each night is.

One Parquet file, with a row for each box: the night, and a hash of the image's UIDs, the frame and
the box. It changes in one step and only if it is still the one that was read: of two nights that
run at once, one gets a box. A night is closed when all its objects are at the PACS, or when what
the PACS does not take has been offered for some days; later nights do not look at it any more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import Any

import pyarrow as pa

from batch.results.schema import parquet
from batch.storage import objects
from batch.storage.errors import ObjectMissing
from sonode.console import UserError
from sonode.files.parquet import ROI_COLUMNS, file_bytes

# An image that the PACS has moved to another study is scored there, too.
_KEY = ("study_uid", "instance_uid", "frame", *ROI_COLUMNS)
_SCHEMA = pa.schema([("night", pa.string()), ("row", pa.binary(16))])
_NIGHTS = b"nights"
REFUSED = "the PACS refused to give images, which the next nights ask for again"


@dataclass(frozen=True, kw_only=True)
class Night:
    """How far a night is."""

    manifest: str
    """Below the folder."""
    rows: int
    scored: bool = False
    """Every row of it was scored, or has failed, and its objects were made."""
    closed: bool = False
    not_sent: int = 0
    """Objects that the PACS did not have after the last push."""
    refused: Sequence[str] = ()
    """Hashes of the images that the PACS refused to give, and no earlier night names."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """By stage, what no exit code has told yet: it is kept over a kill, or an answer to come."""


class Register:
    """The register of a folder; raises UserError for one that cannot be read."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._uri = objects.join(folder, "nights/register.parquet")
        self._read()

    def claim(
        self, day: date, table: pa.Table, refused: Collection[str] = (), lacking: str = ""
    ) -> None:
        """Give a night the rows that no night has, unless it has its own already.

        `refused`: UIDs of the images that the PACS did not give. `lacking`: what else it did not.
        """
        hashes = {_hash((it,)).hex() for it in refused}
        keys = [_hash(it) for it in zip(*(table[name].to_pylist() for name in _KEY), strict=True)]
        while day not in self.nights:
            others = set(self._rows["row"].to_pylist())
            fresh = table.filter(pa.array([it not in others for it in keys], pa.bool_()))
            data = file_bytes(fresh)
            # A name that no other run has, unless for the same rows: what it names never changes.
            name = f"images/night-{day}-{hashlib.sha256(data).hexdigest()[:12]}.parquet"
            objects.write(objects.join(self._folder, name), data)
            mine = [it for it in keys if it not in others]
            rows = pa.table([[str(day)] * len(mine), mine], schema=_SCHEMA)
            new = hashes - {it for night in self.nights.values() for it in night.refused}
            words = [lacking] * bool(lacking) + [REFUSED] * bool(new)
            faults = {"pull": ", ".join(words)} if words else {}
            its = Night(manifest=name, rows=len(mine), refused=sorted(new), faults=faults)
            nights = {**self.nights, day: its}
            self._write(nights, pa.concat_tables([self._rows, rows]))

    def note(
        self, day: date, *, faults: Mapping[str, str | None] | None = None, **facts: Any
    ) -> None:
        """Note how far a night is.

        `faults`: by stage, what is to be told in place of what was; None: nothing. What other
        stages have to tell stays, also where another run has noted it meanwhile.
        """
        while True:
            its = self.nights[day]
            told = {**its.faults, **(faults or {})}
            noted = replace(its, **facts, faults={it: text for it, text in told.items() if text})
            if noted == its:
                return
            self._write({**self.nights, day: noted}, self._rows)

    def _write(self, nights: dict[date, Night], rows: pa.Table) -> None:
        """Write it where it is still the one that was read, and read what it is now."""
        told = json.dumps({str(day): asdict(it) for day, it in nights.items()}).encode()
        data = file_bytes(rows.replace_schema_metadata({_NIGHTS: told}))
        objects.update(self._uri, data, self._etag)
        self._read()

    def _read(self) -> None:
        self.nights: dict[date, Night] = {}
        self._rows, self._etag = _SCHEMA.empty_table(), None
        try:
            found = objects.read(self._uri)
        except ObjectMissing:
            return
        try:
            table = parquet(found.data).read()
            told = json.loads((table.schema.metadata or {})[_NIGHTS])
            self.nights = {date.fromisoformat(day): Night(**it) for day, it in told.items()}
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
            raise UserError(
                f"{self._uri}: not a register of this sonode; give another folder"
            ) from None
        self._rows, self._etag = table.select(_SCHEMA.names), found.etag


def _hash(key: tuple[Any, ...]) -> bytes:
    return hashlib.blake2b(repr(key).encode(), digest_size=16).digest()

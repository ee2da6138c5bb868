"""Earlier results, from which a run takes over rows whose image needs no scoring again.

A row is taken over where an earlier one has a score for the same image_uri, RoI and frame, by the
same archive (its SHA-256) with the same `explain`, and the object still has the ETag that it was
scored with. The engine may differ; each row names its own.

In memory are 20 bytes per earlier row; rows themselves are read when they are needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch import results, storage
from batch.manifest import Request, requests
from batch.manifest_checks import ROI_COLUMNS
from batch.storage_errors import StorageError
from sonode_console import UserError

_ASKED = ("status", "image_uri", "frame", "roi", *ROI_COLUMNS)
_PARTS_IN_MEMORY = 8


class Earlier:
    """The scores in a folder of results that were made by one archive with one `explain`.

    Raises UserError for a folder that cannot be read or holds no results.
    """

    def __init__(self, uri: str, sha256: str, explain: str | None) -> None:
        self._made_by = {"sha256": sha256, "explain": explain}
        self._parts: list[str] = []
        keys = [np.empty(0, np.uint64)]
        places = [np.empty((0, 2), np.uint32)]
        try:
            found = [f for f in storage.list_files(uri, deep=True) if f.endswith(".parquet")]
            if not found:
                raise UserError(f"--since {uri}: holds no results of an earlier run")
            for part in found:
                table, folder = self._read(part, _ASKED)
                if folder is None:
                    continue
                rows = np.flatnonzero(np.asarray(table["status"].to_pylist()) == results.OK)
                asked = requests(table, folder)
                keys.append(np.array([_key(asked[row]) for row in rows], np.uint64))
                places.append(np.column_stack([np.full(len(rows), len(self._parts)), rows]))
                self._parts.append(part)
        except StorageError as error:
            raise UserError(f"--since {uri}: {error}") from None
        joined = np.concatenate(keys)
        order = np.argsort(joined, kind="stable")
        self._keys = joined[order]
        self._places = np.concatenate(places, dtype=np.uint32, casting="unsafe")[order]
        self._remember()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_rows"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._remember()

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, request: Request, columns: Sequence[pa.Field]) -> results.Row | None:
        """Give the earlier result of what `request` asks for, or None. Raises StorageError."""
        key = np.uint64(_key(request))
        start = np.searchsorted(self._keys, key, "left")
        end = np.searchsorted(self._keys, key, "right")
        candidates = []
        for part, row in self._places[start:end].tolist():
            asked, found = self._rows(part)
            if asked[row][::2] == request[::2]:  # equal keys alone prove nothing
                candidates.append(found[row])
        if not candidates:
            return None
        etag = storage.etag_of(request.image_uri)
        if request.etag is not None and request.etag.strip('"') != etag:
            return None
        for found_row in reversed(candidates):  # the newest date is the last
            if found_row["image_etag"] == etag:
                return {column.name: found_row[column.name] for column in columns}
        return None

    def _read(self, part: str, names: Sequence[str] = ()) -> tuple[pa.Table, str | None]:
        """A part (of `names`, its columns), and its images' folder if what made it is wanted."""
        try:
            file = pq.ParquetFile(pa.BufferReader(storage.read(part).data))
            table = file.read([name for name in names if name in file.schema_arrow.names] or None)
            made_by: dict[str, Any] = json.loads(table.schema.metadata[b"sonode"])
        except (pa.ArrowException, KeyError, TypeError, ValueError, OSError):
            raise UserError(f"--since: {part} is not a part of results") from None
        folder = made_by.pop("folder")
        return table, folder if made_by == self._made_by else None

    def _remember(self) -> None:
        self._rows = lru_cache(_PARTS_IN_MEMORY)(self._rows_of)

    def _rows_of(self, part: int) -> tuple[list[Request], list[results.Row]]:
        table, folder = self._read(self._parts[part])
        assert folder is not None
        return requests(table, folder), table.to_pylist()


def _key(request: Request) -> int:
    asked = "\n".join([request.image_uri, *map("=".join, sorted(request.fields.items()))])
    return int.from_bytes(hashlib.sha256(asked.encode()).digest()[:8], "big")

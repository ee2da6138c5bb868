"""Previous results, whose rows a run reuses if the image has not changed.

A row is reused if a previous one has a score for the same image_uri, RoI and frame, by the
same archive (its SHA-256) with the same `explain`, and the object still has the ETag that it was
scored with. The engine may differ; each row names its own.

The parts are read once. In memory are 20 bytes per previous row; the rows themselves are in a
temporary file without a name, from which each is read as it is needed, in any order.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch.manifest.read import Request, requests
from batch.results import schema as results
from batch.storage import objects, s3_objects
from batch.storage.errors import StorageError
from sonode.console import UserError
from sonode.files.parquet import ROI_COLUMNS

_ASKED = ("image_uri", "frame", "roi", *ROI_COLUMNS)


class PreviousResults:
    """The scores in a folder of results that were made by one archive with one `explain`.

    `columns`: those of the rows that are reused. `may_be_empty`: a folder without results is no
    fault. Raises UserError for a folder that cannot be read or holds no results, and if the
    temporary file cannot be written. Pickled, it is read again, once in each process.
    """

    def __init__(
        self,
        uri: str,
        sha256: str,
        explain: str | None,
        columns: Sequence[pa.Field],
        *,
        may_be_empty: bool = False,
    ) -> None:
        self._given = (objects.absolute(uri), sha256, explain, tuple(columns))
        self._made_by = {"sha256": sha256, "explain": explain}
        self._schema = pa.schema([*columns, pa.field("asked", pa.string())])
        keys = [np.empty(0, np.uint64)]
        places = [np.empty((0, 2), np.uint32)]
        try:
            found = results.parts_in(uri)
            if not found and not may_be_empty:
                raise UserError(f"--since {uri}: has no results; give the OUT of a previous run")
            with tempfile.TemporaryFile(prefix="sonode-previous-") as file:
                with pa.ipc.new_file(file, self._schema) as writer:
                    for part in found:
                        rows = self._rows_of(part)
                        if not rows.num_rows:
                            continue
                        asked = rows["asked"].to_pylist()
                        numbers = np.arange(rows.num_rows)
                        places.append(
                            np.column_stack([np.full_like(numbers, len(keys) - 1), numbers])
                        )
                        keys.append(np.array([_key(text) for text in asked], np.uint64))
                        writer.write_table(rows)
                file.flush()
                # The map outlives the file, which has no name any more: it goes with the process.
                reader = pa.ipc.open_file(pa.memory_map(f"/proc/self/fd/{file.fileno()}"))
            self._parts = [reader.get_batch(part) for part in range(reader.num_record_batches)]
        except StorageError as error:
            raise UserError(f"--since {uri}: {error}") from None
        except OSError as error:
            raise UserError(
                f"--since {uri}: the folder of temporary files cannot be written "
                f"({type(error).__name__}); set TMPDIR to another folder"
            ) from None
        joined = np.concatenate(keys)
        order = np.argsort(joined, kind="stable")
        self._keys = joined[order]
        self._places = np.concatenate(places, dtype=np.uint32, casting="unsafe")[order]

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_this_process, (*self._given, not len(self))

    def __len__(self) -> int:
        return len(self._keys)

    def knows(self, request: Request) -> bool:
        """Whether there is a previous score of what `request` asks for, of whatever ETag."""
        return any(True for _ in self._candidates(request))

    def find(self, request: Request, limit: int | None = None) -> results.Row | None:
        """Give the previous result of what `request` asks for, or None.

        A local image is read for it, unless it has more than `limit` bytes. Raises StorageError.
        """
        etag: str | None = None
        for row in self._candidates(request):
            if etag is None:  # not asked of an image that no run has scored
                etag = objects.etag_of(request.image_uri, limit)
                if request.etag is not None and s3_objects.plain(request.etag) != etag:
                    return None
            if row["image_etag"] == etag:
                return row
        return None

    def _candidates(self, request: Request) -> Iterator[results.Row]:
        """The newest first, and no more than are asked for: every night may have added one."""
        asked = _asked(request)
        start = np.searchsorted(self._keys, np.uint64(_key(asked)), "left")
        end = np.searchsorted(self._keys, np.uint64(_key(asked)), "right")
        for part, number in reversed(self._places[start:end].tolist()):
            (row,) = self._parts[part].slice(number, 1).to_pylist()
            if row.pop("asked") == asked:  # equal keys alone prove nothing
                yield row

    def _rows_of(self, part: str) -> pa.Table:
        """A part's rows with a score, none if something else made it; as one batch."""
        try:
            file = results.parquet(objects.read(part).data)
            made_by: dict[str, Any] = json.loads(file.schema_arrow.metadata[b"sonode"])
            folder = made_by.pop("folder")
            if made_by != self._made_by:
                return self._schema.empty_table()
            wanted = {*_ASKED, *self._schema.names}
            table = file.read([name for name in file.schema_arrow.names if name in wanted])
            table = table.filter(pc.equal(table["status"], results.OK))
            asked = pa.array([_asked(one) for one in requests(table, folder)], pa.string())
            rows = [table[name] for name in self._schema.names[:-1]]
            return pa.table([*rows, asked], schema=self._schema).combine_chunks()
        except (pa.ArrowException, KeyError, TypeError, ValueError, OSError):
            raise UserError(
                f"--since: {part}: not a file that a run wrote; remove it, or omit --since"
            ) from None


_reading = threading.Lock()


def _in_this_process(*given: Any) -> PreviousResults:
    with _reading:  # of the threads that ask at once, one reads
        return _read(*given)


@lru_cache(maxsize=1)
def _read(*given: Any) -> PreviousResults:
    return PreviousResults(*given[:-1], may_be_empty=given[-1])


def _asked(request: Request) -> str:
    return "\n".join([request.image_uri, *map("=".join, sorted(request.fields.items()))])


def _key(asked: str) -> int:
    return int.from_bytes(hashlib.sha256(asked.encode()).digest()[:8], "big")

"""A ledger: a Parquet file of what became of each object. Several may write it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from batch.results import schema as results
from batch.storage import objects
from batch.storage.errors import ObjectMissing
from sonode.console import UserError
from sonode.files.parquet import file_bytes

Entry = dict[str, Any]


class LedgerFile:
    """The entries of a ledger by the column `key`; none where there is no file yet.

    `is_done` says of an entry whether nothing is left to do: what another writer has done stands.
    Raises UserError for a file that is no such ledger.
    """

    def __init__(
        self, uri: str, schema: pa.Schema, key: str, is_done: Callable[[Entry], bool]
    ) -> None:
        self._uri, self._schema, self._key, self._is_done = uri, schema, key, is_done
        self.entries, self._etag = self._read()

    def write(self) -> None:
        """Write it, with what another has found meanwhile."""
        while not objects.update(self._uri, self._as_file(), self._etag):
            others, self._etag = self._read()
            done = {key: it for key, it in others.items() if self._is_done(it)}
            self.entries = {**others, **self.entries, **done}
        self.entries, self._etag = self._read()

    def _read(self) -> tuple[dict[str, Entry], str | None]:
        try:
            found = objects.read(self._uri)
        except ObjectMissing:
            return {}, None
        try:
            table = results.parquet(found.data).read()
        except (pa.ArrowException, OSError):
            table = None
        if table is None or table.schema.remove_metadata() != self._schema:
            raise UserError(f"{self._uri}: not a ledger of this sonode; remove it and re-run")
        return {row[self._key]: row for row in table.to_pylist()}, found.etag

    def _as_file(self) -> bytes:
        rows = [self.entries[key] for key in sorted(self.entries)]
        return file_bytes(pa.Table.from_pylist(rows, schema=self._schema))

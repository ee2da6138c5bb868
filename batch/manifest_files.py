"""The manifest's Parquet files: copied, with one schema, read a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from batch import manifest_checks as checks
from batch import storage
from batch.storage_errors import ObjectMissing
from sonode_console import UserError

CHECKED_TOGETHER = 16_384  # rows; the digest of a manifest depends on it


class Unsound(Exception):  # noqa: N818 - reads as what it is
    """A Parquet file that cannot be read to its end."""


def copied(uri: str, folder: Path, out: str | None = None) -> tuple[tuple[Path, ...], str]:
    """Copy a Parquet file, or those of a folder, into `folder`; none of those below `out`.

    Returns the copies in the order of their names, and where relative image_uris begin. Raises
    StorageError, and UserError where there is none, or where some would be left out.
    """
    try:
        if uri.endswith("/"):
            raise ObjectMissing  # an S3 "folder" may be an empty object of that very key
        return (_copy(uri, folder / "0.parquet"),), storage.parent(storage.absolute(uri))
    except ObjectMissing:
        inside = storage.parent(storage.join(uri, "0"))
        results = f"{storage.absolute(out).rstrip('/')}/" if out is not None else "\0"
        there = _parquet_files(uri)
        found = [file for file in there if storage.parent(file) == inside]
        below = [
            file
            for file in there
            if storage.parent(file) != inside and not storage.absolute(file).startswith(results)
        ]
        if below:
            raise UserError(
                f"manifest {uri}: {len(below)} Parquet files lie in folders below it; put all into "
                "one folder, and into columns what the folders' names say"
            ) from None
        if not found:
            raise UserError(
                f"manifest {uri}: neither a Parquet file nor a folder that holds *.parquet"
            ) from None
        (folder / "all").mkdir()
        files = [_copy(file, folder / "all" / PurePosixPath(file).name) for file in found]
        return tuple(files), storage.absolute(uri.rstrip("/"))


def _parquet_files(folder: str) -> list[str]:
    """Those that readers of a dataset take, at any depth: none that begins with `_` or `.`."""
    return [
        file
        for file in storage.list_files(folder, deep=True)
        if file.lower().endswith(".parquet") and PurePosixPath(file).name[0] not in "_."
    ]


def _copy(uri: str, path: Path) -> Path:
    storage.fetch(uri, path)
    return path


def common_schema(uri: str, files: tuple[Path, ...]) -> pa.Schema:
    """Give the schema that all files fit, in types that readers of the results share.

    A category is taken for what it holds, and times of nanoseconds are of microseconds: Spark takes
    no others. Where there are nulls alone there is no type, and one is given: readers of all nights
    take the type of the first, into which the values of a later one would not fit.
    """
    schemas = []
    for file in files:
        try:
            found = pq.ParquetFile(file).schema_arrow.remove_metadata()
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"manifest {uri}: not a sound Parquet file ({type(error).__name__}); write it anew"
            ) from None
        schemas.append(pa.schema([_plain(column) for column in found]))
    for file, schema in zip(files, schemas, strict=True):
        if odd := set(schemas[0].names) ^ set(schema.names):
            raise UserError(
                f"manifest {uri}: {file.name} and {files[0].name} "
                f"differ in columns {sorted(odd)}; give every file the same"
            )
    if len(files) == 1:
        # Unifying refuses a name that stands twice; the check tells it better.
        return pa.schema([_shared(column) for column in schemas[0]])
    try:
        # "default" lets a column that is all null in one file take its type from the others.
        common = pa.unify_schemas(schemas, promote_options="default")
        return pa.schema([_shared(column) for column in common])
    except pa.ArrowException as error:
        raise UserError(f"manifest {uri}: column types differ between its files: {error}") from None


def _plain(column: pa.Field) -> pa.Field:
    kind = column.type
    return column.with_type(kind.value_type) if pa.types.is_dictionary(kind) else column


def _shared(column: pa.Field) -> pa.Field:
    if pa.types.is_null(column.type):
        return column.with_type(checks.TYPES.get(column.name, pa.string()))
    return column.with_type(_shared_type(column.type))


def _shared_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_shared_type(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_shared_type(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_shared_type(field.type)) for field in kind])
    return kind


def tables(files: tuple[Path, ...], schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """Read files in tables of `rows` rows each, fewer at the end; of no rows, one table.

    Raises Unsound, and UserError for values that the schema cannot hold.
    """
    rest = schema.empty_table()
    any_yet = False
    for batch in _batches(files, schema, max(rows, CHECKED_TOGETHER)):
        table = pa.concat_tables([rest, batch])
        whole = table.num_rows - table.num_rows % rows
        for start in range(0, whole, rows):
            yield table.slice(start, rows).combine_chunks()
            any_yet = True
        rest = table.slice(whole)
    if rest.num_rows or not any_yet:
        yield rest.combine_chunks()


def _batches(files: tuple[Path, ...], schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    for path in files:
        try:
            # Pages are read as they are needed: a row group may hold all of a manifest.
            # ParquetFile, not read_table: that one would take a column `filters` for its own.
            with pq.ParquetFile(path, buffer_size=1 << 20) as file:
                for batch in file.iter_batches(batch_size=rows):
                    table = pa.Table.from_batches([batch])
                    if table.column_names != schema.names:
                        table = table.select(schema.names)
                    table = table.replace_schema_metadata(None)
                    table.validate(full=True)  # text that is no UTF-8 is found here
                    yield _cast(table, schema)
        except (pa.ArrowException, OSError) as error:
            raise Unsound(type(error).__name__) from None


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field, column in zip(schema, table.columns, strict=True):
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowInvalid:
            raise UserError(
                f"manifest: column {field.name!r} holds {column.type} that does not fit into "
                f"{field.type}, as readers of the results share it; write it as {field.type}"
            ) from None
    return pa.table(columns, schema=schema)

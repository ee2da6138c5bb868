"""The manifest's Parquet files: with one schema, read a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.manifest import column_types
from sonode.console import UserError
from sonode.files.parquet import is_joined

_DIGITS = 38  # of a decimal, the most that Spark and Arrow's 128 bits hold
CHECKED_TOGETHER = 16_384  # rows; the digest of a manifest depends on it


class Unsound(Exception):  # noqa: N818 - reads as what it is
    """A Parquet file that cannot be read to its end: which one, why, and the remedy."""


@contextmanager
def _opened(path: Path, files: tuple[Path, ...]) -> Iterator[pq.ParquetFile]:
    """Open one of `files`; what is wrong with it is raised as Unsound."""
    which = f"{path.name}: " if len(files) > 1 else ""
    try:
        # Pages are read as they are needed: a row group may hold all of a manifest. ParquetFile,
        # not read_table: that one would take a column `filters` for its own.
        with pq.ParquetFile(path, buffer_size=1 << 20, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        if "crypt" in str(error):  # "no decryption found", "file is encrypted", ...
            raise Unsound(f"{which}an encrypted Parquet file; give an unencrypted copy") from None
        if isinstance(error, pa.ArrowNotImplementedError):  # its text names a type or a codec
            raise Unsound(f"{which}Arrow does not read it ({error}); write other types") from None
        raise Unsound(
            f"{which}damaged, or not a Parquet file ({type(error).__name__}); write it again"
        ) from None


def _refuse_joined(path: Path) -> None:
    """Raise Unsound where files were written one behind the other."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        if is_joined(data):
            raise Unsound(
                f"{path.name}: several Parquet files joined into one, of which readers see only "
                "one; put the original files into a folder"
            )


def common_schema(uri: str, files: tuple[Path, ...]) -> pa.Schema:
    """Give the schema that all files fit, in types that readers of the results share.

    Types of one kind become the widest of them: text, times, numbers (whole ones where all values
    are). A column without a value in a file has no type there. A category is taken for what it
    holds. What Spark does not take is changed: times of nanoseconds are of microseconds, half
    floats are floats, and times of a day, UUIDs and decimals of more than 38 digits are text. Where
    there are nulls alone there is no type, and one is given.
    Raises Unsound, and UserError.
    """
    schemas = []
    for path in files:
        with _opened(path, files) as file:
            _refuse_joined(path)
            found = file.schema_arrow.remove_metadata()
        schemas.append(
            pa.schema([it.with_type(_column_type(it.type, null=pa.null())) for it in found])
        )
    for path, schema in zip(files, schemas, strict=True):
        if odd := set(schemas[0].names) ^ set(schema.names):
            raise UserError(
                f"manifest {uri}: {path.name} and {files[0].name} "
                f"differ in columns {sorted(odd)}; give every file the same"
            )
    if len(files) == 1:
        # Unifying refuses a name that appears twice; the check's message is better.
        return pa.schema([_shared(column) for column in schemas[0]])
    schemas = [
        _of_values(path, files, schema, schemas)
        for path, schema in zip(files, schemas, strict=True)
    ]
    columns = [_common(uri, name, files, schemas) for name in schemas[0].names]
    return pa.schema([_shared(_whole(column, files, schemas)) for column in columns])


def _of_values(
    path: Path, files: tuple[Path, ...], schema: pa.Schema, schemas: Sequence[pa.Schema]
) -> pa.Schema:
    """The schema without the types of columns that hold no value, as pandas makes one up then.

    Only columns that another file has in another type are looked into.
    """
    differ = {
        it.name for it in schema if any(other.field(it.name).type != it.type for other in schemas)
    }
    if not differ:
        return schema
    nothing = set(differ)
    with _opened(path, files) as file:
        for batch in file.iter_batches(CHECKED_TOGETHER, columns=sorted(differ)):
            nothing -= {name for name in nothing if batch.column(name).null_count < batch.num_rows}
            if not nothing:
                break
    return pa.schema([it.with_type(pa.null()) if it.name in nothing else it for it in schema])


def _whole(column: pa.Field, files: tuple[Path, ...], schemas: Sequence[pa.Schema]) -> pa.Field:
    """The column as integers if some files have floats that pandas made of a gap."""
    kinds = [schema.field(column.name).type for schema in schemas]
    if not pa.types.is_floating(column.type) or not any(map(pa.types.is_integer, kinds)):
        return column
    for path, kind in zip(files, kinds, strict=True):
        if pa.types.is_floating(kind):
            with _opened(path, files) as file:
                for batch in file.iter_batches(CHECKED_TOGETHER, columns=[column.name]):
                    values = batch.column(0).cast(pa.float64())
                    if not pc.all(pc.equal(values, pc.floor(values)), min_count=0).as_py():
                        return column
    return column.with_type(pa.int64())


def _common(uri: str, name: str, files: tuple[Path, ...], schemas: Sequence[pa.Schema]) -> pa.Field:
    """The column `name` in a type that takes the values of all files."""
    common = schemas[0].field(name)
    for path, schema in zip(files, schemas, strict=True):
        both = [common, schema.field(name)]
        try:
            common = pa.unify_schemas(
                [pa.schema([field]) for field in both], promote_options="permissive"
            ).field(0)
            # What text and bytes have in common is bytes, as which readers show no text.
            fits = column_types.is_text(common.type) or not any(
                column_types.is_text(it.type) for it in both
            )
        except pa.ArrowException:
            fits = False
        if not fits:
            raise UserError(
                f"manifest {uri}: column types differ between its files: {name!r} holds "
                f"{both[1].type} in {path.name}, and {both[0].type} before; write one type"
            )
    kinds = [schema.field(name).type for schema in schemas]
    if pa.types.is_decimal(common.type) and any(map(pa.types.is_integer, kinds)):
        # Arrow's own choice has a digit less than int64.
        common = common.with_type(pa.decimal128(_DIGITS, common.type.scale))
    return common


def _shared(column: pa.Field) -> pa.Field:
    if pa.types.is_null(column.type):
        return column.with_type(column_types.TYPES.get(column.name, pa.string()))
    return column.with_type(_column_type(column.type, null=pa.string()))


def _column_type(kind: pa.DataType, null: pa.DataType) -> pa.DataType:
    # As text, but for those within lists and the like, which are bytes: Arrow casts no UUIDs.
    return pa.string() if kind == pa.uuid() else _shared_type(kind, null)


def _shared_type(kind: pa.DataType, null: pa.DataType) -> pa.DataType:
    """The type that readers share; `null`: of what holds no values."""
    inner = partial(_shared_type, null=null)
    if pa.types.is_null(kind):
        kind = null
    elif pa.types.is_dictionary(kind):
        kind = inner(kind.value_type)  # a pandas category
    elif pa.types.is_list(kind):
        kind = pa.list_(kind.value_field.with_type(inner(kind.value_type)))
    elif pa.types.is_large_list(kind):
        kind = pa.large_list(kind.value_field.with_type(inner(kind.value_type)))
    elif pa.types.is_fixed_size_list(kind):
        kind = pa.list_(kind.value_field.with_type(inner(kind.value_type)), kind.list_size)
    elif pa.types.is_map(kind):
        kind = pa.map_(inner(kind.key_type), kind.item_field.with_type(inner(kind.item_type)))
    elif pa.types.is_struct(kind):
        kind = pa.struct([field.with_type(inner(field.type)) for field in kind])
    return _shared_value(kind)


def _shared_value(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        kind = pa.string()
    elif pa.types.is_binary_view(kind):
        kind = pa.binary()
    elif pa.types.is_timestamp(kind) and kind.unit == "ns":
        kind = pa.timestamp("us", kind.tz)
    elif pa.types.is_time(kind) or (pa.types.is_decimal(kind) and kind.precision > _DIGITS):
        kind = pa.string()
    elif pa.types.is_decimal(kind) and kind.bit_width < 128:
        kind = pa.decimal128(kind.precision, kind.scale)  # Arrow sorts none of these
    elif pa.types.is_float16(kind):
        kind = pa.float32()
    elif kind == pa.uuid():
        kind = kind.storage_type
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
        with _opened(path, files) as file:
            for batch in file.iter_batches(batch_size=rows):
                table = pa.Table.from_batches([batch])
                if table.column_names != schema.names:
                    table = table.select(schema.names)
                table = table.replace_schema_metadata(None)
                table.validate(full=True)  # text that is no UTF-8 is found here
                yield _cast(table, schema)


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field, column in zip(schema, table.columns, strict=True):
        try:
            columns.append(_cast_column(column, field.type))
        except pa.ArrowInvalid:
            # INT96 holds every year, and nanoseconds do not: what is read is then another year.
            why = " (digits below a microsecond, or a year beyond 1678..2261)"
            raise UserError(
                f"manifest: column {field.name!r} holds {column.type} that does not fit into "
                f"{field.type}{why if pa.types.is_timestamp(column.type) else ''}, as readers of "
                f"the results share it; write it as {field.type}"
            ) from None
    return pa.table(columns, schema=schema)


def _cast_column(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.null_count == len(column):  # of any type: none of them says what is missing
        return pa.chunked_array([pa.nulls(len(column), kind)])
    if column.type == pa.uuid() and pa.types.is_string(kind):
        texts = [None if value is None else str(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, kind)])
    return column.cast(kind)

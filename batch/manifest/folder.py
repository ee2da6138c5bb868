"""Which files a manifest is made of: one Parquet file, or those of a folder; they are copied.

What is not read is refused or logged, never ignored in silence: files in folders below, files that
are named as Parquet and are not, tables whose log says which of their rows are valid.
"""

from __future__ import annotations

import logging
import mimetypes
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from batch.storage import objects
from batch.storage.errors import AccessDenied, ObjectMissing
from sonode.console import UserError

_log = logging.getLogger(__name__)

_MAGIC = (b"PAR1", b"PARE")  # the second: with an encrypted footer, which reading finds
_SUFFIXES = (".parquet", ".parq", ".pq")
_TYPES = mimetypes.MimeTypes(filenames=())  # the same on every machine
_NO_TABLES = (".dcm", ".md", ".crc", ".yaml", ".yml")  # known to be none, unknown to mimetypes
_SPARK = 'spark.read.format("{}").load("TABLE").write.parquet("FOLDER")'
_LOGS = (  # a folder, how a file in it ends, what that makes of the table, how to export it
    (
        *("_delta_log", "", "a Delta table"),
        f'{_SPARK.format("delta")}, or deltalake: DeltaTable("TABLE").to_pandas().to_parquet("F")',
    ),
    (".hoodie", "", "a Hudi table", _SPARK.format("hudi")),
    (
        *("metadata", ".metadata.json", "an Iceberg table"),
        f'{_SPARK.format("iceberg")}, or pyiceberg: table.scan().to_pandas().to_parquet("F")',
    ),
    ("_spark_metadata", "", "the sink of a Spark stream", _SPARK.format("parquet")),
)


def copied(uri: str, folder: Path, out: str | None = None) -> tuple[tuple[Path, ...], str]:
    """Copy a Parquet file, or those of a folder, into `folder`; none of those below `out`.

    Returns the copies in the order of their names, and where relative image_uris begin. Raises
    StorageError, and UserError if there is none, or if some would be ignored.
    """
    try:
        if uri.endswith("/"):
            raise ObjectMissing  # an S3 "folder" may be an empty object of that very key
        copy = _copy(uri, folder / "0.parquet")
        inside = objects.parent(objects.absolute(uri))
        _refuse_log(uri, inside)
        return (copy,), inside
    except ObjectMissing:
        inside = objects.absolute(uri.rstrip("/"))
        _refuse_log(uri, inside)
        found = _parquet_files(uri, out)
        (folder / "all").mkdir()
        files = [_copy(file, folder / "all" / PurePosixPath(file).name) for file in found]
        return tuple(files), inside


def _parquet_files(uri: str, out: str | None) -> list[str]:
    """Those directly in the folder that readers of a dataset take: none with `_` or `.` before."""
    inside = objects.parent(objects.join(uri, "0"))
    results = f"{objects.absolute(out).rstrip('/')}/" if out is not None else "\0"
    visible = [
        file
        for file in objects.list_files(uri, deep=True)
        if not PurePosixPath(file).name.startswith(("_", "."))
        and not objects.absolute(file).startswith(results)
    ]
    direct = [file for file in visible if objects.parent(file) == inside]
    below = set(visible) - set(direct)
    if tables := [file for file in below if _is_called_parquet(file)]:
        raise UserError(
            f"manifest {uri}: {len(tables)} Parquet files lie in folders below it; put all into "
            "one folder, and what the folders' names say into columns"
        )
    found = [file for file in direct if _is_parquet(file)]
    rest = set(direct) - set(found)
    if odd := sorted(PurePosixPath(file).name for file in rest if _is_called_parquet(file)):
        raise UserError(
            f"manifest {uri}: {', '.join(odd[:5])}: named as Parquet, but their content is not "
            f"({len(odd)} such files); unpack or remove them"
        )
    if not found:
        raise UserError(f"manifest {uri}: neither a Parquet file nor a folder of Parquet files")
    if rest or below:
        kinds = Counter(PurePosixPath(file).suffix or "no suffix" for file in rest)
        ignored = [f"{count} with {kind}" for kind, count in sorted(kinds.items())]
        ignored += [f"{len(below)} in folders below"] if below else []
        _log.warning(  # not by name: an image's may hold a patient's
            "manifest %s: %d Parquet files are read; other files there are ignored: %s",
            *(uri, len(found), ", ".join(ignored)),
        )
    return found


def _is_called_parquet(file: str) -> bool:
    name = PurePosixPath(file).name.lower()
    return any(name.endswith(end) or f"{end}." in name for end in _SUFFIXES)


def _is_parquet(file: str) -> bool:
    name = PurePosixPath(file).name.lower()
    if name.endswith(_SUFFIXES):
        return True
    known = _TYPES.guess_type(name)[0] is not None or name.endswith(_NO_TABLES)
    return not known and objects.first_bytes(file, 4) in _MAGIC


def _refuse_log(uri: str, folder: str) -> None:
    """Raise UserError where a log says which rows of the files in `folder` count."""
    for place in _table_folders(folder):
        for name, end, kind, export in _LOGS:
            try:
                log = objects.list_files(objects.join(place, name))
            except AccessDenied:  # nobody may list there: it is unknown
                return
            if any(file.endswith(end) for file in log):
                raise UserError(
                    f"manifest {uri}: belongs to {kind}, whose log in {name}/ says which rows "
                    f"are valid; export them to Parquet: {export}"
                )


def _table_folders(folder: str) -> Iterator[str]:
    """The folder itself, and above it those whose part it may be: of Hive, and Iceberg's data."""
    yield folder
    while "=" in (name := PurePosixPath(folder).name) or name == "data":
        folder = objects.parent(folder)
        yield folder


def _copy(uri: str, path: Path) -> Path:
    objects.fetch(uri, path)
    return path

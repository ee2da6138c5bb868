"""The results: one row per manifest row, the manifest's columns first, then what came of it.

The folder of the results is a Parquet dataset, partitioned as Hive does it, that pandas, DuckDB and
Spark read as it is; `batch.layout` has its folders.

A row that failed has null scores; a row that was scored has null `code`, `stage`, `message`; in a
row of status `none_found`, in whose image a locator found nothing, all of them are null.
Numbers are those of the online JSON, float64, not rounded. Which lesions a probability applies
to is in each file's metadata, under the key `given`: JSON of head -> the label column that must be
positive for it to mean anything, or null. What label sets promise is there under `label_sets`:
JSON of head -> {level, given, patients}, or null; the limit of the distance under
`out_of_distribution`: JSON {limit, false_alarms, patients}, or null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batch import layout
from batch.storage import objects

OK = "ok"
FAILED = "failed"
NONE_FOUND = "none_found"  # the locator found no RoI to score
NOT_REACHED = "not_reached"  # the code of a row before whose turn the run ended

STAGES = ("fetch", "preprocess", "inference")
"""What a row goes through, and may fail in."""

Row = dict[str, Any]
"""The result columns of one row; a missing key is a null."""


def fields(heads: Mapping[str, Sequence[str]], *, with_heatmaps: bool) -> list[pa.Field]:
    """List the result columns for an archive's heads (name -> labels), in the order written."""
    columns = [
        pa.field("status", pa.string()),
        pa.field("code", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("message", pa.string()),
        pa.field("roi_used", pa.list_(pa.int32())),
    ]
    for head, labels in heads.items():
        columns += [
            pa.field(f"{head}_probability", pa.float64()),
            pa.field(f"{head}_spread", pa.float64()),
            pa.field(f"{head}_label", pa.string()),
            pa.field(f"{head}_threshold", pa.float64()),
            pa.field(f"{head}_uncertain", pa.bool_()),
            pa.field(f"{head}_label_set", pa.list_(pa.string())),
        ]
        if len(labels) > 2:
            columns.append(pa.field(f"{head}_distribution", pa.map_(pa.string(), pa.float64())))
    columns += [
        pa.field("consistent", pa.bool_()),
        pa.field("warnings", pa.list_(pa.string())),
        pa.field("out_of_distribution", pa.bool_()),
        pa.field("out_of_distribution_distance", pa.float64()),
        pa.field("model_name", pa.string()),
        pa.field("model_version", pa.string()),
        pa.field("model_sha256", pa.string()),
        pa.field("engine", pa.string()),
        pa.field("image_etag", pa.string()),
        pa.field("scored_at", pa.timestamp("ms", "UTC")),
        *(pa.field(f"{stage}_ms", pa.float32()) for stage in STAGES),
    ]
    if with_heatmaps:
        columns += [pa.field(f"{head}_heatmap_uri", pa.string()) for head in heads]
    return columns


def scored(body: Mapping[str, Any], *, etag: str, heatmap_uris: Mapping[str, str]) -> Row:
    """Make the row of a success: `body` as the archive gave it, heat maps as head -> URI."""
    row: Row = {
        "status": OK,
        "roi_used": body["roi"],
        "consistent": body["consistent"],
        "warnings": body["warnings"],
        "model_name": body["model"]["name"],
        "model_version": body["model"]["version"],
        "model_sha256": body["model"]["sha256"],
        "engine": body["model"]["engine"],
        "image_etag": etag,
    }
    if (found := body["out_of_distribution"]) is not None:
        row["out_of_distribution"] = found["flagged"]
        row["out_of_distribution_distance"] = found["distance"]
    for head, result in body["heads"].items():
        row[f"{head}_probability"] = result["probability"]
        row[f"{head}_spread"] = result["spread"]
        row[f"{head}_label"] = result["label"]
        row[f"{head}_threshold"] = result["threshold"]
        row[f"{head}_uncertain"] = result["uncertain"]
        if result["label_set"] is not None:
            row[f"{head}_label_set"] = result["label_set"]["labels"]
        if "distribution" in result:
            row[f"{head}_distribution"] = list(result["distribution"].items())
    for head, uri in heatmap_uris.items():
        row[f"{head}_heatmap_uri"] = uri
    return row


def failed(code: str, stage: str, message: str) -> Row:
    """Make the row of a failure.

    `stage`: "fetch", "preprocess" or "inference". `message` must name neither object nor person.
    """
    return {"status": FAILED, "code": code, "stage": stage, "message": message}


def without_roi(why: str, code: str | None) -> Row:
    """Make the row of an image that has no RoI; `why` of `batch.manifest.checks.NO_ROI`."""
    if why == NONE_FOUND:
        return {"status": NONE_FOUND}
    message = "the locator could not read the image; run sonode locate propose again"
    return failed(code or "not_located", "fetch", message)


def table(shard: pa.Table, rows: Sequence[Row], columns: Sequence[pa.Field]) -> pa.Table:
    """Put the result `rows` beside the manifest rows of `shard`, one each, in order."""
    results = pa.Table.from_pylist(list(rows), schema=pa.schema(columns))
    for index, column in enumerate(columns):
        shard = shard.append_column(column, results.column(index))
    return shard


def parquet(data: bytes) -> pq.ParquetFile:
    """Open a part; a page whose bytes are not those that were written raises when it is read."""
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)


def parts_in(out_uri: str) -> list[str]:
    """List the parts of a folder of results: by date, by model, in the manifest's order."""
    return [uri for uri in objects.list_files(out_uri, deep=True) if layout.is_part(uri)]


def read(out_uri: str, wanted: Callable[[str], bool] = lambda name: True) -> pa.Table:
    """Read all results of a folder into one table: by date, by model, in the manifest's order.

    `wanted`: which columns, by name.

    Raises StorageError, and what Arrow raises for a file that is not a part, or damaged;
    `out_uri` must hold at least one part.
    """

    def part(uri: str) -> pa.Table:
        file = parquet(objects.read(uri).data)
        return file.read(columns=[*filter(wanted, file.schema_arrow.names)])

    return pa.concat_tables(map(part, parts_in(out_uri)), promote_options="default")

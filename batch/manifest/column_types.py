"""A manifest's columns: their names and types, every fault in one line with its remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

import pyarrow as pa

from sonode.files.parquet import ROI_COLUMNS

LOCATE_COLUMNS = ("locate_status", "locate_code")
TYPES = {
    "frame": pa.int64(),
    "roi": pa.list_(pa.float64()),
    **dict.fromkeys(ROI_COLUMNS, pa.float64()),
    "roi_proposed": pa.bool_(),
    "roi_confidence": pa.float64(),
}
"""Of columns that hold no value; all others are text then."""
UNITS = ("lesion_id", "study_id", "study_uid", "patient_id", "patient_key")
"""Columns that say which rows are of one lesion, study or patient."""


def schema_problems(schema: pa.Schema, reserved: Collection[str]) -> Iterator[str]:
    """Yield one line per fault of the columns' names and types."""
    names = schema.names
    for name, times in Counter(names).items():
        if times > 1:
            yield f"column {name!r} appears {times} times; keep one"
        if name.lower() in {other.lower() for other in reserved}:
            yield f"column {name!r} is the name of a result column; rename it"
    for lowered, times in Counter(name.lower() for name in set(names)).items():
        if times > 1:
            alike = sorted(name for name in set(names) if name.lower() == lowered)
            yield f"columns {alike} are the same column to DuckDB and Spark; rename all but one"
    if len(set(names)) < len(names):
        return
    if "image_uri" not in names:
        yield f"no column 'image_uri'; rename one of {names}, or add it"
    elif not is_text(schema.field("image_uri").type):
        yield f"column 'image_uri' holds {schema.field('image_uri').type}; write it as string"
    yield from _type_problems(schema)
    yield from _roi_problems(schema)


def _type_problems(schema: pa.Schema) -> Iterator[str]:
    for name, kind in zip(schema.names, schema.types, strict=True):
        if name in ("etag", *LOCATE_COLUMNS) and not is_text(kind, or_null=True):
            yield f"column {name!r} holds {kind}; write it as string"
        if name == "frame" and not is_number(kind, or_null=True):
            yield f"column 'frame' holds {kind}; write it as an integer"
        if name == "roi_confidence" and not is_number(kind, or_null=True):
            yield f"column 'roi_confidence' holds {kind}; write it as a number"
        if name == "roi_proposed" and not (pa.types.is_boolean(kind) or pa.types.is_null(kind)):
            yield f"column 'roi_proposed' holds {kind}; write it as true or false"
        if name in UNITS and (pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType)):
            yield f"column {name!r} holds {kind}; write one id in each row, as a string or a number"


def _roi_problems(schema: pa.Schema) -> Iterator[str]:
    names = schema.names
    given = [name for name in ROI_COLUMNS if name in names]
    if "roi" in names and given:
        yield f"both 'roi' and {given} are there; keep one form of the RoI"
    elif given and len(given) < 4:
        missing = [name for name in ROI_COLUMNS if name not in names]
        yield f"columns {given} without {missing}; give all four or none"
    else:
        for name in given:
            if not is_number(schema.field(name).type, or_null=True):
                yield f"column {name!r} holds {schema.field(name).type}; write it as a number"
        if "roi" in names and not is_number_list(schema.field("roi").type):
            kind = schema.field("roi").type
            yield f"column 'roi' holds {kind}; write it as a list of four numbers"


def is_text(kind: pa.DataType, *, or_null: bool = False) -> bool:
    """Whether a column of this type holds text; with `or_null`, or nothing at all."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type  # a pandas category
    if pa.types.is_null(kind):
        return or_null
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_number(kind: pa.DataType, *, or_null: bool = False) -> bool:
    """Whether a column of this type holds numbers; with `or_null`, or nothing at all."""
    if pa.types.is_null(kind):
        return or_null
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(is_kind(kind) for is_kind in kinds)


def is_number_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists of numbers, or nothing at all."""
    if pa.types.is_null(kind):
        return True
    return is_list(kind) and is_number(kind.value_type)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_a(kind) for is_a in lists)

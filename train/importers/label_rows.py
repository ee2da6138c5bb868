"""One row of a table of labels: its ids, labels and box, each a fault of the draft if wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model_def.preprocessing import RoI
from sonode.console import UserError
from sonode.files.parquet import ROI_COLUMNS
from train.importers.column_kinds import Parser
from train.importers.draft import Draft
from train.tables.records import Records
from train.tables.texts import spelt_id, spelt_label
from train.tables.values import file_path, identifier, truth, whole

LABELS = "labels.csv"


def read_labels(
    draft: Draft, record: Mapping[str, str], further: Mapping[str, Parser]
) -> dict[str, object]:
    """The labels, the device and the further columns of a record that is added next."""
    values: dict[str, object] = {
        "malignant": draft.parse("malignant", truth, record.get("malignant", "")),
        "alnm": draft.parse("alnm", truth, record.get("alnm", "")),
        "n_nodes": draft.parse("n_nodes", whole, record.get("n_nodes", "")),
        "device": draft.parse("device", spelt_label, record.get("device", "")),
    }
    if not record.get("alnm") and isinstance(nodes := values["n_nodes"], int):
        values["alnm"] = nodes > 0
        draft.note("rows have n_nodes and a blank alnm, which follows from it")
    for column, parser in further.items():
        values[column] = draft.parse(column, parser, record[column])
    return values


def read_id(draft: Draft, records: Records, row: Mapping[str, str], column: str) -> str:
    """An id in its one spelling, "" with a fault where it has none; an image's path as it is."""
    if column in records.floating:
        # The split depends on the id's text: 7 and 7.0 are one patient, whatever type held them.
        return draft.parse(column, identifier, row[column]) or ""
    return draft.parse(column, file_path if column == "image" else spelt_id, row[column]) or ""


def has_boxes(records: Records, source: Path) -> bool:
    """Whether a table has the columns of boxes. Raises UserError where it has some of them."""
    given = [column for column in ROI_COLUMNS if column in records.columns]
    if given and len(given) < len(ROI_COLUMNS):
        raise UserError(f"SRC {source.name}: {', '.join(given)} without the others; give all four")
    return bool(given)


def box_in_row(draft: Draft, record: Mapping[str, str], _: Path | None = None) -> list[RoI]:
    """The box of a row of the table, none where a corner is blank or wrong."""
    corners = [draft.parse(column, whole, record[column]) for column in ROI_COLUMNS]
    known = [corner for corner in corners if corner is not None]
    return [RoI(*known)] if len(known) == len(ROI_COLUMNS) else []

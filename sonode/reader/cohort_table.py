"""What readers said of a run's images, as a table that `sonode import csv` takes.

Labels are in columns of their own, `reader_HEAD`: what a reader says is no histology, and agreement
is with a score that was seen. `malignant` and its like are the import's columns of the truth, and
are not written.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from batch.manifest.read import requests
from sonode.console import UserError, say
from sonode.files.parquet import ROI_COLUMNS
from sonode.reader.judgements.judging import CANNOT
from sonode.reader.judgements.record import named, read
from sonode.reader.judgements.study import Key, key_in
from sonode.reader.results import read_columns
from sonode.reader.sources import frames_in

PATIENTS = ("patient_id", "patient_key")
_OF_ROW = {"image_uri", "image_etag", "roi_used", "frame", "lesion_id", *PATIENTS}


class _Said(NamedTuple):
    """What a reader said of a head."""

    label: str | None
    """None where the reader cannot judge, or names none in place of the model's."""
    word: str


class _Place(NamedTuple):
    """Where an image is, and whose."""

    path: Path
    loop: bool
    """Whether it has several frames."""
    patient: str
    lesions: Mapping[Key, str]
    """Of the rows that name one."""


def cohort_table(file: Path, run: str, folder: str, *, first: bool = False) -> pd.DataFrame:
    """One row for each image, frame and box that readers judged, with the label of each head.

    `reader_HEAD` is the label of all readers who judged, empty where they differ or there is none;
    `reader_HEAD_said` counts what they said. The last word of each reader counts; of readers who
    are not named each word does, since nobody knows whose it replaces. What is left out is told.
    `folder`: where relative image_uris of the run begin. `first`: only the readings of a study
    before its scores were shown.

    Raises UserError: no such record or run, a run without patients, or no reading is left.
    """
    lines = [it for it in read(file, "READING") if not first or it["stage"] == "before"]
    said: dict[Key, dict[str, dict[str, _Said]]] = {}
    replaced = 0
    for line in lines:
        its = _said(line)
        of_head = said.setdefault(key_in(line), {}).setdefault(line["head"], {})
        who = named(line) or f"nobody, {its.word}"
        replaced += its != of_head.get(who, its)
        of_head[who] = its
    if not said:
        what = "readings of a study before its scores" if first else "answers"
        raise UserError(f"READING {file}: has no {what}; read some with `sonode reader --record`")
    places, left_out = _places({key.image for key in said}, run, folder)
    rows = [_row(key, places[key.image], said[key]) for key in said if key.image in places]
    for why, images in left_out.items():
        say(f"left out: judged boxes ({sum(key.image in images for key in said)}): {why}")
    if not rows:
        raise UserError(f"READING {file}: no judged box is left of the images of --run {run}")
    if replaced:
        say(f"answers replaced by a later one of the same reader: {replaced}")
    for head in dict.fromkeys(head for its in said.values() for head in its):
        _tell(head, [its[head] for key, its in said.items() if head in its and key.image in places])
    return pd.DataFrame(rows)


def _said(line: Mapping[str, Any]) -> _Said:
    label = line["reader_label"]
    if label is not None or line["verdict"] == CANNOT:
        return _Said(label, label or CANNOT)
    return _Said(None, f"not {line['label']}")


def _label(said: Mapping[str, _Said]) -> str | None:
    """The label that all who judged give."""
    found = {it for it in said.values() if it.word != CANNOT}
    return found.pop().label if len(found) == 1 else None


def _row(key: Key, place: _Place, said: Mapping[str, Mapping[str, _Said]]) -> dict[str, Any]:
    own = "_".join(map(str, (key.image[:16], key.frame, *key.roi)))  # the import's has the path
    row: dict[str, Any] = {
        "patient_id": place.patient,
        "lesion_id": place.lesions.get(key, own),
        "image": f"{place.path}#frame={key.frame}" if place.loop else str(place.path),
        **dict(zip(ROI_COLUMNS, key.roi, strict=True)),
    }
    for head, its in said.items():
        row[f"reader_{head}"] = _label(its)
        counts = sorted(Counter(it.word for it in its.values()).items())
        row[f"reader_{head}_said"] = ", ".join(f"{count} {word}" for word, count in counts)
    return row


def _tell(head: str, said: Sequence[Mapping[str, _Said]]) -> None:
    """Say how many boxes have a label, and why the others have none."""
    judged = [{it for it in its.values() if it.word != CANNOT} for its in said]
    differ, none = (sum(len(it) > 1 for it in judged), sum(not it for it in judged))
    labels = sum(_label(its) is not None for its in said)
    say(
        f"reader_{head}: {labels} labels; empty where readers differ ({differ}), where none can "
        f"judge ({none}), and where a reader names no label ({len(said) - labels - differ - none})"
    )


def _places(
    wanted: set[str], run: str, folder: str
) -> tuple[dict[str, _Place], dict[str, set[str]]]:
    """Image's SHA-256 -> its place; why others have none -> those."""
    table = read_columns(run, _OF_ROW)
    patient = next((it for it in PATIENTS if it in table.column_names), None)
    if patient is None:
        raise UserError(
            f"--run {run}: has no {' or '.join(PATIENTS)}, by which a cohort is split; add it to "
            "the manifest and score again"
        )
    etags = pa.array([f"sha256:{it}" for it in wanted], pa.string())
    table = table.filter(pc.is_in(table["image_etag"], etags))
    rows: dict[str, list[tuple[dict[str, Any], str]]] = defaultdict(list)
    for row, asked in zip(table.to_pylist(), requests(table, folder), strict=True):
        rows[row["image_etag"].removeprefix("sha256:")].append((row, asked.image_uri))
    places, left_out = {}, defaultdict(set)
    for image in wanted:
        found = _place(image, rows[image], patient)
        if isinstance(found, _Place):
            places[image] = found
        else:
            left_out[found].add(image)
    return places, left_out


def _place(image: str, rows: Sequence[tuple[dict[str, Any], str]], patient: str) -> _Place | str:
    """Of an image with this SHA-256, or why it has none."""
    if not rows:
        return "the run has no such image (of those in s3://, score copies on this machine)"
    patients = {_id(row[patient]) for row, _ in rows}
    whose = patients.pop()
    if patients or whose is None:
        return "the run names no patient of the image, or several"
    lesions = {
        Key(image, int(row.get("frame") or 0), tuple(row["roi_used"])): lesion
        for row, _ in rows
        if row["roi_used"] is not None and (lesion := _id(row.get("lesion_id"))) is not None
    }
    why = "the image cannot be read; check --images"
    for path in dict.fromkeys(Path(uri) for _, uri in rows):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        if hashlib.sha256(data).hexdigest() == image:
            return _Place(path, frames_in(data) > 1, whose, lesions)
        why = "the image has changed since it was judged"
    return why


def _id(value: object) -> str | None:
    """As a cohort writes it: 7 where Parquet has 7.0, as beside a missing one; None where blank."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None

"""What a reader study says: sensitivity and specificity without the scores and with them.

The truth is a cohort's. A reading belongs to the row of the cohort with its pixels and its box, or,
where the image has one box there, to that one. Intervals and p-values draw whole patients; over
several readers they hold for these readers, since readers are not drawn.

Shapes in names: N readings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from archives.packing.members import file_sha256, read_members
from model_def.heads import HeadSpec
from sonode.console import UserError, say, table
from sonode.files.parquet import ROI_COLUMNS
from sonode.measure_text import p_value, with_interval
from sonode.reader.judgements.record import named, read
from train.cohorts.cohort import load_cohort
from train.cohorts.labels import label_matrix, primary_sets
from train.comparing.paired import paired_rates
from train.measures.binary_head import measure_subgroup
from train.measures.measure import Json, Resampling

CASE = ["who", "image_sha256", "frame", *ROI_COLUMNS]
ALL = "all readers"


def study(file: Path, cohort_folder: Path, archive: Path, how: Resampling) -> Json:
    """Measure each binary head of `archive` for each reader, and for all of them together.

    Gives `left_out` (reason -> readings of a head) and `rates`: `with` and `without` the scores,
    each with its interval, and `difference`, with minus without.

    Raises UserError: no study, no cohort, or labels that are not the archive's.
    """
    heads = [HeadSpec.model_validate(head) for head in read_members(archive)[1]["heads"]]
    pairs, left_out = _pairs(file, file_sha256(archive))
    rows, unknown = _rows(pairs, load_cohort(cohort_folder).table)
    left_out["the cohort has no such image and box"] = unknown
    truth = pd.DataFrame(label_matrix(rows, heads).numpy(), columns=[head.name for head in heads])
    # As `primary_sets` names columns; one such as `malignant` has no head where ALNM is alone.
    marked = rows.assign(**{f"{name}_truth": truth[name] == 1 for name in truth})
    sets = primary_sets({head.name: head.model_dump() for head in heads})
    rates: list[Json] = []
    for head in heads:
        if head.categorical:
            say(f"{head.name}: has {len(head.labels)} labels: not measured")
            continue
        of_head = (rows["head"] == head.name).to_numpy()
        if odd := {*rows.loc[of_head, ["before", "after"]].stack()} - {*head.labels}:
            raise UserError(f"READING: {head.name}: {', '.join(sorted(odd))}: not of this archive")
        if head.name in sets:
            column = sets[head.name][1]
            if column not in marked:
                raise UserError(
                    f"COHORT: has no column `{column}`, on which {head.name} is measured"
                )
            of_head = of_head & marked[column].fillna(False).to_numpy(bool)
        known_N = of_head & truth[head.name].notna().to_numpy()
        left_out[f"{head.name}: no label in the cohort"] = int((of_head & ~known_N).sum())
        readers = sorted(set(rows["who"][known_N]))
        for who in [*readers, *([ALL] if len(readers) > 1 else [])]:
            chosen_N = known_N & (True if who == ALL else (rows["who"] == who).to_numpy())
            rates += _rates(rows[chosen_N], truth[chosen_N], head, who, how)
    return {"left_out": {why: count for why, count in left_out.items() if count}, "rates": rates}


def show(found: Json) -> None:
    """Print the rates as a table, and what was left out."""
    lines = [
        (
            *(its["head"], its["reader"], its["rate"]),
            *(str(its["readings"]), str(its["patients"])),
            *(with_interval(its[name]) for name in ("without", "with")),
            with_interval(its["difference"], sign=True),
            p_value(its["difference"].get("p_value")),
        )
        for its in found["rates"]
    ]
    columns = ["head", "reader", "rate", "n", "patients", "without", "with", "difference"]
    title = "Readings without the scores and with them (95 %); whole patients drawn, p unadjusted"
    table(title, [*columns, "p"], lines)
    for why, count in found["left_out"].items():
        say(f"left out: {count} readings of a head: {why}")


def write(found: Json, path: Path) -> None:
    """Write it as JSON."""
    path.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")


def _pairs(file: Path, digest: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row for each case and head with both readings as labels, and what has not both.

    `digest`: of the archive, whose scores count.
    """
    said = [{**line, "who": named(line)} for line in read(file, "READING") if line["stage"]]
    if not said:
        raise UserError(f"READING {file}: has no study; make one with `sonode reader --study`")
    lines = pd.DataFrame(said)
    key = [*CASE, "pixels_sha256", "head"]
    if twice := int(lines.duplicated([*key, "stage"]).sum()):
        raise UserError(f"READING {file}: {twice} readings are there twice; take them out")
    other_N = ((lines["stage"] == "after") & (lines["model_sha256"] != digest)).to_numpy()
    key_N = pd.MultiIndex.from_frame(lines[key])
    lines = lines[~key_N.isin(key_N[other_N])]
    labels = (
        lines["reader_label"].fillna("").set_axis(pd.MultiIndex.from_frame(lines[[*key, "stage"]]))
    )
    both = labels.unstack("stage").reindex(columns=["before", "after"])
    whole = both.notna().all(axis=1)
    judged = whole & (both != "").all(axis=1)
    left_out = {
        "the second reading is missing": int((~whole).sum()),
        **_not_judged(both[whole & ~judged]),
        "its scores were of another archive": int(other_N.sum()),
    }
    return both[judged].reset_index(), left_out


def _not_judged(both: pd.DataFrame) -> dict[str, int]:
    """How many readings of each head each reader could not judge, and when."""
    found = {}
    for (head, who), its in both.groupby(level=["head", "who"]):
        without, also = (its[stage] == "" for stage in ("before", "after"))
        found[f"{head}, {who}: cannot judge without the scores alone"] = int(
            (without & ~also).sum()
        )
        found[f"{head}, {who}: cannot judge with the scores alone"] = int((also & ~without).sum())
        found[f"{head}, {who}: cannot judge either time"] = int((without & also).sum())
    return found


def _rows(pairs: pd.DataFrame, cohort: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The cohort's columns beside each pair (N), and how many pairs it does not have."""
    of_pixels = cohort.groupby("pixels_sha256").indices
    places: list[int | None] = []
    for pair in pairs.to_dict("records"):
        at = of_pixels.get(pair["pixels_sha256"], np.array([], int))
        if len(at) > 1:
            box = [pair[name] for name in ROI_COLUMNS]
            at = at[(cohort[[*ROI_COLUMNS]].iloc[at] == box).all(axis=1).to_numpy(bool)]
        places.append(int(at[0]) if len(at) == 1 else None)
    found = pd.Series(places, dtype="Int64")
    there = found.notna().to_numpy()
    own = cohort.drop(columns=[*ROI_COLUMNS, "pixels_sha256"]).iloc[found[there].astype(int)]
    own = own.rename(columns={name: f"cohort_{name}" for name in own if name in pairs})
    rows = pd.concat([pairs[there].reset_index(drop=True), own.reset_index(drop=True)], axis=1)
    lesions = pairs.loc[there, ["who", "head"]].assign(place=found[there])
    if twice := int(lesions.duplicated().sum()):
        raise UserError(
            f"READING: {twice} readings are of a lesion of which the same reader has others, in "
            "another frame or box; take one of them out"
        )
    return rows, int((~there).sum())


def _rates(
    rows: pd.DataFrame, truth: pd.DataFrame, head: HeadSpec, who: str, how: Resampling
) -> list[Json]:
    truth_N = (truth[head.name] == 1).to_numpy()
    calls: list[Any] = [
        (rows[stage] == head.labels[1]).to_numpy().astype(np.float64)
        for stage in ("after", "before")
    ]
    patient_N = rows["patient_id"].to_numpy()
    alone = [measure_subgroup(truth_N, call_N, patient_N, 0.5, how) for call_N in calls]
    both = paired_rates(rows, truth_N, calls, (0.5, 0.5), "image", "mean", how)
    return [
        {
            **{"head": head.name, "reader": who, "rate": rate},
            "readings": its["rows"],
            "patients": len(set(patient_N[truth_N == (rate == "sensitivity")])),
            "with": alone[0][rate],
            "without": alone[1][rate],
            **{name: its[name] for name in ("difference", "mcnemar_p")},
            "right_with_alone": its["lost"],
            "right_without_alone": its["gained"],
        }
        for rate, its in both.items()
    ]

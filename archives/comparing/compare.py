"""Two archives on one manifest: what each says of every row, row beside row.

`a` is what is there, `b` what may take its place. A row is named by its place in the manifest, from
0, and by no more than the columns that the user asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from archives.comparing.compare_policy import ONLY_IN_B
from archives.comparing.process import Side
from archives.packing.loader import Description
from batch import prepare
from batch.manifest.read import Request, requests
from batch.report import drift
from batch.results import schema
from batch.storage import objects
from sonode.console import UserError
from sonode.files.parquet import ROI_COLUMNS

ASKED = ("image_uri", "etag", "frame", "roi", *ROI_COLUMNS)
"""Columns of a manifest that say what to score."""

Json = dict[str, Any]
Frame = pd.DataFrame


class Pair(NamedTuple):
    """The results of both, of all rows of the manifest, in its order, with its truth.

    Columns: those of `score`, NAME_truth of each head, and patient_id.
    """

    a: Frame
    b: Frame

    @property
    def scored(self) -> tuple[Frame, Frame]:
        """The rows that both have scored; the index is the row of the manifest."""
        both = (self.a["status"] == schema.OK) & (self.b["status"] == schema.OK)
        return self.a[both], self.b[both]


def common_heads(
    a: Description, b: Description
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """The heads that both have, with their labels; and of the others, why they are left out.

    Raises UserError where there is none in common.
    """
    left_out = {name: "only in A" for name in a.heads if name not in b.heads}
    left_out |= {name: ONLY_IN_B for name in b.heads if name not in a.heads}
    shared = [name for name in a.heads if name in b.heads]
    left_out |= {name: "other labels in B" for name in shared if a.heads[name] != b.heads[name]}
    heads = {name: tuple(a.heads[name]) for name in shared if name not in left_out}
    if not heads:
        which = ", ".join(f"{name} {why}" for name, why in left_out.items())
        raise UserError(f"A and B have no head in common ({which}); nothing to compare")
    return heads, left_out


def check_explain(explain: str, about: Mapping[str, Description]) -> None:
    """Raise UserError unless both have the method and the heads of METHOD[:HEAD,HEAD]."""
    for side, it in about.items():
        try:
            prepare.check_explain(explain, it)
        except UserError as error:
            raise UserError(f"{side.upper()}: {error}") from None


def columns(table: pa.Table, carried: Sequence[str]) -> Frame:
    """A manifest as a frame. Raises UserError for a column to carry that it does not have."""
    for name in carried:
        if name not in table.column_names:
            known = ", ".join(table.column_names)
            raise UserError(f"--carry {name}: not a column of the manifest, which has {known}")
    frame: Frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def identity(about: Description) -> Json:
    """Name, version, digest and engine."""
    names = ("name", "version", "sha256", "engine")
    return {name: getattr(about, name) for name in names}


def score(side: Side, manifest: str, out: Path, heads: Mapping[str, Sequence[str]]) -> Frame:
    """Score the manifest into `out`; give status, code, stage, consistent and the heads' columns.

    Of a binary head NAME_probability, of a categorical one NAME_probability_LABEL; NAME_label.
    """
    side.score(manifest, out)
    table = schema.read(str(out))
    found = {name: table[name] for name in ("status", "code", "stage", "consistent")}
    for head, labels in heads.items():
        found[f"{head}_label"] = table[f"{head}_label"]
        if len(labels) == 2:
            for name in (f"{head}_probability", f"{head}_threshold"):
                found[name] = table[name]
            continue
        rows = [dict(row or ()) for row in table[f"{head}_distribution"].to_pylist()]
        for label in labels:
            values = [row.get(label) for row in rows]
            found[f"{head}_probability_{label}"] = pa.array(values, pa.float64())
    frame: Frame = pa.table(found).to_pandas()
    return frame


def failures(pair: Pair) -> Json:
    """How many rows both fail, and each row that one of them alone fails, with its code."""
    failed_a, failed_b = (frame["status"] == schema.FAILED for frame in pair)

    def of(frame: Frame, rows: pd.Series) -> list[Json]:
        chosen = frame[rows]
        return [
            {"row": row, "code": code, "stage": stage}
            for row, code, stage in chosen[["code", "stage"]].itertuples()
        ]

    return {
        "both": int((failed_a & failed_b).sum()),
        "a_only": of(pair.a, failed_a & ~failed_b),
        "b_only": of(pair.b, failed_b & ~failed_a),
    }


def drifts(pair: Pair) -> dict[str, dict[str, float]]:
    """PSI and KS from the scores of a to those of b (see `drift`), by probability column."""
    a, b = pair.scored
    found = {}
    for column in (name for name in a.columns if "_probability" in str(name)):
        if not len(a):
            continue
        counts = [drift.histogram(frame[column].tolist()) for frame in (a, b)]
        score = str(column).replace("_probability_", "=").removesuffix("_probability")
        found[score] = drift.compared(*counts)
    return found


def flips(pair: Pair, heads: Mapping[str, Sequence[str]], named: Frame) -> list[Json]:
    """Every row and head that the two call differently, the largest change of probability first.

    `named`: columns of the manifest to list with each.
    """
    a, b = pair.scored
    found = []
    for head, labels in heads.items():
        for row in a.index[a[f"{head}_label"] != b[f"{head}_label"]]:
            label = str(b.at[row, f"{head}_label"])
            column = f"{head}_probability" + (f"_{label}" if len(labels) > 2 else "")
            carried = {name: _plain(named.at[row, name]) for name in named.columns}
            sides = {
                name: {
                    "label": str(frame.at[row, f"{head}_label"]),
                    "probability": _plain(frame.at[row, column]),
                }
                for name, frame in (("a", a), ("b", b))
            }
            truth = _plain(a.at[row, f"{head}_truth"])
            if truth is not None and len(labels) == 2:
                truth = labels[truth]
            flip = {"row": int(row), "carried": carried, "head": head, "truth": truth}
            found.append(flip | sides)

    def order(flip: Json) -> tuple[float, int]:
        return -abs(flip["b"]["probability"] - flip["a"]["probability"]), flip["row"]

    return sorted(found, key=order)


def heat_maps(
    sides: Mapping[str, Side],
    manifest: pa.Table,
    folder: str,
    shown: Sequence[Json],
    explain: str,
    work: Path,
    out: Path,
) -> None:
    """Explain the flips by both; write OUT/heatmaps/row-R-HEAD-SIDE.png and name it in the flip.

    `folder`: where relative image_uris of the manifest begin. `work`: for what passes.
    """
    rows = sorted({flip["row"] for flip in shown})
    if not rows:
        return
    asked = manifest.select([name for name in ASKED if name in manifest.column_names]).take(rows)
    absolute = pa.array([it.image_uri for it in requests(asked, folder)])
    place = asked.column_names.index("image_uri")
    uri = work / "flips.parquet"
    pq.write_table(asked.set_column(place, "image_uri", absolute), uri)
    (out / "heatmaps").mkdir()
    for name, side in sides.items():
        explained = work / f"flips-{name}"
        side.score(str(uri), explained, explain)
        table = schema.read(str(explained))
        for flip in shown:
            source = table[f"{flip['head']}_heatmap_uri"][rows.index(flip["row"])].as_py()
            if source is not None:  # --explain may name some heads only
                target = f"heatmaps/row-{flip['row']}-{flip['head']}-{name}.png"
                (out / target).write_bytes(objects.read(source).data)
                flip[name]["heatmap"] = target


def timed(table: pa.Table, folder: str, pair: Pair, images: int) -> list[Request]:
    """As many images as asked for, evenly spaced over those that both have scored."""
    rows = pair.scored[0].index.tolist()
    count = min(images, len(rows))
    chosen = [rows[number * len(rows) // count] for number in range(count)]
    return requests(table.take(pa.array(chosen, pa.int64())), folder)


def beside(pair: Pair, named: Frame) -> Frame:
    """All rows: the user's columns, then the results of each with `a_` or `b_` before the name."""
    sides = [
        frame.drop(columns="patient_id").add_prefix(prefix)
        for frame, prefix in ((pair.a, "a_"), (pair.b, "b_"))
    ]
    return pd.concat([named, *sides], axis=1).rename_axis("manifest_row")


def _plain(value: Any) -> Any:
    """As JSON takes it."""
    if not pd.api.types.is_scalar(value):  # the list of a RoI
        return str(value)
    if pd.isna(value):
        return None
    value = getattr(value, "item", lambda: value)()  # of NumPy's scalars, Python's
    return value if isinstance(value, bool | int | float) else str(value)

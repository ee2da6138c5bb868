"""No image and no patient that a network learned from may be evidence for it.

Its checkpoint knows them: the exact hash of each image, a perceptual one, and a keyed hash of the
patient's id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sonode.console import UserError, counted, say
from sonode.files.parquet import file_bytes
from train.cohorts.cohort import Cohort
from train.cohorts.similar.near_duplicates import (
    BITS,
    SAME,
    SIMILAR,
    Bytes,
    hashes,
    most_similar,
    stack,
)
from train.cohorts.split import Part
from train.data.datamodule import ALL, CohortData

IMAGES = "images.parquet"  # beside the weights; not packed into an archive
LEARNED: dict[str, tuple[Part, ...]] = {
    "val": ("train",),
    "test": ("train", "val"),
    "all": ("train", "val"),
    "external": ("train", "val", "test"),  # what else is in that cohort is not external
}
"""Parts of the training's split that an evaluated part must share no image with."""
WHOLE = ("all", "external")
"""Of a cohort of other patients: parts that are all of it."""
_SCHEMA = pa.schema(
    [
        pa.field("pixels_sha256", pa.string()),
        pa.field("part", pa.string()),
        pa.field("looks", pa.binary(BITS // 8)),
        pa.field("key", pa.binary(32)),
        pa.field("patient", pa.binary(16)),
    ]
)


def images_of(data: CohortData, before: pa.Table | None = None) -> bytes:
    """The content of `IMAGES`: each image of the split with its part, and those of `before`.

    `looks` is of `near_duplicates.hashes`. `patient` is keyed by `key`, the cohort's digest, so
    that equal ids of two cohorts have other hashes: it hides ids from a reader, not from one who
    tries them. `before`: of `seen_before`.
    """
    cohort, key = data.cohort, bytes.fromhex(data.cohort.sha256)
    rows = [(index, part) for part, indices in data.indices.items() for index in indices]
    table = cohort.table
    found = {
        (
            str(table["pixels_sha256"].iloc[index]),
            part,
            looks.tobytes(),
            key,
            _patient(str(table["patient_id"].iloc[index]), key),
        )
        for (index, part), looks in zip(rows, _looks(cohort, [it for it, _ in rows]), strict=True)
    }
    images = pa.Table.from_pylist(
        [dict(zip(_SCHEMA.names, row, strict=True)) for row in sorted(found)], _SCHEMA
    )
    if before is not None:
        images = pa.concat_tables([images, before])
    return file_bytes(images)


def _looks(cohort: Cohort, rows: list[int]) -> Bytes:
    """Perceptual hashes of the rows' images (rows, bytes)."""
    images = [str(cohort.table["image"].iloc[row]) for row in rows]
    once = list(dict.fromkeys(images))
    place = {image: order for order, image in enumerate(once)}
    return hashes(stack(cohort.thumbnails[image] for image in once))[[place[it] for it in images]]


def _patient(patient_id: str, key: bytes) -> bytes:
    return hashlib.blake2b(patient_id.encode(), key=key, digest_size=16).digest()


def part_to_evaluate(
    folder: Path, cohort_folder: Path, part: str, what: str, trained_on: Mapping[str, Any]
) -> tuple[CohortData, Part, bool]:
    """The part of a cohort that a network in `folder` is evaluated on: data, its name in them.

    `part`: of the split, or one of `WHOLE`: then no row is held out, and all are in `train`.
    `what`: checkpoint or locator. `trained_on`: sha256, split_seed and folds of its cohort.

    Returns also whether the network's images were known, see `check_unseen`.

    Raises UserError: the cohort has faults, the part is empty, or it shows what was trained on.
    """
    whole = part in WHOLE
    data = CohortData(
        cohort_folder,
        split_seed=trained_on["split_seed"],
        folds=None if whole else trained_on.get("folds"),
        fold=ALL if whole else trained_on.get("fold"),
    )
    if whole and data.cohort.sha256 == trained_on["sha256"]:
        option, remedy = (
            ("--part all", "give --part test, or another cohort")
            if part == "all"
            else ("external cohort", "give another one")
        )
        raise UserError(
            f"{option}: {cohort_folder} is the cohort that the {what} was trained on; {remedy}"
        )
    name = cast(Part, "train" if whole else part)
    if not (rows := data.rows_of(name)):
        raise UserError(
            f"COHORT {cohort_folder}: no patient falls into the {part} part of the {what}'s "
            "split; give --part all where these are patients that it was not trained on"
        )
    return data, name, check_unseen(folder, data, part, rows)


def check_unseen(checkpoint: Path, data: CohortData, part: str, rows: Iterable[int]) -> bool:
    """Refuse to evaluate on images or patients that the checkpoint was trained or chosen on.

    An image may be stored again, as another file of other pixels, and a patient of a later cohort
    may have another name; the split sees neither. A checkpoint whose `IMAGES` is absent cannot be
    checked so, which is reported.

    Returns whether there was an `IMAGES` to check by.

    Raises UserError: `IMAGES` is damaged, or rows show what was learned from; all rows are listed.
    """
    known = _read(checkpoint)
    if known is None:
        return False
    if why := _seen(known, data, part, rows):
        of = "of the cohort " if part == "external" else ""
        raise UserError(
            f"COHORT {data.cohort_folder}: images or patients {of}that the checkpoint was "
            f"trained on are no evidence; remove {counted(len(why), 'row')} of part {part} "
            f"{_CHANCE}",
            why,
        )
    return True


_CHANCE = "(patients of another hospital whose ids are the same by chance: give its ids a prefix)"


def seen_before(weights: Path, data: CohortData, parts: Mapping[Part, Iterable[int]]) -> pa.Table:
    """What a checkpoint learned from whose `weights` a training starts with, as its training part.

    The network that comes of it has seen those images, too. Rows by part, val and test, must be
    none of them.

    Raises UserError: as `check_unseen`.
    """
    known = _read(weights.parent)
    if known is None:
        return _SCHEMA.empty_table()
    for part, rows in parts.items():
        if why := _seen(known, data, part, rows):
            raise UserError(
                f"model.weights {weights}: were trained on images or patients of "
                f"{counted(len(why), 'row')} of part {part}; give other weights, or the "
                f"split_seed of that training {_CHANCE}",
                why,
            )
    learned = known.filter(pc.is_in(known["part"], pa.array(LEARNED["test"])))
    place = learned.column_names.index("part")
    return learned.set_column(place, _SCHEMA.field("part"), pa.array(["train"] * len(learned)))


def _read(checkpoint: Path) -> pa.Table | None:
    """`IMAGES` of a checkpoint; None where there is none, which is reported."""
    path = checkpoint / IMAGES
    if not path.is_file():
        say(f"CHECKPOINT {checkpoint}: has no {IMAGES}; not checked: whether it saw these images")
        return None
    try:
        return pq.read_table(path, page_checksum_verification=True).select(_SCHEMA.names)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(
            f"CHECKPOINT {checkpoint}: its {IMAGES} is damaged, or of another version of sonode; "
            "copy the checkpoint again, or train again"
        ) from error


def _seen(known: pa.Table, data: CohortData, part: str, rows: Iterable[int]) -> list[str]:
    """The rows of which the image or the patient is among what a part must not know, and why."""
    learned = known.filter(pc.is_in(known["part"], pa.array(LEARNED[part])))
    table, chosen = data.cohort.table, sorted(rows)
    pixels, ids = (table[name].to_numpy(dtype=object) for name in ("pixels_sha256", "patient_id"))
    exact = set(learned["pixels_sha256"].to_pylist())
    why = {row: "image: the same pixels" for row in chosen if pixels[row] in exact}
    # Of its own images the training knew by their thumbnails; this here is an estimate.
    judged = set(known["pixels_sha256"].to_pylist())
    new = [row for row in chosen if pixels[row] not in judged]
    others = np.frombuffer(b"".join(learned["looks"].to_pylist()), np.uint8)
    nearest = most_similar(_looks(data.cohort, new), others.reshape(-1, BITS // 8))
    likeness = dict(zip(new, nearest, strict=True))
    limit = SAME if data.cohort.patient_ids else SIMILAR
    for row, similarity in likeness.items():
        if similarity >= limit:
            why.setdefault(row, f"image: a similar one (about {similarity:.3f})")
    patients = set(learned["patient"].to_pylist())
    for key in learned["key"].unique().to_pylist():
        for row in chosen:
            if _patient(str(ids[row]), key) in patients:
                why.setdefault(row, "patient_id: of that patient")
    alike = [row for row, it in likeness.items() if it >= SIMILAR and row not in why]
    if alike:
        say(
            f"COHORT {data.cohort_folder}: similar to images that were learned from (about "
            f"{SIMILAR} or more), so no evidence if they show the same lesions: "
            f"{counted(len(alike), 'row')} of part {part}: {', '.join(map(str, alike))}"
        )
    return [f"row {row}, {why[row]}" for row in sorted(why)]

"""No image and no patient that a network learned from may be evidence for it.

Its checkpoint knows them: the exact hash of each image, a perceptual one, and a keyed hash of the
patient's id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sonode_console import UserError, say
from train.cohort import Cohort
from train.datamodule import CohortData
from train.near_duplicates import BITS, SIMILAR, hashes, most_similar, stack
from train.split import Part

IMAGES = "images.parquet"  # beside the weights; not packed into an archive
KEY = b"sonode.key"
LEARNED: dict[str, tuple[Part, ...]] = {
    "val": ("train",),
    "test": ("train", "val"),
    "all": ("train", "val"),
}
"""Parts of the training's split that an evaluated part must share no image with."""
_SCHEMA = pa.schema(
    [
        pa.field("pixels_sha256", pa.string()),
        pa.field("part", pa.string()),
        pa.field("looks", pa.binary(BITS // 8)),
        pa.field("patient", pa.binary(16)),
    ]
)


def images_of(data: CohortData) -> bytes:
    """The content of `IMAGES`: each image of the split with its part.

    `looks` is of `near_duplicates.hashes`. `patient` is keyed by the cohort's digest, so that equal
    ids of two cohorts have other hashes: it hides ids from a reader, not from one who tries them.
    """
    cohort, key = data.cohort, bytes.fromhex(data.cohort.sha256)
    rows = [(index, part) for part, indices in data.indices.items() for index in indices]
    table = cohort.table
    looks = _looks(cohort, [index for index, _ in rows])
    found = {
        (
            str(table["pixels_sha256"].iloc[index]),
            part,
            its.tobytes(),
            _patient(str(table["patient_id"].iloc[index]), key),
        )
        for (index, part), its in zip(rows, looks, strict=True)
    }
    columns = zip(*sorted(found), strict=True) if found else ([] for _ in _SCHEMA)
    schema = _SCHEMA.with_metadata({KEY: key})
    arrays = [pa.array(its, field.type) for its, field in zip(columns, _SCHEMA, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink, write_page_checksum=True)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _looks(cohort: Cohort, rows: list[int]) -> np.ndarray:
    """Perceptual hashes of the rows' images (rows, bytes)."""
    images = [str(cohort.table["image"].iloc[row]) for row in rows]
    once = list(dict.fromkeys(images))
    place = {image: order for order, image in enumerate(once)}
    return hashes(stack(cohort.thumbnails[image] for image in once))[[place[it] for it in images]]


def _patient(patient_id: str, key: bytes) -> bytes:
    return hashlib.blake2b(patient_id.encode(), key=key, digest_size=16).digest()


def check_unseen(checkpoint: Path, data: CohortData, part: str, rows: Iterable[int]) -> None:
    """Refuse to evaluate on images or patients that the checkpoint was trained or chosen on.

    An image may be stored anew, as another file of other pixels, and a patient of a later cohort
    may have another name; the split sees neither. A checkpoint whose `IMAGES` is absent, or of an
    earlier version, cannot be checked so, which is said.

    Raises:
        UserError: `IMAGES` is damaged, or rows show what was learned from; all rows are listed.
    """
    path = checkpoint / IMAGES
    if not path.is_file():
        say(f"CHECKPOINT {checkpoint}: holds no {IMAGES}; not checked: whether it saw these images")
        return
    try:
        known = pq.read_table(path, page_checksum_verification=True)
        learned = known.filter(pc.is_in(known["part"], pa.array(LEARNED[part])))
        exact = set(learned["pixels_sha256"].to_pylist())
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(
            f"CHECKPOINT {checkpoint}: its {IMAGES} is damaged; copy the checkpoint again"
        ) from error
    table, chosen = data.cohort.table, sorted(rows)
    why = {
        row: "image: the same pixels" for row in chosen if table["pixels_sha256"].iloc[row] in exact
    }
    if KEY in (known.schema.metadata or {}):
        key, patients = known.schema.metadata[KEY], set(learned["patient"].to_pylist())
        others = np.frombuffer(b"".join(learned["looks"].to_pylist()), np.uint8)
        nearest = most_similar(_looks(data.cohort, chosen), others.reshape(-1, BITS // 8))
        for row, similarity in zip(chosen, nearest, strict=True):
            if similarity >= SIMILAR:
                why.setdefault(row, f"image: a similar one (about {similarity:.3f})")
            if _patient(str(table["patient_id"].iloc[row]), key) in patients:
                why.setdefault(row, "patient_id: of that patient")
    else:
        say(
            f"CHECKPOINT {checkpoint}: its {IMAGES} is of an earlier version; not checked: similar "
            "images, and other images of the patients that it saw"
        )
    if why:
        raise UserError(
            f"COHORT {data.cohort_folder}: {len(why)} rows of part {part} show images or patients "
            "that the checkpoint was trained on, so they are no evidence; take them out of the "
            "cohort (of another hospital whose ids are the same by chance: give its ids a prefix)",
            [f"row {row}, {why[row]}" for row in sorted(why)],
        )

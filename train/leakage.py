"""No image that a network learned from may be evidence for it: its checkpoint knows them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from sonode_console import UserError, say
from train.datamodule import CohortData
from train.split import Part

IMAGES = "images.parquet"  # beside the weights; not packed into an archive
LEARNED: dict[str, tuple[Part, ...]] = {
    "val": ("train",),
    "test": ("train", "val"),
    "all": ("train", "val"),
}
"""Parts of the training's split that an evaluated part must share no image with."""


def images_of(data: CohortData) -> bytes:
    """The content of `IMAGES`: pixel hash and part of each image of the split."""
    hashes = data.cohort.table["pixels_sha256"]
    rows = [
        (hashes.iloc[index], part) for part, indices in data.indices.items() for index in indices
    ]
    buffer = io.BytesIO()
    images = pd.DataFrame(rows, columns=["pixels_sha256", "part"]).drop_duplicates()
    images.to_parquet(buffer, index=False)
    return buffer.getvalue()


def check_unseen(checkpoint: Path, data: CohortData, part: str, rows: Iterable[int]) -> None:
    """Refuse to evaluate on images that the checkpoint was trained or chosen on.

    Their patient may have another name in a later cohort, and the split does not see it. A
    checkpoint without `IMAGES` cannot be checked, which is said.

    Raises:
        UserError: pixels of those rows are among what was learned from; all rows are listed.
    """
    path = checkpoint / IMAGES
    if not path.is_file():
        say(f"CHECKPOINT {checkpoint}: holds no {IMAGES}; not checked: whether it saw these images")
        return
    known = pd.read_parquet(path)
    learned = set(known.loc[known["part"].isin(LEARNED[part]), "pixels_sha256"])
    hashes = data.cohort.table["pixels_sha256"].iloc[sorted(rows)]
    leaked = [str(row) for row, pixels in hashes.items() if pixels in learned]
    if leaked:
        raise UserError(
            f"COHORT {data.cohort_folder}: {len(leaked)} rows of part {part} show images that the "
            "checkpoint was trained on, so they are no evidence; take them out of the cohort",
            [f"row {row}, image" for row in leaked],
        )

"""What similar images of a cohort mean.

Where patients are known, the same picture under two of them is a fault; similar images are listed
with a picture. A set without patient ids has images in their place: there similar ones count as one
patient, so that no split separates them, and labels that contradict each other are a fault.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from train.cohorts.checks import LABELS, SAME_PICTURE, Fault, Scan
from train.cohorts.similar.near_duplicates import SAME, SIMILAR, Pair, groups, similar_pairs, stack
from train.pages import data_uri, render

SHEET = "similar_images.html"
SHOWN = 300
"""Pairs on a contact sheet: some 5 MB."""


class Similar(NamedTuple):
    """The rows of two images of different patients, the earlier image first."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    similarity: float
    same_pixels: bool


def find_similar(frame: pd.DataFrame, scans: Mapping[str, Scan | str]) -> list[Similar]:
    """All pairs of similar images that belong to different patients, most similar first."""
    rows_of: dict[str, list[int]] = {}
    read: list[Scan] = []
    for row, image in enumerate(frame["image"]):
        if isinstance(scan := scans[image], Scan):
            if image not in rows_of:
                read.append(scan)
            rows_of.setdefault(image, []).append(row)
    rows = [tuple(its) for its in rows_of.values()]
    patient = frame["patient_id"].to_numpy(dtype=object)
    pairs = similar_pairs(
        stack(scan.thumbnail for scan in read), [str(patient[its[0]]) for its in rows]
    )
    return [
        Similar(
            rows[pair.first],
            rows[pair.second],
            pair.similarity,
            read[pair.first].sha256 == read[pair.second].sha256,
        )
        for pair in pairs
    ]


def patient_faults(found: Iterable[Similar]) -> Iterator[Fault]:
    """One fault for each image that is the same picture as earlier ones of other patients.

    It names the most similar one and spoils them all. `find_faults` reports equal pixels.
    """
    of_image: dict[int, list[Similar]] = {}
    for pair in found:
        if pair.similarity >= SAME and not pair.same_pixels:
            of_image.setdefault(pair.second[0], []).append(pair)
    for row, its in of_image.items():
        what = (
            f"same picture as {{other}} (similarity {its[0].similarity:.3f}), which is another "
            "patient; give both one patient_id, or leave them out"
        )
        spoilt = {*its[0].second, *(other for pair in its for other in pair.first)}
        yield Fault(row, "image", what, its[0].first[0], tuple(sorted(spoilt)), SAME_PICTURE)


def label_faults(frame: pd.DataFrame, found: Sequence[Similar]) -> Iterator[tuple[Similar, Fault]]:
    """Pairs of similar images whose labels contradict each other: nobody knows which is right."""
    labels = {field: frame[field].to_numpy(dtype=object) for field in LABELS}
    for pair in found:
        for field, value in labels.items():
            first, second = (
                {value[row] for row in rows if not pd.isna(value[row])}
                for rows in (pair.first, pair.second)
            )
            if first and second and first.isdisjoint(second):
                what = (
                    f"{min(second)} contradicts {{other}} ({min(first)}), "
                    f"a similar image ({pair.similarity:.3f})"
                )
                both = (*pair.first, *pair.second)
                kind = "similar images with contradicting labels"
                yield pair, Fault(pair.second[0], field, what, pair.first[0], both, kind)
                break


def one_patient(frame: pd.DataFrame, found: Sequence[Similar]) -> pd.DataFrame:
    """The frame in which similar images have the patient id of the first of them."""
    place = {patient: order for order, patient in enumerate(dict.fromkeys(frame["patient_id"]))}
    patients, of_row = list(place), [place[patient] for patient in frame["patient_id"]]
    pairs = [Pair(of_row[it.first[0]], of_row[it.second[0]], it.similarity) for it in found]
    leader = groups(len(patients), pairs)
    joined = pd.Series([patients[leader[it]] for it in of_row], frame.index)
    return frame.assign(patient_id=joined.astype(frame["patient_id"].dtype))


def write_sheet(
    out: Path,
    found: Sequence[Similar],
    conflicting: Collection[Similar],
    doubtful_first: bool,
    place: Callable[[int], str],
    pixels: Callable[[int], np.ndarray],
) -> Path:
    """Write a page of the pairs into `out`, contradictions first.

    Then come the least similar ones where `doubtful_first`, else the most similar. `place` names a
    row, and `pixels` reads its image.
    """
    sign = 1 if doubtful_first else -1
    order = sorted(found, key=lambda pair: (pair not in conflicting, sign * pair.similarity))
    shown = [
        {
            "similarity": pair.similarity,
            "conflict": pair in conflicting,
            "images": [
                {"place": place(rows[0]), "uri": _small(pixels(rows[0]))}
                for rows in (pair.first, pair.second)
            ],
        }
        for pair in order[:SHOWN]
    ]
    page = render(
        "Similar images",
        "cohorts/similar/similar_images.html.j2",
        pairs=shown,
        count=len(found),
        limit=SIMILAR,
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / SHEET).write_text(page)
    return out / SHEET


def _small(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((280, 220))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return data_uri("image/jpeg", buffer.getvalue())

"""`sonode radiomics`: the paper's baseline, from a cohort to predictions of its test part.

"Each US image" of the paper is a row of the cohort here: one lesion box.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from model_def.preprocessing import Pixels, Preprocessing, crop
from sonode.console import UserError, progress, say
from sonode.files.atomic import check_new
from sonode.files.parquet import ROI_COLUMNS
from train.cohorts.cohort import Cohort, load_cohort
from train.cohorts.describe import table_one
from train.cohorts.images import read_image
from train.evidence.report import show, write_evaluation
from train.fitting.predictions import Predictions
from train.radiomics.features import EXTRACTION, SMALLEST, FeatureSet, feature_names, require, work
from train.radiomics.forest import (
    BORUTA,
    BORUTA_FOREST,
    FOREST,
    HEADS,
    fit,
    in_test_part,
    predict,
)

FEATURES, RECORD = "features.parquet", "radiomics.json"
KEY = ("pixels_sha256", *ROI_COLUMNS)  # what the features of a row depend on
PACKAGES = ("sonode", "pyradiomics-bhklab", "SimpleITK", "Boruta", "scikit-learn", "numpy")


def cohort_features(cohort: Cohort, known: pd.DataFrame | None = None) -> pd.DataFrame:
    """All 102 features of each row of the cohort, in its order, beside its ids and `KEY`.

    `known`: an earlier answer; rows with the same pixels and box are taken from it. The others
    are computed in as many processes as there are cores.

    Raises UserError: pyradiomics is not installed, or boxes are too small; all are listed.
    """
    require()
    from joblib import Parallel, delayed

    table = cohort.table
    small = [
        f"row {index}, roi: {roi.x_max - roi.x_min} x {roi.y_max - roi.y_min} pixels"
        for index in range(len(table))
        if min((roi := cohort.roi(index)).x_max - roi.x_min, roi.y_max - roi.y_min) < SMALLEST
    ]
    if small:
        raise UserError(
            f"radiomics: boxes smaller than {SMALLEST} x {SMALLEST} pixels have no texture "
            f"({len(small)}); correct these rows and import again",
            small,
        )
    keys = list(table[[*KEY]].itertuples(index=False, name=None))
    names = feature_names("102")
    found: dict[tuple[object, ...], dict[str, float]] = {}
    if known is not None:
        earlier = known[[*KEY]].itertuples(index=False, name=None)
        rows = known[names].to_numpy()
        found = {
            key: dict(zip(names, row, strict=True)) for key, row in zip(earlier, rows, strict=True)
        }
    absent = [index for index, key in enumerate(keys) if key not in found]
    # The crops are cut as the processes take them: a large cohort does not fit into memory twice.
    jobs = (delayed(work)(pixels, os.getpid()) for pixels in _crops(cohort, absent))
    computed = Parallel(n_jobs=-1, return_as="generator")(jobs)
    computed = progress(computed, total=len(absent), what="radiomics features")
    for index, features in zip(absent, computed, strict=True):
        found[keys[index]] = features
    ids = table[["patient_id", "lesion_id", "image", *KEY]].reset_index(drop=True)
    return ids.join(pd.DataFrame([found[key] for key in keys], columns=names))


def _crops(cohort: Cohort, indices: list[int]) -> Iterator[Pixels]:
    """The bare boxes of those rows, at their own resolution; each image is read once in a row."""
    image, frame = "", np.empty((0, 0), np.uint8)
    for index in indices:
        if cohort.table["image"].iloc[index] != image:
            image = cohort.table["image"].iloc[index]
            frame = read_image(cohort.image_path(index))
        yield crop(frame, cohort.roi(index), Preprocessing(context=0.0))


def run(
    cohort_folder: Path,
    out: Path,
    *,
    split_seed: int,
    seed: int,
    feature_set: FeatureSet,
    reuse: Path | None = None,
    bootstrap: int,
) -> None:
    """Write features, record and the files of `report` into `out`, complete or not at all.

    `reuse`: the folder of an earlier run, whose features are taken where pixels and box are equal.

    Raises UserError: `out` is in use, `reuse` does not fit, the cohort has faults, or as
    `cohort_features` and `fit`.
    """
    require()
    check_new(out)
    known = None if reuse is None else _read_features(reuse)
    cohort = load_cohort(cohort_folder)
    started = time.monotonic()
    features = cohort_features(cohort, known)
    extracted = time.monotonic()
    say(f"{len(features)} lesion boxes, features in {extracted - started:.0f} s")
    fitted = fit(cohort, features, split_seed=split_seed, seed=seed, feature_set=feature_set)
    flat = features[feature_names(feature_set)].nunique() == 1
    record = {
        "format": 1,
        "cohort": cohort.about,
        "split": {"seed": split_seed, **_sizes(cohort, split_seed)},
        "settings": {
            "feature_set": feature_set,
            "seed": seed,
            "extraction": EXTRACTION,
            "boruta": {**BORUTA, "forest": BORUTA_FOREST},
            "forest": FOREST,
        },
        "constant_features": sorted(flat.index[flat]),
        "heads": {
            name: {
                "trained_on": {"n_images": found.n_images, "n_positive": found.n_positive},
                "selected": found.selected,
            }
            for name, found in fitted.items()
        },
        "left_out": [head.name for head in HEADS if head.name not in fitted],
        "seconds": {
            "features": round(extracted - started, 1),
            "model": round(time.monotonic() - extracted, 1),
        },
        "versions": {name: version(name) for name in PACKAGES},
    }
    frame, heads = predict(cohort, features, fitted, split_seed=split_seed)
    stored = pa.Table.from_pandas(features, preserve_index=False)
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    metrics = write_evaluation(
        Predictions(
            frame=frame,
            heads=heads,
            hierarchy="independent",
            about={"part": "test", "model": "radiomics, Boruta and random forests", **record},
            characteristics=table_one(cohort),
        ),
        out,
        bootstrap=bootstrap,
        seed=seed,
        more={
            FEATURES: lambda at: pq.write_table(stored.replace_schema_metadata(_provenance()), at),
            RECORD: lambda at: at.write_text(text),
        },
        title="Radiomics baseline: evaluation",
    )
    show(metrics, "test part")
    say(f"report: {out / 'report.html'}")


def _sizes(cohort: Cohort, split_seed: int) -> dict[str, dict[str, int]]:
    """Patients and lesion boxes that the forests learn from (`train`), and of the test part."""
    tested = in_test_part(cohort, split_seed)
    return {
        name: {"patients": int(rows["patient_id"].nunique()), "images": len(rows)}
        for name, rows in (("train", cohort.table[~tested]), ("test", cohort.table[tested]))
    }


def _provenance() -> dict[bytes, bytes]:
    """What two tables of features must agree in to be exchanged."""
    about = {"extraction": EXTRACTION, "pyradiomics-bhklab": version("pyradiomics-bhklab")}
    return {b"sonode": json.dumps(about).encode()}


def _read_features(folder: Path) -> pd.DataFrame:
    """The features of an earlier run.

    Raises UserError: there are none, or they were made with other settings or another pyradiomics.
    """
    path = folder / FEATURES
    if not path.is_file():
        raise UserError(f"--reuse {folder}: has no {FEATURES}; give OUT of a previous run")
    features = pq.read_table(path)
    if features.schema.metadata.get(b"sonode") != _provenance()[b"sonode"]:
        raise UserError(
            f"--reuse {folder}: its features were made with other settings or another version of "
            "pyradiomics; leave it out to compute them again"
        )
    frame: pd.DataFrame = features.to_pandas()
    return frame

"""What was done, as text to paste: methods, versions, seeds and digests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from train.cohorts.cohort import Cohort
from train.cohorts.split import SPLIT
from train.paper.sections import Section
from train.paper.variants import HeldOut

PACKAGES = ("sonode", "torch", "torchvision", "lightning", "scikit-learn", "scipy", "numpy")


def methods_section(
    cohort: Cohort,
    test: HeldOut,
    settings: Mapping[str, Any],
    variants: Sequence[str],
    *,
    seeds: int,
    bootstrap: int,
) -> Section:
    """The paragraphs."""
    model, data, rows = settings["model"], settings["data"], test.rows
    split = (
        "as the cohort's own column says"
        if SPLIT in cohort.table
        else f"by a hash of patient and seed {data['split_seed']} (30 % test, 15 % validation)"
    )
    size = model["preprocessing"]["size"]
    return Section(
        title="Methods, versions and digests",
        text=[
            f"Patients were split into training, validation and test {split}; the test part has "
            f"{rows['patient_id'].nunique()} patients with {len(rows)} lesion images. Boxes were "
            f"widened by {model['preprocessing']['context']:g} of their size on each side and "
            f"resized to {size} x {size} pixels. A {model['architecture']} was trained for "
            f"{settings['trainer']['max_epochs']} epochs with a learning rate of "
            f"{model['learning_rate']:g} ({model['schedule']}) and batches of "
            f"{data['batch_size']}; the epoch to keep and the temperatures were chosen on the "
            f"validation part. Each of {len(variants)} variants was trained with {seeds} seeds "
            f"(0 to {seeds - 1}). Measures are per image at a threshold of 0.5, as means over the "
            f"seeds. Intervals (95 %) and p-values come from {bootstrap} bootstrap draws of whole "
            "patients (seed 0), in which all seeds and both models of a comparison are measured "
            "on the same draw.",
            "Variants: " + "; ".join(variants) + ".",
            "Versions: " + ", ".join(f"{name} {version(name)}" for name in PACKAGES) + ".",
            f"Cohort: {cohort.name}, SHA-256 {cohort.sha256}.",
        ],
    )

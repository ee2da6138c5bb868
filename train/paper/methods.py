"""What was done, as text to paste: methods, versions, seeds and digests."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from model_def.checkpoint import CARD, WEIGHTS
from train.cohorts.cohort import Cohort
from train.cohorts.import_record import digest
from train.cohorts.split import SPLIT
from train.fitting.losses import LossSettings
from train.paper.sections import Section, Table
from train.radiomics.command import RECORD
from train.repeats.variants import RADIOMICS, HeldOut

PACKAGES = ("sonode", "torch", "torchvision", "lightning", "scikit-learn", "scipy", "numpy")
CHECKPOINTS = "tables/checkpoints.csv"


def methods_section(
    cohort: Cohort,
    test: HeldOut,
    settings: Mapping[str, Any],
    runs: Mapping[str, Sequence[Path]],
    *,
    bootstrap: int,
    out: Path,
) -> Section:
    """The paragraphs, and the digests; `runs`: the folders of the repeats of each model."""
    model, data = settings["model"], settings["data"]
    split = (
        "as the cohort's own column says"
        if SPLIT in cohort.table
        else f"by a hash of patient and seed {data['split_seed']} (30 % test, 15 % validation)"
    )
    size = model["preprocessing"]["size"]
    kept = (
        "the last epoch was kept"
        if settings["keep"] == "last"
        else "the epoch to keep was chosen by the loss of the validation part"
    )
    on_all = "under max-constraint"
    if model["loss"]["parent_negative"] == "negative":
        on_all = "in a network of both"
    variants = [it for it in runs if it != RADIOMICS]
    seeds = len(runs[variants[0]])
    return Section(
        title="Methods, versions and digests",
        text=[
            f"Patients were split into training, validation and test {split}; they have "
            f"{test.sizes['train']}, {test.sizes['val']} and {test.sizes['test']}. Boxes were "
            f"widened by {model['preprocessing']['context']:g} of their size on each side and "
            f"resized to {size} x {size} pixels. A {model['architecture']} was trained for "
            f"{settings['trainer']['max_epochs']} epochs with a learning rate of "
            f"{model['learning_rate']:g} ({model['schedule']}), weight decay "
            f"{model['weight_decay']:g} (AdamW) and batches of "
            f"{data['batch_size']}; {kept}, and the temperatures were fitted on the "
            "validation part. The loss is the binary cross-entropy of each head where its label "
            f"is known: of ALNM and the burden on malignant lesions, {on_all} on all; "
            "of a chain it is the likelihood of its labels. HL adds "
            f"{LossSettings().hierarchy_weight:g} times the mean of what ALNM’s probability has "
            f"above malignancy’s and {model['loss']['margin']:g}. Augmentation: "
            + ", ".join(["flip", *(f"{it} {by}" for it, by in data["augmentation"].items() if by)])
            + f". Each of {len(variants)} variants was trained with "
            f"{'seed 0' if seeds == 1 else f'{seeds} seeds (0 to {seeds - 1})'}. Measures are per "
            "image (in Tables 2, 3, S3 and 4 per lesion and patient, too) at a threshold of 0.5, "
            "as means over the seeds. Intervals "
            "(95 %) and p-values come from "
            f"{bootstrap} bootstrap draws of whole patients (seed 0), in which all seeds and both "
            "models of a comparison are measured on the same draw; p-values are two-sided, and "
            "adjusted by Holm where it says so.",
            *(_radiomics(its) for its in (runs[RADIOMICS],) if its),
            "Variants: " + "; ".join(variants) + ".",
            f"Versions: Python {platform.python_version()}, "
            + ", ".join(f"{name} {version(name)}" for name in PACKAGES)
            + ".",
            f"Cohort: {cohort.name}, SHA-256 {cohort.sha256}.",
        ],
        tables=[_digests({it: runs[it] for it in variants}, out)],
    )


def _radiomics(runs: Sequence[Path]) -> str:
    record = json.loads((runs[0] / RECORD).read_text())
    its, forest = record["settings"], record["settings"]["forest"]
    versions = ", ".join(f"{name} {its}" for name, its in record["versions"].items())
    return (
        f"Radiomics: {its['feature_set']} features of the bare box, selected by Boruta (alpha "
        f"{its['boruta']['alpha']:g}, at most {its['boruta']['max_iter']} rounds), and a random "
        f"forest of {forest['n_estimators']} trees (max_depth {forest['max_depth']}) for each "
        f"task, on training and validation part, with seeds 0 to {len(runs) - 1}; a fit is "
        f"repeated by its seed and is not kept. Versions: {versions}."
    )


def _digests(runs: Mapping[str, Sequence[Path]], out: Path) -> Table:
    found = [
        {
            "model": name,
            "seed": seed,
            "weights_sha256": digest(folder / "checkpoint" / WEIGHTS),
            "card_sha256": digest(folder / "checkpoint" / CARD),
        }
        for name, folders in runs.items()
        for seed, folder in enumerate(folders)
    ]
    pd.DataFrame(found).to_csv(out / CHECKPOINTS, index=False)
    return Table(
        caption=f"Checkpoints of the networks: SHA-256 of {WEIGHTS}. That of {CARD} is in the "
        "file, too.",
        columns=["Network", "Seed", "SHA-256"],
        rows=[[str(it["model"]), str(it["seed"]), str(it["weights_sha256"])] for it in found],
        file=CHECKPOINTS,
    )

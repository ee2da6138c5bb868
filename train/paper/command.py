"""`sonode paper`: the runs that are not made yet, then every table and figure, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sonode.console import UserError, say
from train.cohorts.cohort import Cohort, load_cohort
from train.evidence import ablation
from train.evidence.measures import Resampling
from train.paper import performance
from train.paper.runs import (
    BASELINE,
    NETWORKS,
    radiomics_absent,
    scores_of,
    train_networks,
    train_radiomics,
)
from train.paper.sections import write_page
from train.paper.variants import RADIOMICS, HeldOut, variants_of

OURS = (NETWORKS, BASELINE, "tables", "figures", "paper.html", ".paper.html.partial")
QUICK_SEEDS, QUICK_RESAMPLES = 2, 200


def run(
    cohort_folder: Path, out: Path, *, config: Path, seeds: int, bootstrap: int, quick: bool
) -> None:
    """Make OUT/paper.html and the files behind it; what was trained by an earlier call is taken.

    Raises:
        UserError: OUT holds other things or runs of another plan, the cohort or configuration
            cannot be used (before any training), or a run fails; those that are done stay.
    """
    if out.exists() and (not out.is_dir() or {it.name for it in out.iterdir()} - set(OURS)):
        raise UserError(f"OUT {out}: has other files; give a new folder")
    if quick:
        seeds, bootstrap = min(seeds, QUICK_SEEDS), min(bootstrap, QUICK_RESAMPLES)
    cohort = load_cohort(cohort_folder)
    variants = variants_of(quick)
    settings = ablation.settings_of(config, cohort_folder, next(iter(variants.values())))
    if settings["data"]["folds"] is not None:
        raise UserError(
            f"--config {config}: data.folds keeps no test part, and the paper has one; take it out"
        )
    split_seed = int(settings["data"]["split_seed"])
    test = HeldOut(cohort, split_seed)
    absent = radiomics_absent()
    ablation.record_plan(out / NETWORKS, cohort, config, "test", variants)
    _say_plan(cohort, variants, settings, absent, seeds)
    if absent is None:
        train_radiomics(cohort, out, seeds=seeds, split_seed=split_seed, bootstrap=bootstrap)
    train_networks(cohort, out, variants, seeds=seeds, config=config)
    scores = scores_of(test, out, list(variants), seeds=seeds)
    how = Resampling(resamples=bootstrap, seed=0)
    say("tables and figures")
    sections = [performance.section(test, scores, how, absent, out)]
    intro = _intro(cohort, test, settings, seeds, bootstrap, quick)
    say(f"page: {write_page(out, 'The paper on this cohort', intro, sections)}")


def _say_plan(
    cohort: Cohort,
    variants: Mapping[str, Sequence[str]],
    settings: Mapping[str, Any],
    absent: str | None,
    seeds: int,
) -> None:
    say(f"cohort: {cohort.patients}, {len(cohort.table)} images")
    say(f"network: {network_in_words(settings)}")
    say(f"plan: {len(variants)} x {seeds} networks: {', '.join(variants)}")
    if absent is None:
        say(f"plan: {seeds} models of {RADIOMICS}, made first")
    else:
        say(f"plan: no {RADIOMICS}: {absent}")
    say("what is done already is not repeated; the same command goes on where it was interrupted")


def network_in_words(settings: Mapping[str, Any]) -> str:
    """Which network was trained, for plan and page."""
    model = settings["model"]
    return (
        f"{model['architecture']} at {model['preprocessing']['size']} pixels, "
        f"{settings['trainer']['max_epochs']} epochs, learning rate {model['learning_rate']:g}"
    )


def _intro(
    cohort: Cohort,
    test: HeldOut,
    settings: Mapping[str, Any],
    seeds: int,
    bootstrap: int,
    quick: bool,
) -> list[dict[str, Any]]:
    """What a reader must know before any figure."""
    found = []
    if cohort.synthetic:
        text = "No patient is in it. These figures show that the program works, and say nothing"
        found.append({"alert": True, "strong": "Synthetic cohort.", "text": f"{text} of patients."})
    if not cohort.patient_ids:
        text = (
            "The set has no patient ids: each image, or group of similar ones, counts as a "
            "patient. Figures may be too good and intervals too narrow."
        )
        found.append({"alert": True, "strong": "“Patients” are images here.", "text": text})
    if quick:
        text = "Small networks, trained for two epochs: no figure here is one of the method."
        found.append({"alert": True, "strong": "A quick run.", "text": text})
    rows = test.rows
    text = (
        f"The tables and figures of Frontiers in Physiology 2022, doi 10.3389/fphys.2022.882648, "
        f"on cohort {cohort.name} ({cohort.patients}, {len(cohort.table)} images). Test part: "
        f"{rows['patient_id'].nunique()} patients, {len(rows)} images. Network: "
        f"{network_in_words(settings)} (the paper’s: resnet50 at 256 pixels, 200 epochs, learning "
        f"rate 0.0001; paper.yaml has it). {seeds} repeats of each model, with other seeds on the "
        f"same split. Intervals are of 95 %, from {bootstrap} draws of whole patients."
    )
    return [*found, {"text": text}]

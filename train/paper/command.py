"""`sonode paper`: the runs that are not made yet, then every table and figure, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sonode.console import UserError, counted, say
from sonode.defaults import BOOTSTRAP_DRAWS
from train.cohorts.cohort import Cohort, load_cohort
from train.data.split_remarks import split_remarks
from train.experiments import ablation
from train.experiments.ablation_table import REFERENCE
from train.experiments.margin import search_margin
from train.measures.measure import Resampling
from train.paper import ablations, performance
from train.paper.coherence import coherence_section
from train.paper.cohort_table import cohort_section
from train.paper.figures.cam_profile import cam_section
from train.paper.figures.flow import flow_section
from train.paper.figures.heat_maps import heat_maps_section
from train.paper.methods import methods_section
from train.paper.sections import write_page
from train.paper.selection import selection_section
from train.repeats.runs import (
    BASELINE,
    NETWORKS,
    explained,
    folders_of,
    networks_of,
    radiomics_absent,
    scores_of,
    train_networks,
    train_radiomics,
)
from train.repeats.variants import QUICK, RADIOMICS, HeldOut, network_of, untrained, variants_of
from train.running.planned import Planned, measured, planned, spoken

SEARCH = "search"
START_S = 25.0  # beside the steps: to read the cohort, write a checkpoint, score the test part
OURS = (NETWORKS, BASELINE, SEARCH, "tables", "figures", "paper.html")
PAPERS_NETWORK = "resnet50 at 256 pixels, 200 epochs, learning rate 0.0001"  # of paper.yaml
SEEDS, QUICK_SEEDS, QUICK_RESAMPLES = 5, 2, 200
_WORDS = (
    "ALNM is metastasis in an axillary lymph node. “Single” is a network of one task, “multi-task” "
    "one of malignancy and ALNM, and HL the paper’s hierarchical loss, which lowers ALNM’s "
    "probability to malignancy’s. In “chain” ALNM’s probability is that of malignancy times that "
    "of ALNM given malignancy; under “max-constraint” malignancy’s is at least ALNM’s."
)


def run(
    cohort_folder: Path,
    out: Path,
    *,
    config: Path,
    seeds: int | None,
    bootstrap: int | None,
    quick: bool,
) -> None:
    """Make OUT/paper.html and the files behind it; what was trained by an earlier call is taken.

    Raises UserError: OUT holds other things or runs of another plan, the cohort or configuration
    cannot be used (before any training), or a run fails; those that are done stay.
    """
    if out.exists() and (not out.is_dir() or _names(out) - set(OURS)):
        raise UserError(f"OUT {out}: has other files; give a new folder")
    seeds = seeds or (QUICK_SEEDS if quick else SEEDS)
    bootstrap = bootstrap or (QUICK_RESAMPLES if quick else BOOTSTRAP_DRAWS)
    cohort = load_cohort(cohort_folder)
    settings = ablation.settings_of(config, cohort_folder, QUICK if quick else ())
    if settings["data"]["folds"] is not None:
        raise UserError(
            f"--config {config}: data.folds keeps no test part, and the paper has one; take it out"
        )
    split_seed = int(settings["data"]["split_seed"])
    test = HeldOut(cohort, split_seed)
    variants = variants_of(cohort, split_seed, quick)
    network = network_of(variants)
    absent = radiomics_absent()
    grid = _grid(quick) if REFERENCE in variants else None
    line = ["--config", str(config), "--data.cohort", str(cohort_folder), "--out", str(out)]
    line.append("--seed_everything=0")  # of the steps that are timed
    plan = planned([*line, *variants[network]])
    ablation.record_plan(out / NETWORKS, cohort, config, "test", variants)
    _say_plan(cohort, list(variants), plan, grid, absent, seeds, out)
    if absent is None:
        train_radiomics(cohort, out, seeds=seeds, split_seed=split_seed, bootstrap=bootstrap)
    train_networks(cohort, out, variants, seeds=seeds, config=config)
    searched = None
    if grid is not None:
        searched = search_margin(
            cohort_folder,
            out / SEARCH,
            grid.margins,
            seeds=grid.seeds,
            config=config,
            weights=grid.weights,
            more=QUICK if quick else (),
        )
    scores = scores_of(test, out, list(variants), seeds=seeds)
    how = Resampling(resamples=bootstrap, seed=0)
    say("tables and figures")
    sections = [
        flow_section(cohort, split_seed, out),
        cohort_section(cohort, split_seed, out),
        performance.section(test, scores, network, how, absent, out),
        ablations.variants_section(test, scores, searched, how, out),
        coherence_section(test, networks_of(out, list(variants), seeds=seeds), how, out),
        ablations.burden_section(test, scores, untrained(cohort, split_seed), absent, how, out),
        heat_maps_section(
            partial(explained, cohort, out), list(variants), out, synthetic=cohort.synthetic
        ),
        cam_section(network, folders_of(out, network, seeds=seeds), out),
        selection_section(folders_of(out, RADIOMICS, seeds=seeds), absent, out),
        methods_section(
            cohort,
            test,
            settings,
            {it: folders_of(out, it, seeds=seeds) for it in (*variants, RADIOMICS)},
            bootstrap=bootstrap,
            out=out,
        ),
    ]
    intro = _intro(cohort, test, settings, config, seeds, bootstrap, quick)
    say(f"page: {write_page(out, 'The paper on this cohort', intro, sections)}")


def _names(folder: Path) -> set[str]:
    """Of what lies in it, without what a kill has left of a page."""
    return {it.name for it in folder.iterdir() if not it.name.startswith(".paper.html-")}


class _Grid(NamedTuple):
    margins: Sequence[float]
    weights: Sequence[float]
    seeds: int


def _grid(quick: bool) -> _Grid:
    """What is searched of the hierarchical loss, around the paper's margin 0.1 and weight 0.05."""
    return _Grid((0.1,), (0.05, 0.2), 1) if quick else _Grid((0.0, 0.1, 0.3), (0.01, 0.05, 0.2), 2)


def _say_plan(
    cohort: Cohort,
    variants: Sequence[str],
    plan: Planned,
    grid: _Grid | None,
    absent: str | None,
    seeds: int,
    out: Path,
) -> None:
    """Print what is trained, and how long the networks take by steps measured here."""
    say(f"cohort: {cohort.patients}, {counted(len(cohort.table), 'image')}")
    say(f"plan: {len(variants)} x {seeds} networks: {', '.join(variants)}")
    runs = len(variants) * seeds
    if grid is not None:
        more = len(grid.margins) * len(grid.weights) * grid.seeds
        say(f"plan: {more} networks to search margin and weight of the loss, on validation")
        runs += more
    if absent is None:
        say(f"plan: {seeds} models of {RADIOMICS}, made first")
    else:
        say(f"plan: no {RADIOMICS}: {absent}")
    left = runs - len([*out.glob("*/runs/*/checkpoint")])
    data = plan.datamodule
    parts = [len(data.rows_of(it)) for it in ("train", "val")]
    if left:
        step, image = measured(plan)
        steps = max(1, parts[0] // data.batch_size)
        each = int(plan.settings.trainer.max_epochs) * (steps * step + parts[1] * image)
        say(
            f"time: about {spoken(left * (each + START_S))} for {counted(left, 'network')} not "
            f"trained yet, by steps of {step:.2f} s measured here"
            + ("; radiomics comes on top" if absent is None else "")
        )
    for line in split_remarks(data, plan.model.heads):
        say(f"{data.divided_by}: {line}")
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
    config: Path,
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
        f"on cohort {cohort.name} ({cohort.patients}, {counted(len(cohort.table), 'image')}). Test "
        f"part: {counted(rows['patient_id'].nunique(), 'patient')}, "
        f"{counted(len(rows), 'image')}. Network: "
        f"{network_in_words(settings)}. {counted(seeds, 'repeat')} of each "
        "model, with other seeds on the same split. Intervals are of 95 %, from "
        f"{bootstrap} draws of whole patients."
    )
    return [*found, {"text": text}, {"text": _WORDS}, _configuration(settings, config)]


def _configuration(settings: Mapping[str, Any], config: Path) -> dict[str, Any]:
    """Which configuration was used, and how it differs from the paper's."""
    if network_in_words(settings) == PAPERS_NETWORK:
        return {"text": f"Configuration: {config.name}. It is the network of the paper."}
    default = (
        "the default, which is smaller than the paper’s so that two CPU cores finish"
        if config.resolve() == ablation.CONFIG.resolve()
        else "as given by --config"
    )
    text = (
        f"{config.name}, {default}. The paper’s is {PAPERS_NETWORK}: --config "
        "train/configs/paper.yaml. Figures of the two do not compare."
    )
    return {"strong": "Configuration, not the paper’s:", "text": text}

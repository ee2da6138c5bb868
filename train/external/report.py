"""External validation as files: external.json, the predictions of each cohort, and one page."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from model_def.checkpoint import read_card, whole_folder
from sonode.console import UserError, say, table
from sonode.files.atomic import check_new
from sonode.files.metrics import DEVELOPMENT, EXTERNAL
from sonode.measure_text import with_interval
from train import pages
from train.data.leakage import IMAGES
from train.evidence import plots
from train.evidence.report import SUBGROUP_RATES
from train.external.development import development
from train.external.overlap import equal_ids
from train.external.validation import external
from train.fitting.predictions import predict
from train.measures.measure import Json
from train.measures.units import UNITS, Aggregation, units_to_show

PAGE = "external.html"
PARTS = {
    "test": "test part",
    "val": "the fold that was held out",
    "out-of-fold": "predictions by folds",
}
WAYS = {
    "none": "before",
    "intercept": "after: intercept",
    "intercept and slope": "after: intercept and slope",
}
CALIBRATION = {
    "brier": "Brier score",
    "ece": "ECE (10 bins)",
    "calibration_slope": "Slope",
    "calibration_intercept": "Intercept",
    "calibration_in_the_large": "In the large",
}


def named(cohorts: Sequence[str]) -> dict[str, Path]:
    """NAME=FOLDER, as given by --cohort, as name -> folder.

    Raises UserError: none, a folder given twice, or a name that is absent, given twice, or cannot
    be part of a file's name.
    """
    found: dict[str, Path] = {}
    for text in cohorts:
        name, _, folder = text.partition("=")
        plain = name.replace("-", "").replace("_", "").replace(".", "").isalnum()
        if not plain or not folder or name in found or name == DEVELOPMENT:
            raise UserError(
                f"--cohort {text}: give NAME=FOLDER, each name once, of letters, digits, - _ and ."
            )
        same = [it for it, known in found.items() if known.resolve() == Path(folder).resolve()]
        if same:
            raise UserError(f"--cohort {text}: is the folder of {same[0]}; give each cohort once")
        found[name] = Path(folder)
    if not found:
        raise UserError("--cohort: give at least one external cohort, NAME=FOLDER")
    return found


def run(
    checkpoint: Path,
    cohort: Path,
    out: Path,
    others: Mapping[str, Path],
    *,
    recalibrate: int,
    resamples: int,
    seed: int,
    aggregation: Aggregation,
) -> Json:
    """Score all cohorts and write the files into `out`, complete or not at all.

    Raises UserError: `out` is in use, a cohort shares images or patients with the training's, or
    pictures with another one, and as `development`, `predict` and `evaluate`.
    """
    check_new(out)
    both = equal_ids(others)
    say(f"{DEVELOPMENT}: {cohort}")
    own = development(checkpoint, cohort)
    cohorts = {}
    for name, folder in others.items():
        say(f"{name}: {folder}")
        cohorts[name] = predict(checkpoint, folder, "external")
    found = external(
        own,
        cohorts,
        recalibrate=recalibrate,
        resamples=resamples,
        seed=seed,
        aggregation=aggregation,
    )
    trained_on = read_card(checkpoint).training["cohort"]
    found["overlap_checked"] = (checkpoint / IMAGES).is_file()
    found["same_cohort"] = own.about["cohort"]["sha256"] == trained_on["sha256"]
    found["equal_patient_ids"] = both
    page = render(found)
    with whole_folder(out) as staged:
        text = json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False)
        (staged / EXTERNAL).write_text(text + "\n", encoding="utf-8")
        (staged / PAGE).write_text(page, encoding="utf-8")
        for name, its in {DEVELOPMENT: own, **cohorts}.items():
            its.frame.to_parquet(staged / f"predictions-{name}.parquet", index=False)
    return found


def render(found: Json) -> str:
    """The page, from what external.json holds."""
    ours = found["cohorts"][DEVELOPMENT]
    shown = {unit for its in found["cohorts"].values() for unit in units_to_show(its["heads"])}
    units = [unit for unit in UNITS if unit in shown]
    return pages.render(
        "External validation",
        "external/external.html.j2",
        found=found,
        development=DEVELOPMENT,
        of_development=PARTS[ours["about"]["part"]],
        units=units,
        rates=SUBGROUP_RATES,
        calibration=CALIBRATION,
        ways=WAYS,
        heads={name: ours["heads"][name] for name in found["compared"]},
        served={name: served(ours["heads"][name]) for name in found["compared"]},
        plots={name: _plots(name, found) for name in found["compared"]},
    )


def served(head: Json) -> str:
    """The name of the operating point that a head is served at."""
    points: dict[str, float] = head["operating_points"]
    return next(name for name, at in points.items() if at == head["threshold"])


def _plots(head: str, found: Json) -> list[dict[str, str]]:
    drawn = []
    levels = {
        name: its["heads"][head]["sets"][its["heads"][head]["primary"]]["image"]
        for name, its in found["cohorts"].items()
    }
    if any(its["curves"] for its in levels.values()):
        alt = f"ROC curves of {head} in each cohort, with 95 % bands"
        drawn.append(("ROC, per image", alt, plots.roc_overlaid(levels)))
    for name, its in found["compared"][head].items():
        recalibration = its["recalibration"]
        if recalibration["reason"]:
            continue
        of = found["cohorts"][name]["heads"][head]["sets"][recalibration["on"]]["image"]
        alt = f"Calibration in {name}: observed share of {head} over predicted probability"
        drawn.append((f"Calibration in {name}, all patients", alt, plots.calibration(of)))
        lines = {
            WAYS[way]: after["calibration_curve"]
            for way, after in recalibration["after"].items()
            if after["calibration_curve"]
        }
        title = f"Calibration in {name} after {recalibration['patients']} patients"
        drawn.append((title, f"{alt}, before and after", plots.calibration_lines(lines)))
    return pages.plots(drawn)


def show(found: Json) -> None:
    """Print the AUC of each head in each cohort, per image and per patient."""
    rows = []
    for head in found["compared"]:
        for name, its in found["cohorts"].items():
            of = its["heads"][head]
            for unit in ("image", "patient"):
                measures = of["sets"][of["primary"]][unit]
                auc = with_interval(measures["roc_auc"])
                rows.append((head, of["primary"], name, unit, str(measures["rows"]), auc))
    table("External validation", ("head", "set", "cohort", "per", "n", "ROC AUC (95 %)"), rows)
    if found["not_compared"]:
        say(
            f"{', '.join(found['not_compared'])}: more than two labels; its figures are on the page"
        )
    for head, its in found["compared"].items():
        for name, of in its.items():
            if why := of["recalibration"]["reason"]:
                print(f"warning: {head} in {name} is not recalibrated: {why}", file=sys.stderr)

"""The evaluation as files: metrics.json, predictions.parquet and one self-contained HTML page.

Only predictions.parquet, the researcher's own data, holds patients and image paths. The page needs
no network: plots and pictures are data URIs, there is no script, and all text is escaped.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from model_def.checkpoint import whole_folder
from sonode.console import UserError, say, table
from sonode.defaults import BOOTSTRAP_DRAWS
from sonode.files.metrics import METRICS
from sonode.measure_text import number, with_interval
from train import pages
from train.cohorts import describe
from train.evidence import plots
from train.evidence.plots import Profile
from train.fitting.predictions import Predictions
from train.measures.evaluate import evaluate
from train.measures.measure import Json
from train.measures.units import Aggregation, units_to_show

FILES = (METRICS, "predictions.parquet", "report.html")
_WORDS = ((None, "none"), (True, "yes"), (False, "no"))

MEASURES = {
    "roc_auc": "ROC AUC",
    "delong": "— DeLong 95 % interval ¹",
    "pr_auc": "PR AUC (average precision)",
    "brier": "Brier score",
    "ece": "ECE (10 bins)",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration intercept",
    "calibration_in_the_large": "Calibration in the large",
}
RATES = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "accuracy": "Accuracy",
    "precision": "PPV (precision)",
    "npv": "NPV",
    "f1": "F1",
    "lr_positive": "LR+",
    "lr_negative": "LR−",
}
SUBGROUP_RATES = {
    "roc_auc": "ROC AUC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}

# Frontiers in Physiology 2022, doi 10.3389/fphys.2022.882648: abstract and Results. (AUC,
# sensitivity, specificity); the burden is "no less than N nodes".
PAPER = {
    "malignant": (0.878, 0.835, 0.716),
    "alnm": (0.836, 0.769, 0.783),
    "nodes 2": (0.715, 0.672, 0.630),
    "nodes 3": (0.752, 0.773, 0.627),
    "nodes 4": (0.768, 0.666, 0.768),
}
PAPER_RADIOMICS = 0.848  # AUC of malignancy
PAPER_INCONSISTENCY = {"type_1": (0.075, 0.042), "type_2": (0.020, 0.011)}
"""Shares without and with the hierarchical loss; the paper does not name their denominator."""


@dataclass(frozen=True)
class GalleryItem:
    """A picture of the report; `title` and `caption` must not name a patient."""

    title: str
    png_bytes: bytes
    caption: str


def write_evaluation(
    predictions: Predictions,
    out: Path,
    gallery: Sequence[GalleryItem] = (),
    cam_profile: Mapping[str, Profile] | None = None,
    bootstrap: int = BOOTSTRAP_DRAWS,
    seed: int = 0,
    more: Mapping[str, Callable[[Path], object]] = {},
    aggregation: Aggregation = "mean",
    jitter: Sequence[Json] = (),
    title: str = "Evaluation",
) -> Json:
    """Evaluate and write `FILES` into `out`, complete or not at all; returns the metrics.

    `more`: further files by name, each with what writes it at a path. `jitter`: what
    `jitter.jitter` found. `title`: the page's.

    Raises UserError: `out` holds other things, or a probability is not one.
    """
    check_out(out)
    metrics = evaluate(predictions, resamples=bootstrap, seed=seed, aggregation=aggregation)
    metrics["roi_jitter"] = list(jitter)
    page = render(metrics, gallery, cam_profile or {}, predictions.characteristics, title)
    with whole_folder(out) as staged:
        text = json.dumps(metrics, indent=1, allow_nan=False, ensure_ascii=False)
        (staged / METRICS).write_text(text + "\n", encoding="utf-8")
        predictions.frame.to_parquet(staged / "predictions.parquet", index=False)
        (staged / "report.html").write_text(page, encoding="utf-8")
        for name, write in more.items():
            write(staged / name)
    return metrics


def check_out(out: Path) -> None:
    """Raise UserError unless `out` is new, empty or an earlier evaluation, which is replaced."""
    if not out.exists():
        return
    others = [out.name]
    if out.is_dir():
        others = sorted(entry.name for entry in out.iterdir() if entry.name not in FILES)
    if others:
        raise UserError(f"OUT {out}: has other files ({others[0]}); give a new folder")


def render(
    metrics: Json,
    gallery: Sequence[GalleryItem] = (),
    cam_profile: Mapping[str, Profile] = {},
    characteristics: pd.DataFrame | None = None,
    title: str = "Evaluation",
) -> str:
    """The page, from what metrics.json holds, the pictures, and the cohort's Table 1."""
    cohort = metrics["about"].get("cohort", {})
    units = units_to_show(metrics["heads"])
    named = isinstance(cohort, dict) and "name" in cohort and "part" in metrics["about"]
    return pages.render(
        title,
        "evidence/report.html.j2",
        metrics=metrics,
        about=list(_flat(metrics["about"])),
        evaluated=f"{metrics['about']['part']} part of {cohort['name']}" if named else None,
        synthetic=isinstance(cohort, dict) and cohort.get("synthetic") is True,
        no_patient_ids=isinstance(cohort, dict) and cohort.get("patient_ids") is False,
        measures=MEASURES,
        rates=RATES,
        subgroup_rates=SUBGROUP_RATES,
        units=units,
        plots={name: _head_plots(name, head, units) for name, head in metrics["heads"].items()},
        paper={name: paper_figures(name, head) for name, head in metrics["heads"].items()},
        paper_radiomics=PAPER_RADIOMICS,
        paper_inconsistency=PAPER_INCONSISTENCY,
        gallery=[
            (
                title,
                [
                    {"caption": it.caption, "uri": pages.data_uri("image/png", it.png_bytes)}
                    for it in its
                ],
            )
            for title, its in itertools.groupby(gallery, key=lambda item: item.title)
        ],
        cam=pages.svg_uri(plots.cam_over_distance(cam_profile)) if cam_profile else None,
        cam_resolution=next((its.resolution for its in cam_profile.values()), ""),
        cam_heads=", ".join(cam_profile),
        characteristics=None if characteristics is None else characteristics.to_dict("split"),
        characteristics_notes=describe.NOTES,
    )


def show(metrics: Json, title: str) -> None:
    """Print each head's AUC on its primary set, undefined with its reason, and the notes."""
    rows, units = [], units_to_show(metrics["heads"])
    for name, head in metrics["heads"].items():
        for level in units:
            measures = head["sets"][head["primary"]][level]
            auc = measures["roc_auc" if head["kind"] == "binary" else "macro_roc_auc"]
            rows.append((name, head["primary"], level, str(measures["rows"]), with_interval(auc)))
    table(title, ("head", "set", "per", "n", "ROC AUC (95 %)"), rows)
    for note in metrics["notes"]:
        say(note)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as (dotted key, text)."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        yield key, ", ".join(str(item) for item in value)
    else:
        yield key, next((word for fact, word in _WORDS if value is fact), str(value))


def paper_figures(name: str, head: Json) -> tuple[float, float, float] | None:
    """The paper's figures for the same task, found by the head's label column or name."""
    for text in (head["target"], name):
        burden = re.fullmatch(r".*nodes(?:.*\D)?([234])(_?(plus|or_more))?", text)
        key = f"nodes {burden[1]}" if burden else text
        if key in PAPER:
            return PAPER[key]
    return None


def _head_plots(name: str, head: Json, units: Sequence[str]) -> list[dict[str, str]]:
    """Title, alt text and image of each plot: of the primary set, and where probabilities are
    judged of every set that can.
    """
    if head["kind"] != "binary":
        return []
    levels = {unit: head["sets"][head["primary"]][unit] for unit in units}
    image, what = levels["image"], f"{name}, {head['primary']}"
    found = []
    if image["curves"]:
        aucs = ", ".join(
            f"area per {level} {number(its['roc_auc']['value'])}" for level, its in levels.items()
        )
        drawn = plots.roc(levels)
        found.append((f"ROC: {head['primary']}", f"ROC curve of {what}: {aucs}", drawn))
        alt, drawn = f"Precision-recall curve of {what}", plots.precision_recall(levels)
        found.append((f"Precision and recall: {head['primary']}", alt, drawn))
    for on, both in head["sets"].items():
        image = both["image"]
        if image["reliability"]:
            title = f"{image['judged']}, {on}, per image"
            alt = f"Calibration of {title}: observed share over predicted probability"
            found.append((f"Calibration of {title}", alt, plots.calibration(image)))
            alt = f"Decision curve of {title}: net benefit over threshold probability"
            found.append((f"Decision curve of {title}", alt, plots.decision(image)))
    return pages.plots(found)

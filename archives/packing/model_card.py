"""The model card: what a reader must know of a model, as a page in the archive.

Its sections are those of Mitchell et al. 2019 (https://arxiv.org/abs/1810.03993). What the software
knows is filled in, from the checkpoint and from evaluations of it; what only the author knows is
the author's text, or marked as missing. It names no patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict

from archives.packing.evidence import ELSEWHERE, Json, labelled, tested, where
from sonode.console import counted
from sonode.measure_text import p_value, with_interval

FILE = "MODEL_CARD.md"  # in the archive


class Statement(BaseModel):
    """The author's own text, each key a paragraph."""

    model_config = ConfigDict(extra="forbid")

    intended_use: str = ""
    limits: str = ""
    data: str = ""


ASKED = {
    "intended_use": "who uses it, for which patients and which decision, and what it is not for",
    "limits": "patients, devices and findings that it was not tried on, and known failures",
    "data": "hospitals, years, devices, inclusion and exclusion, reference standard, ethics",
}


def model_card(
    name: str, version: str, card: Json, evidence: Sequence[Json], statement: Statement
) -> str:
    """The page, in Markdown."""
    lines = [f"# Model card: {name} {version}", ""]
    for title, section in (
        ("Intended use", _use(card, statement)),
        ("Limits", _limits(card, evidence, statement)),
        ("Data", _data(card, statement)),
        ("Training", _training(card)),
        ("Certainty", _certainty(card)),
        ("Performance", _performance(card, evidence)),
        ("Subgroups", _subgroups(evidence)),
    ):
        lines += [f"## {title}", "", *section, ""]
    return "\n".join(lines)


def _authors(statement: Statement, key: str) -> str:
    text: str = getattr(statement, key).strip()
    return text or f"**TO BE WRITTEN BY THE AUTHOR**: {ASKED[key]}."


def _use(card: Json, statement: Statement) -> Iterator[str]:
    yield _authors(statement, "intended_use")
    yield ""
    yield "It scores one lesion in one B-mode ultrasound image of the breast, within a box:"
    yield ""
    for head in card["heads"]:
        given = f", given that `{head['given']}` is positive" if head.get("given") else ""
        labels = " or ".join(head["labels"])
        yield f"- {head['name']}: {labels}{given}; threshold {head['threshold']:.3g}"


def _limits(card: Json, evidence: Sequence[Json], statement: Statement) -> Iterator[str]:
    yield _authors(statement, "limits")
    yield ""
    cohort = card["training"].get("cohort", {})
    if cohort.get("synthetic"):
        yield "- It was trained on a synthetic cohort and is not for patients."
    if cohort.get("patient_ids") is False:
        yield (
            "- Its cohort has no patient ids: images of one patient may be in training and test."
        )
    elsewhere = [it for it in evidence if it["about"]["part"] in ELSEWHERE]
    judged = {name for it in elsewhere for name in labelled(it)}
    for name in (head["name"] for head in card["heads"]):
        if name not in judged:
            yield f"- {name}: was not evaluated on another cohort."
    for line in map(tested, evidence):
        for limit in line["limits"]:
            yield f"- Evaluation on {line['cohort']}, {line['part']} part: {limit}."
    for head in card["heads"]:
        sets = head.get("label_sets") or {}
        if sets.get("least") is None:
            why = sets.get("why") or "its training made no label sets"
            yield f"- {head['name']}: its results are never marked as uncertain ({why})."
    limit = card.get("out_of_distribution") or {}
    if limit.get("limit") is None:
        why = limit.get("why") or "its training set no limit"
        yield f"- Images unlike its training's are not flagged ({why})."
    if card["training"].get("figures") is None:
        yield "- Thresholds, temperatures and the epoch were chosen on the validation part."
    else:
        yield "- Thresholds and temperatures were chosen on the predictions of the folds."


def _data(card: Json, statement: Statement) -> Iterator[str]:
    yield _authors(statement, "data")
    yield ""
    training = card["training"]
    cohort = training.get("cohort", {})
    yield f"Cohort {cohort.get('name', 'not stated')}, sha256 {cohort.get('sha256', 'not stated')}:"
    yield ""
    for part in ("train", "val", "test"):
        if part in cohort:
            its = cohort[part]
            patients, images = counted(its["patients"], "patient"), counted(its["images"], "image")
            yield f"- {part}: {patients}, {images}"
    for head, counts in training.get("labels", {}).items():
        shown = ", ".join(f"{label} {count}" for label, count in counts.items())
        yield f"- {head}, training images: {shown}"


def _training(card: Json) -> Iterator[str]:
    facts, size = card["preprocessing"], card["preprocessing"]["size"]
    yield (
        f"{card['architecture']} at {size} x {size} pixels, the box widened by "
        f"{facts['context']:.0%} a side, heads {card['hierarchy']}."
    )
    if (members := card.get("members", 1)) > 1:
        seeds = ", ".join(map(str, card["training"].get("seeds", ["not stated"])))
        yield f"The mean logit of {members} such networks, which differ by their seeds: {seeds}."
    yield ""
    for key, value in card["training"].items():
        if isinstance(value, (str, int, float)):
            yield f"- {key}: {value}"
    for name, version in card["training"].get("versions", {}).items():
        yield f"- {name} {version}"


def _certainty(card: Json) -> Iterator[str]:
    marks = list(_marks(card))
    yield from marks or ["Results have no label set and no flag: Limits says why."]


def _marks(card: Json) -> Iterator[str]:
    for head in card["heads"]:
        sets = head.get("label_sets") or {}
        if sets.get("least") is not None:
            patients = ", ".join(f"{label} {count}" for label, count in sets["patients"].items())
            on = f" of lesions with `{sets['given']}` positive" if sets.get("given") else ""
            yield (
                f"- {head['name']}: label sets{on} at level {sets['level']:g}, per label, from "
                f"calibration patients {patients}"
            )
    limit = card.get("out_of_distribution") or {}
    if limit.get("limit") is not None:
        yield (
            f"- images unlike the training's are flagged, with false alarms of at most "
            f"{limit['false_alarms']:g}, from {counted(limit['patients'], 'calibration patient')}"
        )


def _performance(card: Json, evidence: Sequence[Json]) -> Iterator[str]:
    figures = card["training"].get("figures")
    if figures is not None:
        yield from _of_folds(figures)
    if not evidence:
        yield (
            "Not measured here on held-out patients: pack it with `--evidence`, the OUT of "
            "`sonode evaluate`."
        )
        return
    yield "With 95 % intervals, by patient; sensitivity and specificity at the served threshold."
    yield ""
    for note in {note: None for metrics in evidence for note in metrics["notes"]}:
        yield note
        yield ""
    yield "| cohort | head | on | per | n | positive | ROC AUC | sensitivity | specificity |"
    yield "|---|---|---|---|---|---|---|---|---|"
    thresholds = {head["name"]: head["threshold"] for head in card["heads"]}
    for metrics in evidence:
        for name, head in metrics["heads"].items():
            units = head["sets"][head["primary"]]
            counts = {unit: its["rows"] + its["mixed"] for unit, its in units.items()}
            for unit, its in units.items():
                if unit == "lesion" and counts[unit] in (counts["image"], counts["patient"]):
                    continue  # its figures are those of the images, or of the patients
                if head["kind"] == "binary":
                    points = its["operating_points"].values()
                    at = next(it for it in points if it["threshold"] == thresholds[name])
                    of_head = (its["roc_auc"], at["sensitivity"], at["specificity"])
                    figures = [with_interval(it) for it in of_head]
                else:
                    figures = [with_interval(its["macro_roc_auc"]), "", ""]
                cells = [where(tested(metrics)), name, head["primary"], unit, its["rows"]]
                cells += [its.get("positive", ""), *figures]
                yield _row(cells)


def _of_folds(figures: Json) -> Iterator[str]:
    yield f"{figures['statement'].capitalize()}. {figures['assumes']}"
    yield ""
    yield "| head | on | per | ROC AUC, folds pooled |"
    yield "|---|---|---|---|"
    for name, head in figures["roc_auc"].items():
        for unit, its in head.items():
            if unit != "on":
                why = "see the report of the folds"
                pooled = {"reason": why, "no_interval": why, **its["pooled"]}
                yield _row([name, head["on"], unit, with_interval(pooled)])
    yield ""


def _subgroups(evidence: Sequence[Json]) -> Iterator[str]:
    rows = [
        [
            *(where(tested(metrics)), name, variable["variable"], its["group"]),
            *(its["rows"], its["positive"], with_interval(its["roc_auc"]), _holm(variable)),
        ]
        for metrics in evidence
        for name, variables in metrics["subgroups"].items()
        for variable in variables
        for its in variable["groups"]
    ]
    if not rows:
        yield "Not measured here."
        return
    yield (
        "Per patient. p of the same ROC AUC in all groups that have 5 patients of each class, "
        "adjusted for all tests of that evaluation (Holm)."
    )
    yield ""
    yield "| cohort | head | by | group | patients | positive | ROC AUC | p |"
    yield "|---|---|---|---|---|---|---|---|"
    yield from map(_row, rows)


def _holm(variable: Json) -> str:
    test = variable["tests"]["roc_auc"]
    return "no test" if test["p"] is None else p_value(test["p_holm"])


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"

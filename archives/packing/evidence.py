"""What an archive says that its model was tested on: its evaluations, and one file of facts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sonode.console import UserError
from sonode.files.metrics import DEVELOPMENT, EXTERNAL, METRICS, read_metrics

FILE = "tested_on.json"  # in the archive: see `tested_on`
FOLDS, ELSEWHERE = "out-of-fold", ("all", "external")
Json = Mapping[str, Any]


def read_evidence(folder: Path, card: Json) -> list[Json]:
    """The metrics of an evaluation of that checkpoint, or of each cohort of an external one.

    Raises UserError: neither, or one of another checkpoint.
    """
    if (folder / EXTERNAL).is_file():
        found: Json = read_metrics(folder / EXTERNAL, "sonode external")
        # The development cohort of a network on every patient was scored by its folds' networks.
        own = [its for name, its in found["cohorts"].items() if name != DEVELOPMENT]
        every = [_told_apart(name, its, own) for name, its in found["cohorts"].items()]
    else:
        own = every = [read_metrics(folder / METRICS)]
    for metrics in own:
        about = metrics["about"]
        if about.get("part") == FOLDS:
            raise UserError(
                f"--evidence {folder}: is of the networks of the folds, whose figures the card "
                "has; leave it out"
            )
        if not isinstance(about.get("model"), dict):  # a forest
            raise UserError(
                f"--evidence {folder}: is not of a checkpoint; give OUT of `sonode evaluate`"
            )
        made_of = {
            **about["model"],
            "training": {**about["training"], "cohort": about["trained_on"]},
        }
        if any(made_of.get(key) != its for key, its in card.items()):
            raise UserError(
                f"--evidence {folder}: is of another checkpoint; give the OUT of `sonode evaluate` "
                "or `sonode external` of this one"
            )
    return every


def _told_apart(name: str, metrics: Json, external: Sequence[Json]) -> Json:
    """With the name of `--cohort` after the cohort's own, where two external ones have that."""
    about = metrics["about"]
    cohort = about["cohort"]
    if [its["about"]["cohort"]["name"] for its in external].count(cohort["name"]) < 2:
        return metrics
    cohort = {**cohort, "name": f"{cohort['name']} {name}"}
    return {**metrics, "about": {**about, "cohort": cohort}}


def read_all(folders: Sequence[Path], card: Json) -> list[Json]:
    """As `read_evidence` of each folder, a part of a cohort once (`evaluate` and `external`)."""
    found: dict[str, Json] = {}
    for metrics in (it for folder in folders for it in read_evidence(folder, card)):
        key = [metrics["about"]["part"], metrics["about"]["cohort"]]
        found.setdefault(json.dumps(key, sort_keys=True), metrics)
    return list(found.values())


def tested_on(card: Json, evidence: Sequence[Json]) -> list[Json]:
    """What its figures are of, for programs: see `tested`; without what has no label at all."""
    found = [tested(its) for its in evidence if labelled(its)]
    cohort = card["training"].get("cohort", {})
    if card["training"].get("figures") and not any(it["part"] == FOLDS for it in found):
        own = {"cohort": cohort["name"], "part": FOLDS, **cohort["train"]}
        found.insert(0, {**own, "synthetic": bool(cohort.get("synthetic")), "limits": []})
    return found


def labelled(metrics: Json) -> list[str]:
    """The heads that the evaluation could judge."""
    heads = metrics["heads"].items()
    return [name for name, its in heads if its["sets"][its["primary"]]["image"]["rows"]]


def tested(metrics: Json) -> Json:
    """The line of `tested_on` of one evaluation: cohort, part, patients, images, synthetic, limits.

    The part is `test`, `val`, `all` or `external` (other patients), or `out-of-fold`. The limits
    are what the evaluation says against itself.
    """
    about, limits = metrics["about"], []
    part, cohort = about["part"], about["cohort"]
    if part != FOLDS and cohort.get("sha256") != about["trained_on"].get("sha256"):
        if part not in ELSEWHERE:
            limits.append("not the cohort of the training as it was")
        if not about.get("overlap_checked"):
            limits.append("overlap with training not checked")
    judged = labelled(metrics)
    limits += [f"no label for {name}" for name in metrics["heads"] if name not in judged]
    return {
        "cohort": cohort["name"],
        "part": part,
        "patients": metrics["patients"],
        "images": metrics["rows"],
        "synthetic": bool(cohort.get("synthetic")),
        "limits": limits,
    }


def where(line: Json) -> str:
    """A line of `tested_on` as text."""
    kind = f"{line['part']} part"
    if line["part"] in ELSEWHERE:
        kind = "another cohort"
    elif line["part"] == FOLDS:
        kind = "by networks that never saw the patient"
    elif line["part"] == "val":
        kind = "validation part, on which it was chosen"
    facts = [kind, *(["synthetic"] if line["synthetic"] else []), *line.get("limits", ())]
    return f"{line['cohort']} ({', '.join(facts)})"


def as_text(lines: Sequence[Json]) -> str:
    """All lines of `tested_on` as text."""
    return ", ".join(map(where, lines)) or "no cohort"

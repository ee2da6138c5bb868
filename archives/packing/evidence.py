"""What an archive says that its model was tested on: its evaluations, and one file of facts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sonode.console import UserError
from sonode.metrics_file import DEVELOPMENT, EXTERNAL, METRICS, read_metrics

FILE = "tested_on.json"  # in the archive: see `tested_on`
FOLDS, ELSEWHERE = "out-of-fold", ("all", "external")
Json = Mapping[str, Any]


def read_evidence(folder: Path, card: Json) -> list[Json]:
    """The metrics of an evaluation of that checkpoint, or of each cohort of an external one.

    Raises:
        UserError: neither, or one of another checkpoint.
    """
    if (folder / EXTERNAL).is_file():
        found: Json = read_metrics(folder / EXTERNAL, "sonode external")
        # The development cohort of a network on every patient was scored by its folds' networks.
        own = [its for name, its in found["cohorts"].items() if name != DEVELOPMENT]
        every = list(found["cohorts"].values())
    else:
        own = every = [read_metrics(folder / METRICS)]
    for metrics in own:
        about = metrics["about"]
        if not isinstance(about["model"], dict):  # a forest
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


def tested_on(card: Json, evidence: Sequence[Json]) -> list[Json]:
    """What its figures are of, for programs: cohort, part, patients, images, synthetic.

    The part is `test`, `val`, `all` or `external` (other patients), or `out-of-fold`.
    """
    found = [tested(metrics) for metrics in evidence]
    cohort = card["training"].get("cohort", {})
    if card["training"].get("figures") and not any(it["part"] == FOLDS for it in found):
        own = {"cohort": cohort["name"], "part": FOLDS, **cohort["train"]}
        found.insert(0, {**own, "synthetic": bool(cohort.get("synthetic"))})
    return list({json.dumps(it, sort_keys=True): it for it in found}.values())


def tested(metrics: Json) -> Json:
    """The line of `tested_on` of one evaluation."""
    about = metrics["about"]
    return {
        "cohort": about["cohort"]["name"],
        "part": about["part"],
        "patients": metrics["patients"],
        "images": metrics["rows"],
        "synthetic": bool(about["cohort"].get("synthetic")),
    }


def where(line: Json) -> str:
    """A line of `tested_on` as text."""
    kind = f"{line['part']} part"
    if line["part"] in ELSEWHERE:
        kind = "another cohort"
    elif line["part"] == FOLDS:
        kind = "by networks that never saw the patient"
    return f"{line['cohort']} ({kind}{', synthetic' if line['synthetic'] else ''})"

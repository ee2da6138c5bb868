"""The ablation: variants of the model, several seeds each, one split; resumable run by run."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from model_def.checkpoint import CARD, read_card
from model_def.heads import HeadSpec, Hierarchy
from sonode.console import UserError, progress, run_sonode, say
from sonode.files.atomic import write_whole
from train.cohorts.cohort import Cohort
from train.cohorts.labels import child_labels, label_matrix
from train.data.datamodule import CohortData
from train.data.split_remarks import split_remarks
from train.experiments.ablation_table import MEASURES, summarise
from train.fitting.losses import LossSettings
from train.fitting.predictions import Part, predict
from train.running.command import run
from train.statistics.binary import inconsistency, roc_auc, share, value

CONFIG = Path(__file__).parents[1] / "configs" / "ablation.yaml"
_MALIGNANCY = "{name: malignancy, target: malignant, labels: [benign, malignant]}"
_ALNM = "{name: alnm, target: alnm, labels: [no ALNM, ALNM]%s}"
_BOTH = f"{_MALIGNANCY}, {_ALNM % ', parent: malignancy'}"


def flags_of(
    heads: str,
    *,
    hierarchy: Hierarchy = "independent",
    weight: float = 0.0,
    malignant_only: bool = False,
) -> list[str]:
    """The settings by which variants differ, as flags: they override the file."""
    return [
        f"--model.heads=[{heads}]",
        f"--model.hierarchy={hierarchy}",
        f"--model.loss.hierarchy_weight={weight:g}",
        f"--data.malignant_only={str(malignant_only).lower()}",
    ]


HIERARCHICAL = flags_of(_BOTH, weight=LossSettings().hierarchy_weight)
VARIANTS: dict[str, list[str]] = {
    "single malignancy": flags_of(_MALIGNANCY),
    # As the paper: its ALNM set holds malignant lesions only.
    "single alnm": flags_of(_ALNM % "", malignant_only=True),
    "multi-task": flags_of(_BOTH),
    "multi-task + HL": HIERARCHICAL,
    "chain": flags_of(_BOTH, hierarchy="chain"),
    "max-constraint": flags_of(_BOTH, hierarchy="max_constraint"),
}


def ablate(cohort_folder: Path, out: Path, *, seeds: int, config: Path) -> pd.DataFrame:
    """Train what is not trained yet and compare; writes runs.json and ablation.csv into `out`.

    Returns one row per variant: mean and SD over the seeds of each measure on the test part, and
    the p-value of the paired t-test over the seeds against `REFERENCE`. ALNM is measured on
    malignant lesions, the inconsistency errors on all whose malignancy is known (shares of those
    test images).

    Raises UserError: the cohort has faults or lacks labels that a variant learns from (before any
    training), or a run fails; runs that are done stay and are not repeated.
    """
    runs = runs_of(cohort_folder, out, VARIANTS, seeds=seeds, config=config, part="test")
    summary = pd.DataFrame(summarise(runs, list(VARIANTS)))
    summary.to_csv(out / "ablation.csv", index=False)
    return summary


def runs_of(
    cohort_folder: Path,
    out: Path,
    variants: Mapping[str, Sequence[str]],
    *,
    seeds: int,
    config: Path,
    part: Part,
) -> pd.DataFrame:
    """Train what is not trained yet; one row per variant and seed with its measures on `part`."""
    cohort = _checked_cohort(cohort_folder, config)
    found = []
    for variant, seed, folder in trained(
        cohort, out, variants, seeds=seeds, config=config, part=part
    ):
        result = folder / "result.json"
        if not result.is_file():
            write_whole(result, json.dumps(measure(folder / "checkpoint", cohort_folder, part)))
        measures = json.loads(result.read_text())
        found.append({"variant": variant, "seed": seed, **measures})
        shown = [f"{name} {it:.3f}" for name, it in measures.items() if it is not None]
        say(f"{variant}, seed {seed}: {', '.join(shown)}")
    (out / "runs.json").write_text(
        json.dumps({"cohort": cohort.sha256, "runs": found}, indent=2, allow_nan=False) + "\n"
    )
    return pd.DataFrame(found)


def _checked_cohort(folder: Path, config: Path) -> Cohort:
    """The cohort, if every variant can be trained on it; says what chance did to the split.

    All variants learn ALNM from malignant lesions, one from these alone: it validates on them.

    Raises UserError: it has faults or lacks labels, or `sonode train fit` refuses the
    configuration.
    """
    settings = settings_of(config, folder, HIERARCHICAL)
    heads = [HeadSpec(**it) for it in settings["model"]["heads"]]
    split = {name: settings["data"][name] for name in ("split_seed", "folds", "fold")}
    data = CohortData(folder, **split)
    labels_NK = label_matrix(data.cohort.table, heads)
    learned_NK = child_labels(labels_NK, heads, "independent", "mask")
    parts = np.array(data.part_of_row)
    needed = [("train", head, place) for head in heads for place in (0, 1)]
    needed.append(("val", heads[0], 1))
    faults = [
        f"the {part} part of the split has no {head.labels[place]!r} of {head.name}"
        + (f" where {head.parent} holds" if head.parent else "")
        for part, head, place in needed
        if not (learned_NK[parts == part, heads.index(head)] == place).any()
    ]
    if faults:
        raise UserError(
            f"COHORT {folder}: some variant cannot be trained on it; label the cohort, or divide "
            f"it otherwise ({data.divided_by})",
            faults,
        )
    for line in split_remarks(data, heads):
        say(f"{data.divided_by}: {line}")
    return data.cohort


def settings_of(config: Path, cohort: Path, flags: Sequence[str]) -> dict[str, Any]:
    """The settings that `sonode train fit` would train with. Raises UserError: it refuses them."""
    line = ["fit", "--config", str(config), "--data.cohort", str(cohort), "--out", "-"]
    with redirect_stdout(io.StringIO()) as printed, suppress(SystemExit):
        run([*line, *flags, "--print_config"])
    settings: dict[str, Any] = yaml.safe_load(printed.getvalue())
    return settings


def trained(
    cohort: Cohort,
    out: Path,
    variants: Mapping[str, Sequence[str]],
    *,
    seeds: int,
    config: Path,
    part: Part,
) -> Iterator[tuple[str, int, Path]]:
    """Yield each variant and seed with the folder of its `checkpoint`; train what is absent.

    `variants`: the flags of each, over the file. `part`: what its networks will be measured on.

    Raises UserError: `out` holds runs of another plan, one began with other weights, or a run
    fails.
    """
    record_plan(out, cohort, config, part, variants)
    weights: set[object] = set()
    plan = [(variant, seed) for variant in variants for seed in range(seeds)]
    for variant, seed in progress(iter(plan), total=len(plan), what="training runs"):
        folder = run_folder(out, variant, seed)
        if not (folder / "checkpoint" / CARD).is_file() and not (folder / "result.json").is_file():
            _train(cohort.folder, folder, config, variants[variant], seed)
        if (folder / "checkpoint" / CARD).is_file():  # a plan has the path of weights alone
            weights.add(read_card(folder / "checkpoint").training.get("weights"))
        if len(weights) > 1:
            raise UserError(
                f"run {folder.name}: began with other weights than those before; delete {folder} "
                "to train it again, or give a new folder"
            )
        yield variant, seed, folder


def run_folder(out: Path, variant: str, seed: int) -> Path:
    """Where the network of a variant and seed lies."""
    return out / "runs" / f"{variant.replace(' ', '_')}-{seed}"


def measure(checkpoint: Path, cohort_folder: Path, part: Part) -> dict[str, float | None]:
    """AUCs and inconsistency shares of a checkpoint on a part; None where undefined.

    The truth is the cohort's own, so that single-task networks are measured on the same images.
    """
    frame = predict(checkpoint, cohort_folder, part).frame
    malignant_N, alnm_N = (
        frame[column].to_numpy(dtype=float, na_value=np.nan) for column in ("malignant", "alnm")
    )
    found: dict[str, float | None] = dict.fromkeys(MEASURES)
    scores = {
        name: frame[column].to_numpy()
        for name in ("malignancy", "alnm")
        if (column := f"{name}_probability") in frame
    }
    for name, label_N, known_N in (
        ("malignancy", malignant_N, ~np.isnan(malignant_N)),
        ("alnm", alnm_N, ~np.isnan(alnm_N) & (malignant_N == 1)),
    ):
        if name in scores:
            found[f"{name}_auc"] = value(roc_auc, label_N[known_N] == 1, scores[name][known_N])
    if len(scores) == 2:
        # Without the malignancy label the type of a row's error is unknown: it is left out.
        known_N = ~np.isnan(malignant_N)
        errors = inconsistency(malignant_N, scores["malignancy"], scores["alnm"])
        found["type_1"] = value(share, errors.type_1_N[known_N], np.empty(0))
        found["type_2"] = value(share, errors.type_2_N[known_N], np.empty(0))
    return found


def record_plan(
    out: Path, cohort: Cohort, config: Path, part: Part, variants: Mapping[str, Sequence[str]]
) -> None:
    """Runs of different plans must not meet in one table; a variant more is no other plan."""
    plan = {"cohort": cohort.sha256, "config": config.read_text(), "part": part}
    flags = {name: list(its) for name, its in variants.items()}
    record = out / "plan.json"
    if record.is_file():
        try:
            earlier = json.loads(record.read_text())
            known = earlier.pop("variants", None)
        except (ValueError, AttributeError, TypeError) as error:
            raise UserError(f"OUT {out}: its plan.json is damaged; give a new folder") from error
        if earlier != plan or known is None or {**known, **flags} != {**flags, **known}:
            raise UserError(
                f"OUT {out}: holds runs of another cohort, configuration or variants; "
                "give a new folder"
            )
        if set(flags) <= set(known):
            return
        flags = {**known, **flags}
    elif out.is_file():
        raise UserError(f"OUT {out}: is a file; give a new folder")
    elif out.exists() and set(out.iterdir()) - set(out.glob(".plan.json-*")):
        raise UserError(f"OUT {out}: has other files; give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(record, json.dumps({**plan, "variants": flags}, indent=2) + "\n")


def _train(cohort: Path, folder: Path, config: Path, flags: Sequence[str], seed: int) -> None:
    """`sonode train fit` in a process of its own, so that no run inherits another's state."""
    command = ["train", "fit", "--config", str(config)]
    command += ["--data.cohort", str(cohort), "--out", str(folder), f"--seed_everything={seed}"]
    log = folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        code = run_sonode([*command, *flags], file)
    if code:
        last = log.read_text().strip().splitlines()[-1:]
        raise UserError(f"run {folder.name} failed (exit {code}): {' '.join(last)}; see {log}")
    shutil.rmtree(folder / "run")  # what resuming needed

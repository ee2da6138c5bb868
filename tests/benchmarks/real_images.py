"""Malignancy on real images: the network with and without context beside radiomics, five splits.

python -m tests.benchmarks.real_images COHORT OUT [--config YAML] [--splits 5] [--other COHORT]
    [any train flag]

Each split has a seed of its own, for the patients of the test part and for the training alike: five
repeated hold-outs, which say more of a small cohort than five trainings on one test part. What is
done in OUT is not repeated. The trunk starts from a network trained on the phantom, without any
patient: from random weights a few hundred images do not carry it as far (`--weights none`).
`--other`: each network is measured on all of another hospital's cohort, too.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
from scipy import stats

from sonode.console import UserError, run_sonode, say
from tests.benchmarks.machine import table
from train.cohorts.split import SHARES
from train.comparing.versus import versus

CONFIG = Path("train/configs/small.yaml")
PHANTOM_CONFIG = Path("train/configs/pretrain.yaml")


def run(arguments: list[str], log: Path) -> float:
    """Run a command of sonode; its seconds."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("w") as file:
        if code := run_sonode(arguments, file):
            raise UserError(f"sonode {arguments[0]} failed (exit {code}); see {log}")
    return time.monotonic() - started


def pretrain(out: Path) -> Path:
    """Weights of a network trained on the phantom."""
    folder = out / "phantom"
    if not (folder / "run" / "checkpoint").is_dir():
        run(["phantom", str(folder / "cohort")], folder / "phantom.log")
        command = ["train", "fit", "--config", str(PHANTOM_CONFIG)]
        command += ["--data.cohort", str(folder / "cohort"), "--out", str(folder / "run")]
        seconds = run(command, folder / "train.log")
        say(f"training on the phantom: {seconds:.0f} s")
    return folder / "run" / "checkpoint" / "weights.safetensors"


def train_and_evaluate(
    cohort: Path, out: Path, flags: list[str], context: float, seed: int
) -> Path:
    """Train with that context on that split; the folder of the evaluation."""
    folder = out / f"context-{context:g}-{seed}"
    record = folder / "seconds.json"
    if not record.is_file():
        command = ["train", "fit", *flags, "--data.cohort", str(cohort)]
        command += ["--out", str(folder / "run"), f"--model.preprocessing.context={context}"]
        command += [f"--data.split_seed={seed}", f"--seed_everything={seed}"]
        seconds = run(command, folder / "train.log")
        evaluated = folder / "evidence"
        checkpoint = folder / "run" / "checkpoint"
        run(["evaluate", str(checkpoint), str(cohort), str(evaluated)], folder / "evaluate.log")
        record.write_text(json.dumps(seconds))
    return folder / "evidence"


def aucs_on(other: Path, folder: Path) -> dict[str, float]:
    """Malignancy AUC per image and per patient on all of a cohort, of the network in a folder."""
    evaluated = folder / "other"
    if not evaluated.is_dir():
        checkpoint = folder / "run" / "checkpoint"
        command = ["evaluate", str(checkpoint), str(other), str(evaluated), "--part", "all"]
        run(command, folder / "other.log")
    head = json.loads((evaluated / "metrics.json").read_text())["heads"]["malignancy"]
    levels = head["sets"][head["primary"]]
    return {per: levels[per]["roc_auc"]["value"] for per in ("image", "patient")}


def radiomics(cohort: Path, out: Path, seed: int) -> Path:
    """The baseline on that split; features are computed once."""
    folder = out / f"radiomics-{seed}"
    if not folder.is_dir():
        first = out / "radiomics-0"
        reuse = ["--reuse", str(first)] if first.is_dir() else []
        command = ["radiomics", str(cohort), str(folder), f"--split-seed={seed}", *reuse]
        run([*command, f"--seed={seed}"], out / f"radiomics-{seed}.log")
    return folder


def corrected_p(difference_S: np.ndarray) -> float:
    """Paired t-test over splits whose training parts overlap.

    The variance is enlarged by test/training size as Nadeau & Bengio 2003
    (https://doi.org/10.1023/A:1024068626366) do; the plain test would find too much. The network
    does not learn from the validation part (the forest does), so the smaller size counts.
    """
    n = len(difference_S)
    variance = difference_S.var(ddof=1) * (1 / n + SHARES["test"] / SHARES["train"])
    return float(2 * stats.t.sf(abs(difference_S.mean()) / math.sqrt(variance), n - 1))


def main() -> None:
    """Train, compare, print the table, write real_images.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--contexts", type=float, nargs="+", default=[0.0, 0.2])
    parser.add_argument("--weights", default="phantom", help="none, imagenet, or phantom")
    parser.add_argument("--other", type=Path)
    given, flags = parser.parse_known_args()
    weights = str(pretrain(given.out)) if given.weights == "phantom" else given.weights
    flags = ["--config", str(given.config), f"--model.weights={weights}", *flags]
    elsewhere: dict[tuple[str, str], list[float]] = {}
    auc: dict[str, list[float]] = {}
    within: dict[str, list[str]] = {}
    seconds: list[float] = []
    for seed in range(given.splits):
        baseline = radiomics(given.cohort, given.out, seed)
        for context in given.contexts:
            name = f"context {context:g}"
            own = train_and_evaluate(given.cohort, given.out, flags, context, seed)
            seconds.append(json.loads((own.parent / "seconds.json").read_text()))
            (found,) = (
                it
                for it in versus(own, baseline).aucs
                if (it.head, it.per) == ("malignancy", "image")
            )
            assert found.first is not None and found.second is not None
            auc.setdefault(name, []).append(found.first)
            within.setdefault(name, []).append(f"{found.p_value:.2f}")
            say(f"split {seed}, {name}: {found.first:.3f}, radiomics {found.second:.3f}")
            if given.other is not None:
                for per, value in aucs_on(given.other, own.parent).items():
                    elsewhere.setdefault((name, per), []).append(value)
        auc.setdefault("radiomics", []).append(found.second)
    rows, record = [], []
    for name, values in auc.items():
        auc_S = np.array(values)
        difference_S = auc_S - auc["radiomics"]
        p = None if name == "radiomics" else corrected_p(difference_S)
        record.append({"model": name, "auc": values, "difference": list(difference_S), "p": p})
        rows.append(
            (
                name,
                f"{auc_S.mean():.3f} ± {auc_S.std(ddof=1):.3f}",
                " ".join(f"{it:.3f}" for it in values),
                "" if p is None else f"{difference_S.mean():+.3f}",
                "" if p is None else f"{p:.3f}",
                " ".join(within.get(name, [])),
            )
        )
    (given.out / "real_images.json").write_text(json.dumps(record, indent=2) + "\n")
    columns = ("model", "AUC", "each split", "to radiomics", "p", "p within each split")
    table(f"Test parts of {given.splits} splits", columns, rows)
    for (name, per), values in elsewhere.items():
        spread = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
        each = " ".join(f"{it:.3f}" for it in values)
        say(f"{name}, other cohort, AUC per {per}: {spread} ({each})")
    say(f"a training takes {min(seconds):.0f} to {max(seconds):.0f} s")


if __name__ == "__main__":
    main()

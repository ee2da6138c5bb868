"""The trainings of the paper, each made once, and what every one says of the test part."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from model_def.checkpoint import read_card
from sonode.console import UserError, say
from sonode.files.atomic import beside, write_whole
from train.cohorts.cohort import Cohort
from train.comparing.versus import KEYS
from train.evidence.saliency import profile
from train.experiments import ablation
from train.fitting.predictions import Predictions, predict
from train.radiomics import command as radiomics
from train.radiomics.features import require
from train.repeats.variants import RADIOMICS, HeldOut
from train.running.planned import spoken
from train.statistics.binary import Floats

NETWORKS, BASELINE, PREDICTIONS = "networks", "radiomics", "predictions.parquet"
OF_A_RUN = "cam-profile.json"

Scores = dict[str, dict[str, Floats]]
"""Model -> head -> scores (N, R) by R repeats of the rows that its task is measured on."""


def radiomics_absent() -> str | None:
    """Why there are no radiomics models; None where there are."""
    try:
        require()
    except UserError as error:
        return str(error)
    return None


def train_radiomics(
    cohort: Cohort, out: Path, *, seeds: int, split_seed: int, bootstrap: int
) -> None:
    """Fit the baseline with each seed, where this is not done yet."""
    for seed in range(seeds):
        folder = _forest(out, seed)
        if (folder / PREDICTIONS).is_file():
            continue
        radiomics.run(
            cohort.folder,
            folder,
            split_seed=split_seed,
            seed=seed,
            feature_set="93",
            reuse=_forest(out, 0) if seed else None,
            bootstrap=bootstrap,
        )


def train_networks(
    cohort: Cohort, out: Path, variants: Mapping[str, Sequence[str]], *, seeds: int, config: Path
) -> None:
    """Train each variant with each seed and predict the test part, where this is not done yet.

    Raises UserError: a training fails; those that are done stay.
    """
    total, started, trainings = len(variants) * seeds, time.monotonic(), 0
    runs = ablation.trained(
        cohort, out / NETWORKS, variants, seeds=seeds, config=config, part="test"
    )
    for number, (variant, seed, folder) in enumerate(runs, start=1):
        path = folder / PREDICTIONS
        if not (path.is_file() and (folder / OF_A_RUN).is_file()):
            found = predict(folder / "checkpoint", cohort.folder, "test")
            profiles = {head: its._asdict() for head, its in profile(found).items()}
            write_whole(folder / OF_A_RUN, json.dumps(profiles) + "\n")
            with beside(path) as part:
                found.frame.to_parquet(part, index=False)
                part.replace(path)
            trainings += 1
            each = (time.monotonic() - started) / trainings
            say(
                f"{variant}, seed {seed}: {number} of {total} networks; "
                f"{spoken(each)} each, about {spoken(each * (total - number))} left"
            )


def folders_of(out: Path, model: str, *, seeds: int) -> list[Path]:
    """Where the repeats of a model lie; none where there are no radiomics models."""
    if model != RADIOMICS:
        return [ablation.run_folder(out / NETWORKS, model, seed) for seed in range(seeds)]
    made = (_forest(out, 0) / PREDICTIONS).is_file()
    return [_forest(out, seed) for seed in range(seeds)] if made else []


@dataclass(frozen=True, kw_only=True)
class Network:
    """One variant's repeats on all rows of the test part."""

    p_NR: dict[str, Floats]
    """Head -> probability (N, R)."""
    points: dict[str, list[dict[str, float]]]
    """Head -> operating points of each repeat's card, by name."""


def networks_of(out: Path, variants: Sequence[str], *, seeds: int) -> dict[str, Network]:
    """Probabilities and thresholds of each variant."""
    found = {}
    for variant in variants:
        folders = folders_of(out, variant, seeds=seeds)
        p_NR = dict(_heads([pd.read_parquet(it / PREDICTIONS) for it in folders]))
        cards = [read_card(it / "checkpoint") for it in folders]
        of_head = [{head.name: head.operating_points for head in card.heads} for card in cards]
        points = {head: [its[head] for its in of_head] for head in p_NR}
        found[variant] = Network(p_NR=p_NR, points=points)
    return found


def scores_of(test: HeldOut, out: Path, variants: Sequence[str], *, seeds: int) -> Scores:
    """What the networks and, where they were made, the radiomics models say of the test part."""
    folders = {it: folders_of(out, it, seeds=seeds) for it in (*variants, RADIOMICS)}
    return {
        model: _columns(test, [pd.read_parquet(it / PREDICTIONS) for it in its])
        for model, its in folders.items()
        if its
    }


def explained(cohort: Cohort, out: Path, variant: str) -> Predictions:
    """What the variant's first repeat says of the test part, with its heat maps."""
    folder = ablation.run_folder(out / NETWORKS, variant, 0)
    return predict(folder / "checkpoint", cohort.folder, "test")


def _columns(test: HeldOut, frames: Sequence[pd.DataFrame]) -> dict[str, Floats]:
    for frame in frames:
        assert frame[KEYS].to_numpy().tolist() == test.rows[KEYS].to_numpy().tolist()
    return {head: score_NR[test.known[head]] for head, score_NR in _heads(frames)}


def _heads(frames: Sequence[pd.DataFrame]) -> Iterator[tuple[str, Floats]]:
    for column in frames[0].columns:
        head = str(column).removesuffix("_probability")
        if head != column:
            yield head, np.stack([it[column].to_numpy(np.float64) for it in frames], axis=1)


def _forest(out: Path, seed: int) -> Path:
    return out / BASELINE / f"seed-{seed}"

"""Rates and inconsistency errors of both of the paper's heads, at one operating point.

Shapes in names: N rows of the test part, U units (images, lesions or patients), n of them in a set,
R repeats.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from train.experiments.ablation import VARIANTS
from train.measures.measure import Json, Resampling, as_json
from train.measures.units import unit_codes
from train.repeats.measured import AT, TaskRows, in_units
from train.repeats.runs import Network
from train.repeats.variants import PAPERS_TWO, HeldOut
from train.statistics.binary import Bools, Floats, conditional, divide, inconsistency
from train.statistics.bootstrap import bootstrap, bootstrap_difference

ALONE = "two single-task networks"
CHOSEN = "sensitivity_0.90"  # in every card, see `train.fitting.calibration.calibrate.RULES`
_NO_ROW = "no row of the test part has the label"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both of the paper's heads of one variant, on all rows of the test part."""

    p_NR: Mapping[str, Floats]
    at_R: Mapping[str, Mapping[str, Floats]]
    """Operating point -> head -> threshold of each repeat; without those that a repeat lacks."""

    def errors(self, test: HeldOut, unit: str, point: str) -> tuple[TaskRows, dict[str, Bools]]:
        """The units whose malignancy is known, and which (U, R) are inconsistent, by type."""
        of = {head: _in_units(p_NR, test, "malignancy", unit) for head, p_NR in self.p_NR.items()}
        on = of["malignancy"][0]
        repeats = [
            inconsistency(
                on.truth_N.astype(np.float64),
                *(above_U, below_U),
                parent_threshold=at,
                child_threshold=at_below,
            )
            for above_U, below_U, at, at_below in zip(
                *(of[head][1].T for head in PAPERS_TWO),
                *(self.at_R[point][head] for head in PAPERS_TWO),
                strict=True,
            )
        ]
        return on, {
            "type_1": np.stack([it.type_1_N for it in repeats], axis=1),
            "type_2": np.stack([it.type_2_N for it in repeats], axis=1),
        }

    def at(self, test: HeldOut, unit: str, point: str, how: Resampling) -> dict[str, Json]:
        """Rates of both heads and shares of both errors at one operating point."""
        found: dict[str, Json] = {}
        for head in PAPERS_TWO:
            found |= _rates(head, self.p_NR[head], self.at_R[point][head], test, unit, how)
        on, errors = self.errors(test, unit, point)
        every_U = np.ones(len(on.truth_N), bool)
        return found | {type_: rate(it, every_U, on, how) for type_, it in errors.items()}

    def conditional(self, test: HeldOut, unit: str, how: Resampling) -> dict[str, Json]:
        """Rates of the chain's own answer to the question of ALNM, at 0.5."""
        p_NR = conditional(self.p_NR["alnm"], self.p_NR["malignancy"])
        return _rates("alnm", p_NR, np.full(p_NR.shape[1], AT), test, unit, how)


def pairs_of(networks: Mapping[str, Network]) -> Iterator[tuple[str, Pair]]:
    """Of each variant with both heads, and of the two networks of one task each."""
    names = {head: f"single {head}" for head in PAPERS_TWO}
    if all(name in networks for name in names.values()):
        yield ALONE, _pair({head: networks[name] for head, name in names.items()})
    for name in VARIANTS:
        its = networks.get(name)
        if its is not None and all(head in its.p_NR for head in PAPERS_TWO):
            yield name, _pair(dict.fromkeys(PAPERS_TWO, its))


def _pair(of: Mapping[str, Network]) -> Pair:
    p_NR = {head: its.p_NR[head] for head, its in of.items()}
    at_R: dict[str, Mapping[str, Floats]] = {
        "0.5": {head: np.full(score_NR.shape[1], AT) for head, score_NR in p_NR.items()}
    }
    chosen = {head: [card.get(CHOSEN) for card in its.points[head]] for head, its in of.items()}
    if not any(at is None for its in chosen.values() for at in its):
        at_R[CHOSEN] = {head: np.array(its, np.float64) for head, its in chosen.items()}
    return Pair(p_NR=p_NR, at_R=at_R)


def _in_units(p_NR: Floats, test: HeldOut, task: str, unit: str) -> tuple[TaskRows, Floats]:
    """The rows that the task is measured on, and their scores, in units."""
    known_N = test.known[task]
    return in_units(test.tested[task], p_NR[known_N], unit_codes(test.rows[known_N], unit))


def _rates(
    head: str, p_NR: Floats, at_R: Floats, test: HeldOut, unit: str, how: Resampling
) -> dict[str, Json]:
    on, p_UR = _in_units(p_NR, test, head, unit)
    called_UR = p_UR > at_R
    return {
        f"{head} {name}": rate(called_UR == positive, on.truth_N == positive, on, how)
        for name, positive in (("sensitivity", True), ("specificity", False))
    }


def rate(event_UR: Bools, chosen_U: Bools, on: TaskRows, how: Resampling) -> Json:
    """The share of the units with an event: mean over the repeats, interval by patient, `sd`."""
    event_nR: Any = event_UR[chosen_U]
    patient_n = on.patient_N[chosen_U]
    drawn = bootstrap({"": _share_of_repeats}, patient_n, event_nR, patient_n, **vars(how))[""]
    each = event_nR.mean(axis=0).tolist() if len(event_nR) else []
    sd = statistics.stdev(each) if len(each) > 1 else None
    return {**as_json(drawn, _NO_ROW, patient_n), "sd": sd, "repeats": event_UR.shape[1]}


def rate_difference(
    first_nR: Bools, second_nR: Bools, patient_n: npt.NDArray[np.object_], how: Resampling
) -> Json:
    """The first one's share minus the second one's, on the same draws of patients."""
    pair: tuple[Any, Any] = first_nR, second_nR
    drawn = bootstrap_difference(_share_of_repeats, patient_n, *pair, patient_n, **vars(how))
    return as_json(drawn, _NO_ROW)


def _share_of_repeats(_: Any, event_nR: Any, weight_Bn: Floats) -> Floats:
    """The mean over the repeats, as one quotient of whole numbers: equal shares differ by 0."""
    return divide(weight_Bn @ event_nR.sum(axis=1), weight_Bn.sum(axis=1) * event_nR.shape[1])

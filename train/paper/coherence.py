"""Table 3's inconsistency errors, and what each variant pays for coherence.

Shapes in names: N rows of the test part, n of them in a set, R repeats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from train.evidence.report import PAPER_INCONSISTENCY
from train.experiments.ablation import VARIANTS
from train.experiments.ablation_table import REFERENCE
from train.measures.measure import Json, Resampling, as_json
from train.paper.sections import Cell, Rows, Section, Table
from train.repeats.measured import AT, adjust, over_repeats
from train.repeats.runs import Network
from train.repeats.variants import PAPERS_TWO, HeldOut
from train.statistics.binary import Bools, Floats, conditional, inconsistency, mean
from train.statistics.bootstrap import bootstrap, bootstrap_difference

ERRORS, PRICE = "tables/inconsistency.csv", "tables/coherence.csv"
CHAINED, WITHOUT = "chain", "multi-task"
ALONE = "two single-task networks"
CHOSEN = "sensitivity_0.90"  # in every card, see `train.fitting.calibration.RULES`
TYPES = {"type_1": "benign", "type_2": "malignant"}
_NO_ROW = "no row of the test part has the label"


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Both of the paper's heads of one variant, on all rows of the test part."""

    p_NR: Mapping[str, Floats]
    at_R: Mapping[str, Mapping[str, Floats]]
    """Operating point -> head -> threshold of each repeat; without those that a repeat lacks."""

    def called(self, head: str, point: str) -> Bools:
        """Which rows each repeat calls positive (N, R)."""
        found: Bools = self.p_NR[head] > self.at_R[point][head]
        return found

    def errors(self, truth_N: Floats, point: str) -> dict[str, Bools]:
        """Which rows (N, R) are inconsistent, by type."""
        repeats = [
            inconsistency(truth_N, above_N, below_N, parent_threshold=at, child_threshold=at_below)
            for above_N, below_N, at, at_below in zip(
                *(self.p_NR[head].T for head in PAPERS_TWO),
                *(self.at_R[point][head] for head in PAPERS_TWO),
                strict=True,
            )
        ]
        return {
            "type_1": np.stack([it.type_1_N for it in repeats], axis=1),
            "type_2": np.stack([it.type_2_N for it in repeats], axis=1),
        }


def coherence_section(
    test: HeldOut, networks: Mapping[str, Network], how: Resampling, out: Path
) -> Section:
    """Both tables; `networks`: of each variant."""
    pairs = dict(_pairs(networks))
    if not pairs:
        why = "not made: no variant has both heads, since the cohort lacks a label of one"
        return Section(title="Inconsistency and the price of coherence", text=[f"Both: {why}."])
    per_image = (
        "Both tables are per image, as the paper’s. Each network’s own errors and rates per lesion "
        "and patient are in the report of `sonode evaluate` on its checkpoint."
    )
    return Section(
        title="Table 3: inconsistency, and the price of coherence",
        text=[_paper(), per_image, *_repair(test, pairs, how)],
        tables=[_errors(test, pairs, how, out), _price(test, pairs, how, out)],
    )


def _pairs(networks: Mapping[str, Network]) -> Iterator[tuple[str, _Pair]]:
    """Of each variant with both heads, and of the two networks of one task each."""
    names = {head: f"single {head}" for head in PAPERS_TWO}
    if all(name in networks for name in names.values()):
        yield ALONE, _pair({head: networks[name] for head, name in names.items()})
    for name in VARIANTS:
        its = networks.get(name)
        if its is not None and all(head in its.p_NR for head in PAPERS_TWO):
            yield name, _pair(dict.fromkeys(PAPERS_TWO, its))


def _pair(of: Mapping[str, Network]) -> _Pair:
    p_NR = {head: its.p_NR[head] for head, its in of.items()}
    at_R: dict[str, Mapping[str, Floats]] = {
        "0.5": {head: np.full(score_NR.shape[1], AT) for head, score_NR in p_NR.items()}
    }
    chosen = {head: [card.get(CHOSEN) for card in its.points[head]] for head, its in of.items()}
    if not any(at is None for its in chosen.values() for at in its):
        at_R[CHOSEN] = {head: np.array(its, np.float64) for head, its in chosen.items()}
    return _Pair(p_NR=p_NR, at_R=at_R)


def _errors(test: HeldOut, pairs: Mapping[str, _Pair], how: Resampling, out: Path) -> Table:
    truth_N, patient_N = test.truth["malignancy"], test.patient_N
    known_N = ~np.isnan(truth_N)
    numbers = Rows()
    cells: dict[str, list[Cell]] = {name: [] for name in pairs}
    for (type_, of), place in zip(TYPES.items(), (0, 1), strict=True):
        wrong = {name: pair.errors(truth_N, "0.5")[type_] for name, pair in pairs.items()}
        apart = {
            name: _difference(wrong_NR[known_N], wrong[WITHOUT][known_N], patient_N[known_N], how)
            for name, wrong_NR in wrong.items()
            if WITHOUT in wrong and name != WITHOUT
        }
        adjust(list(apart.values()))
        for name, wrong_NR in wrong.items():
            counts = wrong_NR.sum(axis=0).tolist()
            found = {
                f"{type_} of all": _rate(wrong_NR, known_N, patient_N, how),
                f"{type_} of {of}": _rate(wrong_NR, truth_N == place, patient_N, how),
            }
            against = {f"{type_} of all minus {WITHOUT}": apart[name]} if name in apart else {}
            numbers.add(
                {**found, **against},
                variant=name,
                images=int(known_N.sum()),
                images_of_class=int((truth_N == place).sum()),
                counts=" ".join(map(str, counts)),
            )
            cells[name] += [", ".join(map(str, counts)), *found.values(), apart.get(name, "–")]
    numbers.write(out / ERRORS)
    sizes = {of: int((truth_N == place).sum()) for place, of in enumerate(TYPES.values())}
    missing = int((~known_N).sum())
    return Table(
        caption="Table 3, inconsistency errors: images called ALNM and not malignant, both at 0.5. "
        "Type 1: the lesion is benign, so ALNM is wrong. Type 2: it is malignant, so malignancy is "
        f"wrong. Images of each repeat, and shares of all {int(known_N.sum())} test images and of "
        f"the class ({sizes['benign']} benign, {sizes['malignant']} malignant): mean ± SD over the "
        f"repeats. {missing} images without a malignancy label are left out. Differences are of "
        f"the share of all, paired by patient, with p of no difference as it is and adjusted by "
        f"Holm over the variants. Chain and max-constraint cannot make such errors at 0.5.",
        columns=[
            "Variant",
            *("Type 1: images", "of all", "of benign", f"minus {WITHOUT}"),
            *("Type 2: images", "of all", "of malignant", f"minus {WITHOUT}"),
        ],
        rows=[[name, *its] for name, its in cells.items()],
        file=ERRORS,
    )


def _price(test: HeldOut, pairs: Mapping[str, _Pair], how: Resampling, out: Path) -> Table:
    rows: list[list[Cell]] = []
    numbers = Rows()
    for name, pair in pairs.items():
        for point in ("0.5", CHOSEN):
            if point not in pair.at_R:
                why = "a repeat has no such threshold: validation lacks labels or scores for it"
                rows.append([name, point, why, *[""] * 6])
                continue
            found = _at(test, pair, point, how)
            at = {head: float(pair.at_R[point][head].mean()) for head in PAPERS_TWO}
            facts = {f"threshold_{head}": threshold for head, threshold in at.items()}
            numbers.add(found, variant=name, point=point, **facts)
            thresholds = ", ".join(f"{it:.3f}" for it in at.values())
            rows.append([name, point, thresholds, *found.values()])
        if name == CHAINED:
            found = _conditional(test, pair, how)
            numbers.add(found, variant=name, point="0.5, ALNM given malignancy")
            given = "0.5, ALNM given malignancy"
            rows.append([name, given, "0.500", "", "", *found.values(), "", ""])
    numbers.write(out / PRICE)
    return Table(
        caption=f"The price of coherence. Each variant at 0.5 and at {CHOSEN}: the highest "
        "thresholds that find 90 % on the validation part, chosen there for each repeat and head "
        "(their means here). Malignancy on all lesions, ALNM on malignant ones, errors as shares "
        "of all images. In a chain ALNM’s probability is a product and never above malignancy’s: "
        "at 0.5 it misses more than the conditional probability, which has a row of its own. "
        "With thresholds of their own, labels of two heads can disagree in any variant.",
        columns=[
            *("Variant", "Point", "Thresholds"),
            *("Malignancy: sensitivity", "specificity", "ALNM: sensitivity", "specificity"),
            *("Type 1", "Type 2"),
        ],
        rows=rows,
        file=PRICE,
    )


def _at(test: HeldOut, pair: _Pair, point: str, how: Resampling) -> dict[str, Json]:
    """Rates of both heads and shares of both errors at one operating point."""
    found: dict[str, Json] = {}
    for head in PAPERS_TWO:
        found |= _rates(head, pair.called(head, point), test, how)
    truth_N = test.truth["malignancy"]
    for type_, wrong_NR in pair.errors(truth_N, point).items():
        found[type_] = _rate(wrong_NR, ~np.isnan(truth_N), test.patient_N, how)
    return found


def _conditional(test: HeldOut, pair: _Pair, how: Resampling) -> dict[str, Json]:
    """Rates of the chain's own answer to the question of ALNM, at 0.5."""
    above_NR, p_NR = pair.p_NR["malignancy"], pair.p_NR["alnm"]
    return _rates("alnm", conditional(p_NR, above_NR) > AT, test, how)


def _rates(head: str, called_NR: Bools, test: HeldOut, how: Resampling) -> dict[str, Json]:
    truth_N, known_N = test.truth[head], test.known[head]
    return {
        f"{head} {rate}": _rate(
            called_NR == positive, known_N & (truth_N == positive), test.patient_N, how
        )
        for rate, positive in (("sensitivity", True), ("specificity", False))
    }


def _rate(
    event_NR: Bools, rows_N: Bools, patient_N: npt.NDArray[np.object_], how: Resampling
) -> Json:
    """The share of the rows with an event: mean over the repeats, interval by patient, `sd`."""
    event_nR, patient_n = event_NR[rows_N].astype(np.float64), patient_N[rows_N]
    drawn = bootstrap({"": _mean}, patient_n, event_nR, patient_n, **vars(how))[""]
    each = event_nR.mean(axis=0) if len(event_nR) else np.empty(0)
    sd = float(each.std(ddof=1)) if len(each) > 1 else None
    return {**as_json(drawn, _NO_ROW, patient_n), "sd": sd, "repeats": event_NR.shape[1]}


def _difference(
    first_nR: Bools, second_nR: Bools, patient_n: npt.NDArray[np.object_], how: Resampling
) -> Json:
    one, two = (it.astype(np.float64) for it in (first_nR, second_nR))
    drawn = bootstrap_difference(_mean, patient_n, one, two, patient_n, **vars(how))
    return as_json(drawn, _NO_ROW)


_mean = over_repeats(mean)


def _paper() -> str:
    without, with_ = (
        " and ".join(f"{100 * its[place]:.1f} %" for its in PAPER_INCONSISTENCY.values())
        for place in (0, 1)
    )
    return (
        f"The paper has {without} (type 1 and 2) without and {with_} with its hierarchical loss, "
        "on its own cohort; it does not say of which images these are shares."
    )


def _repair(test: HeldOut, pairs: Mapping[str, _Pair], how: Resampling) -> Sequence[str]:
    """What the chain misses at 0.5, and what repairs it, in words."""
    chain = pairs.get(CHAINED)
    if chain is None:
        return ()
    none = Resampling(resamples=0, seed=how.seed)

    def shown(name: str, pair: _Pair, point: str) -> str:
        found = _at(test, pair, point, none)
        rates = [found[f"alnm {it}"]["value"] for it in ("sensitivity", "specificity")]
        words = ["undefined" if it is None else f"{it:.3f}" for it in rates]
        return f"{name} {words[0]} (specificity {words[1]})"

    given = _conditional(test, chain, none)["alnm sensitivity"]["value"]
    others = [shown(REFERENCE, pairs[REFERENCE], "0.5")] if REFERENCE in pairs else []
    said = [
        f"ALNM, sensitivity at 0.5: {'; '.join([shown('the chain', chain, '0.5'), *others])}; the "
        f"chain’s conditional probability {'undefined' if given is None else f'{given:.3f}'}."
    ]
    if CHOSEN in chain.at_R:
        at = float(chain.at_R[CHOSEN]["alnm"].mean())
        wrong = chain.errors(test.truth["malignancy"], CHOSEN)
        counts = [f"{its.sum(axis=0).mean():.1f}" for its in wrong.values()]
        said.append(
            f"What repairs it is a threshold of its own, chosen on validation for a sensitivity of "
            f"0.90 (ALNM {at:.3f}, mean over the repeats): {shown('the chain', chain, CHOSEN)}, "
            f"with {counts[0]} type 1 and {counts[1]} type 2 errors a repeat. Serve it by "
            f"operating_point: {CHOSEN}."
        )
    return said

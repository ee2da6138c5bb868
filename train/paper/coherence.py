"""Table 3's inconsistency errors, and what each variant pays for coherence, in each unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from train.evidence.report import PAPER_INCONSISTENCY
from train.experiments.ablation_table import REFERENCE
from train.measures.measure import Resampling
from train.measures.units import distinct_units, unit_codes
from train.paper.coherence_rates import CHOSEN, Pair, pairs_of, rate, rate_difference
from train.paper.performance import OF_UNITS
from train.paper.sections import Cell, Rows, Section, Table
from train.repeats.measured import adjust
from train.repeats.runs import Network
from train.repeats.variants import PAPERS_TWO, HeldOut

ERRORS, PRICE = "tables/inconsistency.csv", "tables/coherence.csv"
CHAINED, WITHOUT = "chain", "multi-task"
TYPES = {"type_1": "benign", "type_2": "malignant"}


def coherence_section(
    test: HeldOut, networks: Mapping[str, Network], how: Resampling, out: Path
) -> Section:
    """Both tables; `networks`: of each variant."""
    pairs = dict(pairs_of(networks))
    if not pairs:
        why = "not made: no variant has both heads, since the cohort lacks a label of one"
        return Section(title="Inconsistency and the price of coherence", text=[f"Both: {why}."])
    errors, prices = Rows(), Rows()
    tables = []
    for unit in distinct_units(test.rows):
        tables += [
            _errors(test, pairs, unit, how, errors),
            _price(test, pairs, unit, how, prices),
        ]
    errors.write(out / ERRORS)
    prices.write(out / PRICE)
    return Section(
        title="Table 3: inconsistency, and the price of coherence",
        text=[_paper(), f"The paper’s are per image. {OF_UNITS}", *_repair(test, pairs, how)],
        tables=tables,
    )


def _errors(
    test: HeldOut, pairs: Mapping[str, Pair], unit: str, how: Resampling, numbers: Rows
) -> Table:
    cells: dict[str, list[Cell]] = {name: [] for name in pairs}
    found = {name: pair.errors(test, unit, "0.5") for name, pair in pairs.items()}
    on = next(iter(found.values()))[0]
    every_U = np.ones(len(on.truth_N), bool)
    sizes = {"benign": int((~on.truth_N).sum()), "malignant": int(on.truth_N.sum())}
    for type_, of in TYPES.items():
        wrong = {name: its[type_] for name, (_, its) in found.items()}
        apart = {
            name: rate_difference(wrong_UR, wrong[WITHOUT], on.patient_N, how)
            for name, wrong_UR in wrong.items()
            if WITHOUT in wrong and name != WITHOUT
        }
        adjust(list(apart.values()))
        for name, wrong_UR in wrong.items():
            counts = wrong_UR.sum(axis=0).tolist()
            shares = {
                f"{type_} of all": rate(wrong_UR, every_U, on, how),
                f"{type_} of {of}": rate(wrong_UR, on.truth_N == (of == "malignant"), on, how),
            }
            against = {f"{type_} of all minus {WITHOUT}": apart[name]} if name in apart else {}
            numbers.add(
                {**shares, **against},
                variant=name,
                per=unit,
                units=len(on.truth_N),
                units_of_class=sizes[of],
                counts=" ".join(map(str, counts)),
            )
            cells[name] += [", ".join(map(str, counts)), *shares.values(), apart.get(name, "–")]
    missing = len(set(unit_codes(test.rows, unit).tolist())) - len(on.truth_N)
    return Table(
        caption=f"Table 3, inconsistency errors per {unit}: called ALNM and not malignant, both at "
        "0.5. Type 1: it is benign, so ALNM is wrong. Type 2: it is malignant, so malignancy is "
        f"wrong. {unit.capitalize()}s of each repeat, and shares of all {len(on.truth_N)} in the "
        f"test part and of the class ({sizes['benign']} benign, {sizes['malignant']} malignant): "
        f"mean ± SD over the repeats. Left out without a malignancy label: {missing}. Differences "
        "are of the share of all, paired by patient, with p of no difference as it is and adjusted "
        "by Holm over the variants. Chain and max-constraint cannot make such errors at 0.5.",
        columns=[
            "Variant",
            *(f"Type 1: {unit}s", "of all", "of benign", f"minus {WITHOUT}"),
            *(f"Type 2: {unit}s", "of all", "of malignant", f"minus {WITHOUT}"),
        ],
        rows=[[name, *its] for name, its in cells.items()],
        file=ERRORS,
    )


def _price(
    test: HeldOut, pairs: Mapping[str, Pair], unit: str, how: Resampling, numbers: Rows
) -> Table:
    rows: list[list[Cell]] = []
    for name, pair in pairs.items():
        for point in ("0.5", CHOSEN):
            if point not in pair.at_R:
                why = "a repeat has no such threshold: validation lacks labels or scores for it"
                rows.append([name, point, why, *[""] * 6])
                continue
            found = pair.at(test, unit, point, how)
            at = {head: float(pair.at_R[point][head].mean()) for head in PAPERS_TWO}
            facts = {f"threshold_{head}": threshold for head, threshold in at.items()}
            numbers.add(found, variant=name, per=unit, point=point, **facts)
            thresholds = ", ".join(f"{it:.3f}" for it in at.values())
            rows.append([name, point, thresholds, *found.values()])
        if name == CHAINED:
            found = pair.conditional(test, unit, how)
            given = "0.5, ALNM given malignancy"
            numbers.add(found, variant=name, per=unit, point=given)
            rows.append([name, given, "0.500", "", "", *found.values(), "", ""])
    return Table(
        caption=f"The price of coherence per {unit}. Each variant at 0.5 and at {CHOSEN}: the "
        "highest thresholds that find 90 % on the validation part, chosen there for each repeat "
        "and head (their means here). Malignancy on all lesions, ALNM on malignant ones, errors as "
        f"shares of all {unit}s. In a chain ALNM’s probability is a product and never above "
        "malignancy’s: at 0.5 it finds no more than the conditional probability, which has a row "
        "of its own. With thresholds of their own, labels of two heads can disagree in any "
        "variant.",
        columns=[
            *("Variant", "Point", "Thresholds"),
            *("Malignancy: sensitivity", "specificity", "ALNM: sensitivity", "specificity"),
            *("Type 1", "Type 2"),
        ],
        rows=rows,
        file=PRICE,
    )


def _paper() -> str:
    without, with_ = (
        " and ".join(f"{100 * its[place]:.1f} %" for its in PAPER_INCONSISTENCY.values())
        for place in (0, 1)
    )
    return (
        f"The paper has {without} (type 1 and 2) without and {with_} with its hierarchical loss, "
        "on its own cohort; it does not say of which images these are shares."
    )


def _repair(test: HeldOut, pairs: Mapping[str, Pair], how: Resampling) -> Sequence[str]:
    """What the chain misses at 0.5, and what repairs it, in words."""
    chain = pairs.get(CHAINED)
    if chain is None:
        return ()
    none = Resampling(resamples=0, seed=how.seed)

    def shown(name: str, pair: Pair, point: str) -> str:
        found = pair.at(test, "image", point, none)
        rates = [found[f"alnm {it}"]["value"] for it in ("sensitivity", "specificity")]
        words = ["undefined" if it is None else f"{it:.3f}" for it in rates]
        return f"{name} {words[0]} (specificity {words[1]})"

    given = chain.conditional(test, "image", none)["alnm sensitivity"]["value"]
    others = [shown(REFERENCE, pairs[REFERENCE], "0.5")] if REFERENCE in pairs else []
    at_half = "; ".join([shown("the chain", chain, "0.5"), *others])
    said = [
        f"ALNM, sensitivity per image at 0.5: {at_half}; the chain’s conditional probability "
        f"{'undefined' if given is None else f'{given:.3f}'}."
    ]
    if CHOSEN in chain.at_R:
        at = float(chain.at_R[CHOSEN]["alnm"].mean())
        _, wrong = chain.errors(test, "image", CHOSEN)
        counts = [f"{its.sum(axis=0).mean():.1f}" for its in wrong.values()]
        said.append(
            "With the threshold that was chosen on validation for a sensitivity of 0.90 (ALNM "
            f"{at:.3f}, mean over the repeats): {shown('the chain', chain, CHOSEN)}, with "
            f"{counts[0]} type 1 and {counts[1]} type 2 errors a repeat. Serve it by "
            f"operating_point: {CHOSEN}."
        )
    return said

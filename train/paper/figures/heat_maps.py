"""Figures 4 to 6: what networks look at in the same lesions, which rules choose and no hand does.

A rule takes one image a patient. Maps are Grad-CAM, as the product serves it, of the repeat with
seed 0; the probabilities of all repeats are in the tables.

Shapes in names: N rows of the test part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from model_def.overlay import overlay
from train import pages
from train.evidence.saliency import highest
from train.experiments.ablation_table import REFERENCE
from train.fitting.predictions import Predictions
from train.paper.figures.pictures import Panel, pasted
from train.paper.sections import Figure, Section
from train.repeats.measured import AT
from train.repeats.variants import PAPERS_TWO, TASKS
from train.statistics.binary import Bools, Floats, inconsistency

WITHOUT, CHAINED, ALONE = "multi-task", "chain", "single alnm"
FILE = "figures/figure-{}.png"
SIDE_BY_SIDE = 4  # lesions of Figure 6, as in the paper
RULES = (
    "Which images are shown is decided by rule, among the test part, with the networks of seed 0 "
    "and both thresholds at 0.5; one image a patient in a figure, the first of equals. Heat maps "
    "are Grad-CAM of a head’s own logit; where another head decides a probability (in a chain), "
    "the picture names it. Colours are relative to each map’s own maximum; a map without colour "
    "says that no place raises that logit.",
    "Figure 4 takes, of the images that the network without hierarchical loss calls ALNM and not "
    "malignant, the one with the largest gap between the two probabilities, whatever the other "
    "networks make of it: one of a benign lesion (type 1), one of a malignant one (type 2). "
    "Figure 5 takes of each kind, among those that both heads call right, the one whose less sure "
    "head is surest. Figure 6 takes the lesions with ALNM that both networks call right, by the "
    "highest mean of the two probabilities.",
)


@dataclass(frozen=True)
class _Network:
    """What one network says of the test part."""

    name: str
    predictions: Predictions

    @property
    def patients(self) -> pd.Series:
        """Whose image each row is."""
        return self.predictions.frame["patient_id"]

    def p(self, head: str) -> Floats:
        """Probability (N,) of a head."""
        found: Floats = self.predictions.frame[f"{head}_probability"].to_numpy(np.float64)
        return found

    def truth(self, head: str) -> Floats:
        """1, 0, or NaN where it is missing (N,)."""
        column = self.predictions.frame[f"{head}_truth"]
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), np.float64)

    def probability(self, head: str, row: int) -> str:
        """The probability, in words."""
        return f"{self.name}: {TASKS[head].title} {self.p(head)[row]:.2f}"

    def map_of(self, head: str, row: int) -> Panel:
        """The crop under the head's map, the probability above it."""
        lines = [self.probability(head, row)]
        decides = self.predictions.explained.get(head)
        if decides is not None and decides[row] != head:
            lines.append(f"map of {decides[row]}, which decides it")
        return Panel(lines, overlay(self.predictions.crops[row], self.predictions.cams[head][row]))


def heat_maps_section(
    explain: Callable[[str], Predictions],
    trained: Sequence[str],
    out: Path,
    *,
    synthetic: bool,
) -> Section:
    """The three figures; `explain` scores the test part by the first repeat of a variant."""
    names = [it for it in (WITHOUT, REFERENCE, CHAINED, ALONE) if it in trained]
    networks = {name: _Network(name, explain(name)) for name in names}
    text, figures = [*RULES], []
    for made in (_figure_4, _figure_5, _figure_6):
        for it in made(networks, out, synthetic):
            if isinstance(it, Figure):
                figures.append(it)
            else:
                text.append(it)
    return Section(
        title="Figures 4 to 6: heat maps, before and after the hierarchical loss",
        text=text,
        figures=figures,
    )


_Found = Iterator[Figure | str]


def _figure_4(networks: Mapping[str, _Network], out: Path, synthetic: bool) -> _Found:
    without = networks.get(WITHOUT)
    if without is None or REFERENCE not in networks:
        yield f"Figure 4 is absent: it needs {WITHOUT} and {REFERENCE}, and one was not trained."
        return
    shown = [networks[name] for name in (WITHOUT, REFERENCE, CHAINED) if name in networks]
    gap_N = without.p("alnm") - without.p("malignancy")
    taken: list[object] = []
    for type_, of in (("1", "benign"), ("2", "malignant")):
        wrong = {it.name: _inconsistent(it, type_) for it in shown}
        counts = ", ".join(f"{name} {int(its.sum())}" for name, its in wrong.items())
        row = next(iter(highest(without.patients, gap_N, wrong[WITHOUT], taken)), None)
        if row is None:
            whose = " of another patient" if wrong[WITHOUT].any() else ""
            yield (
                f"Figure 4, type {type_}: absent, since {WITHOUT} calls no {of} lesion{whose} ALNM "
                f"without calling it malignant. Such images: {counts}."
            )
            continue
        taken.append(without.patients.iloc[row])
        rows: list[list[Panel | None]] = [
            [_image(without, row, synthetic), *(it.map_of("malignancy", row) for it in shown)],
            [None, *(it.map_of("alnm", row) for it in shown)],
        ]
        words = [it.probability(head, row) for it in shown for head in PAPERS_TWO]
        yield _figure(
            rows,
            f"Figure 4, type {type_}. A {of} lesion: without the hierarchical loss, with it, and "
            f"in the chain. Such errors among all test images: {counts}.",
            words,
            out / FILE.format(f"4-type-{type_}"),
            synthetic,
        )


def _inconsistent(network: _Network, type_: str) -> Bools:
    found = inconsistency(
        network.truth("malignancy"),
        network.p("malignancy"),
        network.p("alnm"),
        parent_threshold=AT,
        child_threshold=AT,
    )
    return found.type_1_N if type_ == "1" else found.type_2_N


def _figure_5(networks: Mapping[str, _Network], out: Path, synthetic: bool) -> _Found:
    network = networks.get(REFERENCE)
    if network is None:
        yield f"Figure 5 is absent: {REFERENCE} was not trained."
        return
    sure_N = np.minimum(*(np.abs(network.p(head) - AT) for head in PAPERS_TWO))
    rows: list[list[Panel | None]] = []
    words: list[str] = []
    counts: list[str] = []
    taken: list[object] = []
    for kind, malignant, alnm in (
        ("benign", 0, 0),
        ("malignant without ALNM", 1, 0),
        ("malignant with ALNM", 1, 1),
    ):
        # A benign lesion has no ALNM, also where the cohort leaves that blank.
        of_N = network.truth("malignancy") == malignant
        if malignant:
            of_N &= network.truth("alnm") == alnm
        right_N = of_N & ((network.p("malignancy") > AT) == malignant)
        right_N &= (network.p("alnm") > AT) == alnm
        counts.append(f"{kind} {int(right_N.sum())} of {int(of_N.sum())}")
        row = next(iter(highest(network.patients, sure_N, right_N, taken)), None)
        if row is None:
            whose = ", all of patients who are in it" if right_N.any() else ""
            yield (
                f"Figure 5 has no {kind} lesion: both heads call {int(right_N.sum())} of "
                f"{int(of_N.sum())} right{whose}."
            )
            continue
        taken.append(network.patients.iloc[row])
        maps = [network.map_of(head, row) for head in PAPERS_TWO]
        rows.append([_image(network, row, synthetic), *maps])
        words += [network.probability(head, row) for head in PAPERS_TWO]
    if rows:
        yield _figure(
            rows,
            "Figure 5. Image, map of malignancy and map of ALNM. Both heads right: "
            f"{'; '.join(counts)}.",
            words,
            out / FILE.format("5"),
            synthetic,
        )


def _figure_6(networks: Mapping[str, _Network], out: Path, synthetic: bool) -> _Found:
    several, alone = networks.get(REFERENCE), networks.get(ALONE)
    if several is None or alone is None:
        yield f"Figure 6 is absent: it needs {REFERENCE} and {ALONE}, and one was not trained."
        return
    pair = (several, alone)
    with_N = several.truth("alnm") == 1
    right_N = with_N & (several.p("alnm") > AT) & (alone.p("alnm") > AT)
    mean_N = np.mean([it.p("alnm") for it in pair], axis=0)
    rows = highest(several.patients, mean_N, right_N)[:SIDE_BY_SIDE]
    counts = f"{int(right_N.sum())} of {int(with_N.sum())} images with ALNM"
    if not rows:
        yield f"Figure 6 is absent: both networks call {counts} right."
        return
    yield _figure(
        [
            [_image(several, row, synthetic) for row in rows],
            *([it.map_of("alnm", row) for row in rows] for it in pair),
        ],
        f"Figure 6. Lesions with ALNM under the network of both tasks and that of ALNM alone. Both "
        f"call {counts} right.",
        [it.probability("alnm", row) for row in rows for it in pair],
        out / FILE.format("6"),
        synthetic,
    )


def _image(network: _Network, row: int, synthetic: bool) -> Panel:
    """The crop alone, with what the cohort says of it."""
    malignant, alnm = (network.truth(head)[row] for head in PAPERS_TWO)
    words = [{0.0: "benign", 1.0: "malignant"}.get(malignant, "malignancy unknown")]
    if malignant != 0:
        words.append({0.0: "no ALNM", 1.0: "ALNM"}.get(alnm, "ALNM unknown"))
    found = [f"truth: {', '.join(words)}", *(["SYNTHETIC: no patient"] if synthetic else [])]
    return Panel(found, network.predictions.crops[row])


def _figure(
    rows: Sequence[Sequence[Panel | None]],
    caption: str,
    words: Sequence[str],
    path: Path,
    synthetic: bool,
) -> Figure:
    png = pasted(rows)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(png)
    return Figure(
        caption=f"{caption}{' SYNTHETIC: no patient is in it.' if synthetic else ''}",
        alt=f"Heat maps; {'; '.join(words)}",
        uri=pages.data_uri("image/png", png),
        file=f"figures/{path.name}",
        wide=True,
    )

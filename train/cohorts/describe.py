"""The paper's Table 1: who is in a cohort, by malignancy and by axillary lymph nodes (ALN).

Patients are the unit: each counts once, so that the tests' assumption of independent rows holds.
A patient is malignant where one of its lesions is, ALN+ where one of its malignant lesions is; a
patient without any of these labels is in neither group. A covariate is the mean over a patient's
known rows; a patient with several values of a label (two devices, say) counts as `several`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from sonode.measure_text import p_value
from train.cohorts.cohort import Cohort

ALL, BENIGN, MALIGNANT, NEGATIVE, POSITIVE = "all", "benign", "malignant", "ALN-", "ALN+"
GROUPS = (ALL, BENIGN, MALIGNANT, NEGATIVE, POSITIVE)
SEVERAL = "several"
UNDEFINED = "undefined"
MOST_VALUES = 20  # a column of more is a number of a study or free text, and may name a patient
_NODES = ("0", "1", "2", "3", "4 or more")

NOTES = (
    "Counts and % are of patients with a known value. Images and boxes count for their patient.",
    "ALN: axillary lymph nodes, without (-) or with (+) metastasis. A patient is malignant if any "
    "lesion is, and ALN+ if any of the malignant lesions is.",
    "Chi-square with Yates' correction where the table is 2 x 2; Student's t, equal variances; "
    "both two-sided.",
    "* A cell expects fewer than 5 patients: do not rely on the p of the chi-square test. "
    "Undefined: a group has no known value (or one alone, of an SD or t), or nothing varies.",
)


class Comparison(NamedTuple):
    """Outcome of a comparison of two groups."""

    p: float | None
    """Two-sided p-value; None where the data do not define one."""
    sparse: bool = False
    """A cell of the table expects fewer than 5 patients."""

    def __str__(self) -> str:
        """What a table shows."""
        return p_value(self.p) + "*" * self.sparse


def chi_square(counts_CG: npt.ArrayLike) -> Comparison:
    """Pearson's chi-square of independence for counts of C categories in 2 groups.

    Yates' continuity correction applies where two categories are left (scipy's default, which the
    paper used: "the scipy package"). Categories without a patient are left out; undefined where
    fewer than two are left or a group is empty.
    """
    counts = np.asarray(counts_CG)
    counts = counts[counts.sum(axis=1) > 0]
    if len(counts) < 2 or not counts.sum(axis=0).all():
        return Comparison(None)
    outcome = stats.chi2_contingency(counts, correction=True)
    return Comparison(float(outcome.pvalue), bool((outcome.expected_freq < 5).any()))


def student_t(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Student's t of two independent samples with equal variances, as the paper's.

    Undefined where a group is empty, no degree of freedom is left, or nothing varies by more than
    the rounding of a patient's mean (of three times 0.1, 0.1 and a last digit).
    """
    if not len(a) or not len(b) or len(a) + len(b) < 3:
        return Comparison(None)
    if np.ptp(a) + np.ptp(b) <= 1e-12 * np.abs([*a, *b]).max():
        return Comparison(None)
    return Comparison(float(stats.ttest_ind(a, b, equal_var=True).pvalue))


def table_one(cohort: Cohort) -> pd.DataFrame:
    """The table as text, ready to be shown.

    Columns: characteristic (blank where the row goes on with the one above), value (`n (%)`, a
    category, `mean ± SD`, `range`, or `missing`), the five `GROUPS`, `p malignancy` (benign against
    malignant) and `p ALN` (ALN- against ALN+, both malignant).
    """
    groups = _groups(cohort.table)
    pairs = {"p malignancy": (BENIGN, MALIGNANT), "p ALN": (NEGATIVE, POSITIVE)}
    rows = [
        _row("patients", "", [f"{len(ids)}" for ids in groups.values()]),
        *_unlabelled(groups),
        *_characteristics(cohort, groups, list(pairs.values())),
    ]
    return pd.DataFrame(rows, columns=["characteristic", "value", *groups, *pairs])


def table_of_parts(cohort: Cohort, part_N: npt.NDArray[np.str_]) -> pd.DataFrame:
    """Whom each of two parts holds, as text: the columns of the paper's Table 1.

    `part_N`: the name of the part of each row, two in all. Columns: characteristic and value as in
    `table_one`, the parts in order of appearance, and `p`, the one against the other.
    """
    ids = cohort.table["patient_id"]
    groups = {str(it): pd.Index(ids[part_N == it].unique()) for it in pd.unique(part_N)}
    (pair,) = itertools.combinations(groups, 2)
    every = _groups(cohort.table)
    rows = [_row("patients", "", [f"{len(its)}" for its in groups.values()], [""])]
    for name, labels in (("malignancy", (BENIGN, MALIGNANT)), ("ALN", (NEGATIVE, POSITIVE))):
        known = pd.concat([pd.Series(it, every[it], dtype=object) for it in labels])
        of_whom = every[ALL] if name == "malignancy" else every[MALIGNANT]
        mine = {part: its.intersection(of_whom) for part, its in groups.items()}
        rows += _categorical(name, known.reindex(of_whom), list(labels), mine, [pair])
    rows += _characteristics(cohort, groups, [pair], test_nodes=True)
    return pd.DataFrame(rows, columns=["characteristic", "value", *groups, "p"])


def _characteristics(
    cohort: Cohort, groups: Groups, pairs: Sequence[tuple[str, str]], *, test_nodes: bool = False
) -> list[list[str]]:
    """All that is known of the patients but malignancy and ALN.

    `test_nodes`: whether positive nodes have a p; by malignancy and ALN they differ by definition.
    """
    table, none = cohort.table, [""] * len(pairs)
    by_patient = table.groupby("patient_id")
    rows = []
    for what, column in (("images", "image"), ("lesion boxes", None)):
        mine = [table[table["patient_id"].isin(ids)] for ids in groups.values()]
        cells = [f"{len(it) if column is None else it[column].nunique()}" for it in mine]
        rows.append(_row(what, "", cells, none))
    for name in cohort.covariates:
        rows += _covariate(name, by_patient[name].mean(), groups, pairs)
    for name in ("device", *cohort.categorical):
        values = by_patient[name].agg(_one).astype(object)
        categories = sorted(set(values.dropna()), key=lambda value: (value == SEVERAL, value))
        if len(categories) > MOST_VALUES:
            shown = f"{len(categories)} values, not shown"
            rows.append(_row(name, shown, [""] * len(groups), none))
            continue
        rows += _categorical(name, values, categories, groups, pairs)
    burden = by_patient["n_nodes"].max()
    nodes = pd.Series(
        [None if pd.isna(count) else _NODES[min(int(count), 4)] for count in burden],
        index=burden.index,
        dtype=object,
    )
    return rows + _categorical(
        *("positive nodes", nodes, list(_NODES), groups, pairs), test=test_nodes
    )


Groups = dict[str, "pd.Index[str]"]


def _groups(table: pd.DataFrame) -> Groups:
    """The ids of the patients in each of `GROUPS`."""

    def split(rows: pd.DataFrame, label: str) -> tuple[pd.Index[str], pd.Index[str]]:
        positive = rows.dropna(subset=label).groupby("patient_id")[label].max().astype(bool)
        return positive.index[~positive], positive.index[positive]

    benign, malignant = split(table, "malignant")
    negative, positive = split(table[table["malignant"].fillna(False).astype(bool)], "alnm")
    every = pd.Index(table["patient_id"].unique())
    return {
        ALL: every,
        BENIGN: benign,
        MALIGNANT: malignant,
        NEGATIVE: negative,
        POSITIVE: positive,
    }


def _one(values: pd.Series) -> str | None:
    known = values.dropna().unique()
    return None if len(known) == 0 else str(known[0]) if len(known) == 1 else SEVERAL


def _row(what: str, value: str, cells: Sequence[str], p: Sequence[str] = ("", "")) -> list[str]:
    return [what, value, *cells, *p]


def _unlabelled(groups: Groups) -> list[list[str]]:
    """How many patients of a group are in none of its parts."""
    sizes = {name: len(ids) for name, ids in groups.items()}
    no_malignancy = sizes[ALL] - sizes[BENIGN] - sizes[MALIGNANT]
    no_alnm = sizes[MALIGNANT] - sizes[NEGATIVE] - sizes[POSITIVE]
    return [
        _row("", "malignancy missing", [f"{no_malignancy}", "", "", "", ""]),
        _row("", "ALN missing", ["", "", f"{no_alnm}", "", ""]),
    ]


def _covariate(
    name: str, values: pd.Series, groups: Groups, pairs: Sequence[tuple[str, str]]
) -> list[list[str]]:
    known = {group: values[ids].dropna().to_numpy(float) for group, ids in groups.items()}
    cells, ranges = [], []
    for sample in known.values():
        spread = f"{sample.std(ddof=1):.2f}" if len(sample) > 1 else UNDEFINED
        cells.append(f"{sample.mean():.2f} ± {spread}" if len(sample) else UNDEFINED)
        ranges.append(f"{sample.min():g} to {sample.max():g}" if len(sample) else UNDEFINED)
    p = [str(student_t(list(known[a]), list(known[b]))) for a, b in pairs]
    none = [""] * len(pairs)
    return [
        _row(name, "mean ± SD", cells, p),
        _row("", "range", ranges, none),
        _missing(values, groups, none),
    ]


def _categorical(
    name: str,
    values: pd.Series,
    categories: list[str],
    groups: Groups,
    pairs: Sequence[tuple[str, str]],
    *,
    test: bool = True,
) -> list[list[str]]:
    counts = {
        group: [int((values[ids] == category).sum()) for category in categories]
        for group, ids in groups.items()
    }
    p = [
        str(chi_square(np.array([counts[a], counts[b]]).reshape(2, -1).T)) if test else ""
        for a, b in pairs
    ]
    none = [""] * len(pairs)
    rows = [_row(name, "n (%)", [""] * len(groups), p)]
    for order, category in enumerate(categories):
        cells = []
        for found in counts.values():
            known = sum(found)
            share = f" ({100 * found[order] / known:.1f})" if known else ""
            cells.append(f"{found[order]}{share}")
        rows.append(_row("", category, cells, none))
    return [*rows, _missing(values, groups, none)]


def _missing(values: pd.Series, groups: Groups, none: Sequence[str]) -> list[str]:
    cells = [f"{int(values[ids].isna().sum())}" for ids in groups.values()]
    return _row("", "missing", cells, none)

"""The radiomics baseline's model: Boruta's selection of features and a random forest per label.

Rows are lesion boxes. Those of one patient count as independent in selection and forest (the paper
speaks of images and says nothing else); the split keeps them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sonode_console import UserError, say
from train.cohort import Cohort
from train.radiomic_features import FeatureSet, feature_names
from train.split import part_of

ABOUT = ("patient_id", "lesion_id", "image", "device", "n_nodes")  # of a row of predictions

# The paper gives max_depth only. Classes are not weighted: the network's cross entropy is not
# either, so both estimate probabilities at the cohort's prevalence.
FOREST: dict[str, Any] = {
    "n_estimators": 500,
    "max_depth": 300,
    "max_features": "sqrt",
    "min_samples_leaf": 1,
    "class_weight": None,
}
# Boruta's defaults (Kursa & Rudnicki 2010, J. Stat. Softw. 36(11)), around the forest that its
# documentation advises: shallow and balanced. Under max_depth 300 its `auto` would grow 4 trees.
BORUTA: dict[str, Any] = {
    "n_estimators": "auto",
    "perc": 100,
    "alpha": 0.05,
    "two_step": True,
    "max_iter": 100,
}
BORUTA_FOREST: dict[str, Any] = {"max_depth": 5, "class_weight": "balanced"}


class Label(NamedTuple):
    """A label with a forest of its own."""

    name: str
    """The name that a network's head for it has."""
    column: str
    """Where the cohort has it."""
    parent: str | None
    """The label whose positives it is trained on, as in the paper; None: all rows."""


LABELS = (Label("malignancy", "malignant", None), Label("alnm", "alnm", "malignancy"))
COLUMN = {label.name: label.column for label in LABELS}


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A forest for one label and what it was made from."""

    n_images: int
    n_positive: int
    selected: list[str] | None
    """What Boruta confirmed; None where it confirmed nothing and all features are used."""
    used: list[str]
    """The features that the forest sees."""
    forest: Any

    def probability(self, features: pd.DataFrame) -> npt.NDArray[np.float64]:
        """The share of trees' votes for the positive class, in [0, 1]."""
        # One thread: several would add the trees up in any order, and the last bit would differ.
        self.forest.set_params(n_jobs=1)
        found: npt.NDArray[np.float64] = self.forest.predict_proba(features[self.used].to_numpy())
        return found[:, 1]


@dataclass(frozen=True)
class Auc:
    """ROC AUC of one label on some rows of the test part; None where a class is absent."""

    on: str
    """`all`, or the parent's positives: the paper evaluates ALNM on malignant lesions."""
    n_images: int
    n_positive: int
    auc: float | None


def fit_label(features: pd.DataFrame, truth: npt.NDArray[np.bool_], seed: int) -> Fitted:
    """Select features with Boruta on these rows, of both classes, and grow a forest on them.

    Where Boruta confirms none, the forest is grown on all and `selected` says so.
    """
    from boruta import BorutaPy
    from sklearn.ensemble import RandomForestClassifier

    assert truth.any() and not truth.all()
    selector = BorutaPy(
        RandomForestClassifier(**BORUTA_FOREST, n_jobs=-1), **BORUTA, random_state=seed
    ).fit(features.to_numpy(), truth)
    selected = list(features.columns[selector.support_])
    used = selected or list(features.columns)
    forest = RandomForestClassifier(**FOREST, n_jobs=-1, random_state=seed)
    return Fitted(
        n_images=len(truth),
        n_positive=int(truth.sum()),
        selected=selected or None,
        used=used,
        forest=forest.fit(features[used].to_numpy(), truth),
    )


def fit(
    cohort: Cohort, features: pd.DataFrame, *, split_seed: int, seed: int, feature_set: FeatureSet
) -> dict[str, Fitted]:
    """A forest for each label that the patients outside the test part have, by its name.

    Raises:
        UserError: a part of the split is empty, a label has one class only, or there is none.
    """
    tested = in_test_part(cohort, split_seed)
    where = f"COHORT {cohort.folder}, split seed {split_seed}"
    if tested.all() or not tested.any():
        part = "training" if tested.all() else "the test part"
        raise UserError(f"{where}: no patient falls into {part}; the cohort is too small")
    fitted: dict[str, Fitted] = {}
    for label in LABELS:
        column = cohort.table[label.column]
        rows = ~tested & column.notna().to_numpy(dtype=bool) & _within(cohort, label)
        if not rows.any():
            say(f"{label.name}: no label outside the test part; left out")
            continue
        truth = column[rows].to_numpy(dtype=bool)
        if truth.all() or not truth.any():
            raise UserError(
                f"{where}: training has {truth.sum()} positive and {(~truth).sum()} negative "
                f"labels of `{label.column}`; it needs both, or none to be left out"
            )
        chosen = features.loc[rows, feature_names(feature_set)]
        say(f"{label.name}: Boruta and forest on {len(chosen)} lesion boxes")
        found = fitted[label.name] = fit_label(chosen, truth, seed)
        if found.selected is None:
            say(f"{label.name}: Boruta confirmed no feature; the forest uses all {feature_set}")
    if not fitted:
        raise UserError(f"{where}: no label to train on; label the cohort")
    return fitted


def in_test_part(cohort: Cohort, split_seed: int) -> npt.NDArray[np.bool_]:
    """Which rows are in the test part."""
    parts = [part_of(patient, split_seed) for patient in cohort.table["patient_id"]]
    return np.array([part == "test" for part in parts], dtype=bool)


def _within(cohort: Cohort, label: Label) -> npt.NDArray[np.bool_]:
    """The rows that are known to be positive for the label's parent; all where it has none."""
    if label.parent is None:
        return np.ones(len(cohort.table), dtype=bool)
    return cohort.table[COLUMN[label.parent]].fillna(False).to_numpy(dtype=bool)


def predict(
    cohort: Cohort, features: pd.DataFrame, fitted: dict[str, Fitted], *, split_seed: int
) -> pd.DataFrame:
    """The test part in cohort order: ids, and per label NAME_truth and NAME_probability.

    A missing label is null (`boolean`); the probability of a label that was left out is NaN.
    """
    rows = in_test_part(cohort, split_seed)
    table = cohort.table[rows].reset_index(drop=True)
    predictions = table[[*ABOUT]].copy()
    for label in LABELS:
        predictions[f"{label.name}_truth"] = table[label.column].astype("boolean")
        forest = fitted.get(label.name)
        predictions[f"{label.name}_probability"] = (
            np.nan if forest is None else forest.probability(features[rows])
        )
    return predictions


def aucs_of(predictions: pd.DataFrame, label: Label) -> list[Auc]:
    """The label's AUC on all test rows that have it, after that on its parent's positives."""
    from sklearn.metrics import roc_auc_score

    known = predictions[f"{label.name}_truth"].notna()
    sets = {"all": known}
    if label.parent is not None:
        positive = predictions[f"{label.parent}_truth"].fillna(False)
        sets = {f"{label.parent} positive": known & positive, **sets}
    aucs = []
    for on, chosen in sets.items():
        truth = predictions.loc[chosen, f"{label.name}_truth"].to_numpy(dtype=bool)
        score = predictions.loc[chosen, f"{label.name}_probability"]
        defined = 0 < truth.sum() < len(truth)
        auc = float(roc_auc_score(truth, score)) if defined else None
        aucs.append(Auc(on, len(truth), int(truth.sum()), auc))
    return aucs

"""The radiomics baseline's model: Boruta's selection of features and a random forest per head.

Rows are lesion boxes. Those of one patient count as independent in selection and forest (the paper
speaks of images and says nothing else); the split keeps them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from model_def.heads import HeadSpec, keep_heads
from sonode.console import UserError, say
from train.cohorts.cohort import Cohort
from train.cohorts.labels import implied, label_matrix, truth_of
from train.cohorts.split import divided_by, empty_part, parts_of
from train.fitting.predictions import facts_of
from train.radiomics.features import FeatureSet, feature_names

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


HEADS = (
    HeadSpec(name="malignancy", target="malignant", labels=("benign", "malignant")),
    HeadSpec(name="alnm", target="alnm", labels=("no ALNM", "ALNM"), parent="malignancy"),
    *(
        HeadSpec(
            name=f"nodes_{k}",
            target=f"n_nodes>={k}",
            labels=(f"fewer than {k}", f"{k} or more"),
            parent="alnm" if k == 2 else f"nodes_{k - 1}",
        )
        for k in (2, 3, 4)
    ),
)
"""What has a forest of its own, named as in the networks' configurations. Those with a parent are
trained on malignant lesions, the paper's set for nodes and their burden."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A forest for one head and what it was made from."""

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
    """A forest for each of `HEADS` that the patients outside the test part have both labels of.

    The other heads are left out, with a message: a cohort may hold malignant lesions only.

    Raises UserError: a part of the split is empty, or no head is left.
    """
    tested = in_test_part(cohort, split_seed)
    if tested.all() or not tested.any():
        why = empty_part(cohort.table, "train" if tested.all() else "test", split_seed)
        raise UserError(f"COHORT {cohort.folder}: {why}")
    own_NK = label_matrix(cohort.table, HEADS)
    # Registers count the nodes of positive axillae alone: without those the rest follow from, a
    # forest would learn the burden of these and be read as that of all malignant lesions.
    labels_NK = implied(own_NK, HEADS).numpy()
    fitted: dict[str, Fitted] = {}
    for k, (head, label_N) in enumerate(zip(HEADS, labels_NK.T, strict=True)):
        rows = ~tested & ~np.isnan(label_N)
        if own_NK[~tested, k].isnan().all():
            rows[:] = False
        if head.parent is not None:
            rows &= labels_NK[:, 0] == 1
        if not rows.any():
            say(f"{head.name}: no label outside the test part; left out")
            continue
        truth = label_N[rows] == 1
        if truth.all() or not truth.any():
            say(
                f"{head.name}: training has {truth.sum()} positive and {(~truth).sum()} negative "
                f"labels of `{head.target}`, and a forest needs both; left out"
            )
            continue
        chosen = features.loc[rows, feature_names(feature_set)]
        say(f"{head.name}: Boruta and forest on {len(chosen)} lesion boxes")
        found = fitted[head.name] = fit_label(chosen, truth, seed)
        if found.selected is None:
            say(f"{head.name}: Boruta confirmed no feature; the forest uses all {feature_set}")
    if not fitted:
        raise UserError(
            f"COHORT {cohort.folder}: no label of two classes outside the test part (divided by "
            f"{divided_by(cohort.table, split_seed)}); label the cohort"
        )
    return fitted


def in_test_part(cohort: Cohort, split_seed: int) -> npt.NDArray[np.bool_]:
    """Which rows are in the test part."""
    return np.array([part == "test" for part in parts_of(cohort.table, split_seed)], dtype=bool)


def predict(
    cohort: Cohort, features: pd.DataFrame, fitted: Mapping[str, Fitted], *, split_seed: int
) -> tuple[pd.DataFrame, tuple[HeadSpec, ...]]:
    """The test part's table, as of `train.fitting.predictions.Predictions`, and the heads in it."""
    rows = in_test_part(cohort, split_seed)
    # All others than the forest of malignancy have learned from malignant lesions alone.
    heads = tuple(
        head.model_copy(update={"given": None if head.target == "malignant" else "malignant"})
        for head in keep_heads(HEADS, [head.name for head in HEADS if head.name in fitted])
    )
    frame = facts_of(cohort, rows)
    labels_NK = implied(label_matrix(cohort.table, heads), heads)
    for head, label_N in zip(heads, labels_NK.numpy().T, strict=True):
        frame[f"{head.name}_truth"] = truth_of(label_N[rows], head.labels)
        frame[f"{head.name}_probability"] = fitted[head.name].probability(features[rows])
    return frame, heads

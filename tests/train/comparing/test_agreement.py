import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from train.comparing import agreement
from train.comparing.paired import mcnemar
from train.measures.measure import Resampling
from train.statistics.binary import value

HOW = Resampling(resamples=200, seed=0)
HEADS = {"malignancy": ("benign", "malignant"), "alnm": ("no ALNM", "ALNM")}


def test_kappa_by_hand() -> None:
    # 20 alike positive, 15 alike negative, 5 and 10 flipped: (0.7 - 0.5) / (1 - 0.5).
    first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert value(agreement.kappa, first, second) == pytest.approx(0.4)
    assert value(agreement.flipped, first, second) == pytest.approx(15 / 50)


def test_kappa_with_weights_and_three_labels_as_scikit_learn() -> None:
    chance = np.random.default_rng(0)
    first, second = chance.integers(0, 3, (2, 40))
    weights = chance.integers(0, 4, (5, 40)).astype(float)
    expected = [cohen_kappa_score(first, second, sample_weight=weight) for weight in weights]
    assert agreement.kappa(first, second, weights) == pytest.approx(expected)


def test_kappa_is_undefined_where_both_call_all_alike() -> None:
    same = np.ones(7, np.int64)
    assert value(agreement.kappa, same, same) is None
    assert value(agreement.kappa, same, 1 - same) == 0


def test_limits_of_agreement_by_hand() -> None:
    # Mean 0.1, SD with n - 1: sqrt((0.01 + 0 + 0.01) / 2) = 0.1.
    low, high = agreement.limits_of_agreement(np.array([0.0, 0.1, 0.2]))
    assert (low, high) == pytest.approx((0.1 - 0.1959964, 0.1 + 0.1959964))
    assert all(map(math.isnan, agreement.limits_of_agreement(np.array([0.1]))))


def test_mcnemar_by_hand() -> None:
    # Of 6 discordant pairs 1 was lost: 2 (C(6,0) + C(6,1)) / 2^6.
    assert mcnemar(1, 5) == pytest.approx(14 / 64)
    assert mcnemar(3, 3) == 1
    assert mcnemar(0, 0) is None


def frame(malignancy: list[float], alnm: list[float], truth: list[bool | None]) -> pd.DataFrame:
    called = {
        name: [HEADS[name][p > 0.5] for p in scores]
        for name, scores in (("malignancy", malignancy), ("alnm", alnm))
    }
    return pd.DataFrame(
        {
            "patient_id": ["p", "p", "q", "q", "r", "s"],
            "malignancy_truth": pd.array(truth, "boolean"),
            "malignancy_probability": malignancy,
            "malignancy_label": called["malignancy"],
            "alnm_truth": pd.array([None] * 6, "boolean"),
            "alnm_probability": alnm,
            "alnm_label": called["alnm"],
            "consistent": [m > 0.5 or a <= 0.5 for m, a in zip(malignancy, alnm, strict=True)],
        }
    )


PRIMARY = {"alnm": ("malignancy positive", "malignancy_truth")}
TRUTH = [True, True, True, False, False, None]
A = frame([0.9, 0.8, 0.4, 0.1, 0.6, 0.2], [0.6, 0.1, 0.6, 0.1, 0.1, 0.1], TRUTH)
B = frame([0.9, 0.4, 0.7, 0.2, 0.1, 0.2], [0.6, 0.1, 0.6, 0.6, 0.6, 0.1], TRUTH)


def test_a_head_by_hand() -> None:
    found = agreement.compare(A, B, HEADS, HOW, PRIMARY)["malignancy"]
    assert (found["rows"], found["patients"]) == (6, 4)
    flips = found["flips"]
    assert flips["count"] == 3
    assert flips["value"] == pytest.approx(0.5)
    assert flips["from_to"] == {"benign to malignant": 1, "malignant to benign": 2}
    # Three of six agree; chance (3 of 6)(2 of 6) + (3 of 6)(4 of 6) = 0.5: no agreement beyond it.
    assert found["kappa"]["value"] == pytest.approx(0)
    shift = found["shift"]["malignancy"]
    moved = np.array([0, -0.4, 0.3, 0.1, -0.5, 0])
    assert shift["mean"]["value"] == pytest.approx(moved.mean())
    assert shift["limits"] == pytest.approx(
        [moved.mean() - 1.959964 * moved.std(ddof=1), moved.mean() + 1.959964 * moved.std(ddof=1)]
    )
    assert shift["largest"] == pytest.approx(0.5)
    (auc,) = found["auc"]
    assert (auc["score"], auc["on"], auc["n_images"], auc["n_positive"]) == (
        *("malignancy", "all"),
        *(5, 3),
    )
    # Pairs of positive over negative: 5 of 6 before (0.4 is under 0.6), 6 of 6 after.
    assert (auc["a"], auc["b"]) == pytest.approx((5 / 6, 1))
    assert auc["difference"] == pytest.approx(1 / 6)
    right = found["right"]
    assert {name: one["rows"] for name, one in right.items()} == {
        "sensitivity": 3,
        "specificity": 2,
    }
    sensitivity = right["sensitivity"]
    assert (sensitivity["a"], sensitivity["b"]) == pytest.approx((2 / 3, 2 / 3))
    assert (sensitivity["lost"], sensitivity["gained"], sensitivity["mcnemar_p"]) == (1, 1, 1)
    assert right["specificity"]["difference"]["value"] == pytest.approx(0.5)


def test_patients_by_hand() -> None:
    a, b = (its.assign(malignancy_threshold=0.5) for its in (A, B))
    found = agreement.compare(a, b, HEADS, HOW, PRIMARY)["malignancy"]["units"]["patient"]
    # Means: p .85, q .25 (positive by one image), r .6 before; p .65, q .45, r .1 after.
    (auc,) = found["auc"]
    assert (auc["n"], auc["n_images"], auc["a"], auc["b"]) == (3, 5, 0.5, 1)
    sensitivity, specificity = (found["right"][it] for it in ("sensitivity", "specificity"))
    assert (sensitivity["a"], sensitivity["b"]) == (0.5, 0.5)
    assert (specificity["a"], specificity["b"], specificity["gained"]) == (0, 1, 1)


def test_without_labels_the_rest_stands() -> None:
    found = agreement.compare(A, B, HEADS, HOW, PRIMARY)["alnm"]
    assert {one["on"] for one in found["auc"]} == {"all", "malignancy positive"}
    assert all(one["difference"] is None for one in found["auc"])
    assert found["right"]["sensitivity"]["difference"]["reason"] == "no row of that label"
    assert found["flips"]["count"] == 2


def test_inconsistency_counts_both() -> None:
    found = agreement.inconsistency(A, B, HOW)
    # Before: the third row; after: the fourth and the fifth.
    assert (found["rows"], found["a"], found["b"]) == (6, 1, 2)
    assert found["difference"]["value"] == pytest.approx(1 / 6)


def test_a_model_against_itself() -> None:
    found = agreement.compare(A, A, HEADS, HOW, PRIMARY)["malignancy"]
    assert found["kappa"]["value"] == 1
    # No flip among four patients: Wilson's bound of none, z^2 / (4 + z^2).
    bound = pytest.approx(1.959964**2 / (4 + 1.959964**2))
    assert (found["flips"]["count"], found["flips"]["low"], found["flips"]["high"]) == (0, 0, bound)
    same = found["right"]["specificity"]["difference"]  # of two patients
    wide = pytest.approx(1.959964**2 / (2 + 1.959964**2))
    assert (same["value"], -same["low"], same["high"]) == (0, wide, wide)
    assert found["right"]["sensitivity"]["mcnemar_p"] is None
    auc = found["auc"][0]  # of four patients: too many draws without both classes for a p-value
    assert (auc["difference"], auc["high"], auc["p_value"]) == (0, wide, None)


def test_a_categorical_head() -> None:
    labels = ("A", "B", "C")
    rows = {"patient_id": list("pqrs"), "subtype_truth": pd.array(["A", "B", "C", None], "string")}

    def scored(called: str) -> pd.DataFrame:
        p = {
            f"subtype_probability_{label}": [0.8 if c == label else 0.1 for c in called]
            for label in labels
        }
        return pd.DataFrame({**rows, **p, "subtype_label": list(called)})

    found = agreement.compare(scored("ABBC"), scored("ABCA"), {"subtype": labels}, HOW, PRIMARY)[
        "subtype"
    ]
    assert found["flips"]["from_to"] == {"B to C": 1, "C to A": 1}
    assert set(found["shift"]) == {"subtype=A", "subtype=B", "subtype=C"}
    accuracy = found["right"]["accuracy"]
    assert (accuracy["rows"], accuracy["lost"], accuracy["gained"]) == (3, 0, 1)
    assert accuracy["b"] == 1


def test_no_row_leaves_all_undefined() -> None:
    found = agreement.compare(A[:0], B[:0], HEADS, HOW, PRIMARY)["malignancy"]
    assert found["kappa"]["value"] is None
    assert found["kappa"]["reason"] == "no row was scored by both"
    assert found["shift"]["malignancy"]["limits"] is None

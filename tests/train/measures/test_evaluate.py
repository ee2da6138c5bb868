import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from model_def.heads import Hierarchy
from sonode.console import UserError, counted
from tests.train.synthetic_predictions import HEADS, LABELS, ROI, SECRET, synthetic
from train.fitting.predictions import Predictions
from train.measures.evaluate import evaluate
from train.statistics import binary, reliability
from train.statistics.bootstrap import bootstrap

MALIGNANCY, ALNM, NODES_2, SUBTYPE = HEADS


def small(rows: list[tuple[object, ...]], heads: tuple[object, ...] = HEADS[:2]) -> Predictions:
    """(patient, device, malignancy truth, p, alnm truth, p) of each image."""
    columns = ["patient_id", "device", "malignancy_truth", "malignancy_probability"]
    frame = pd.DataFrame(rows, columns=[*columns, "alnm_truth", "alnm_probability"])
    frame["lesion_id"] = "one"
    frame = frame.assign(**ROI)
    for name in ("malignancy_truth", "alnm_truth"):
        frame[name] = pd.array(frame[name], "boolean")
    for name in ("malignancy_probability", "alnm_probability"):
        frame[name] = frame[name].astype(float)
    return Predictions(frame=frame, heads=heads, hierarchy="independent", about={})  # type: ignore[arg-type]


BY_HAND = small(
    [
        ("a", "GE", True, 0.9, True, 0.7),
        ("a", "GE", True, 0.3, True, 0.6),
        ("b", "GE", True, 0.4, False, 0.2),
        ("c", None, False, 0.45, False, 0.8),
        ("c", None, False, 0.1, None, 0.1),
        ("d", "Hitachi", None, 0.2, False, 0.9),
        ("e", "Hitachi", True, 0.8, True, 0.1),
        ("e", "Hitachi", False, 0.6, False, 0.3),
    ]
)


@pytest.fixture(scope="module")
def by_hand() -> dict:
    return evaluate(BY_HAND, resamples=50)


def test_images_and_patients_by_hand(by_hand: dict) -> None:
    metrics = by_hand
    assert (metrics["rows"], metrics["patients"]) == (8, 5)
    both = metrics["heads"]["malignancy"]["sets"]["all"]
    image, patient = both["image"], both["patient"]
    assert metrics["heads"]["malignancy"]["missing"] == 1
    assert (image["rows"], image["positive"], image["negative"], image["patients"]) == (7, 4, 3, 4)
    # Positive .9 .3 .4 .8 against .45 .1 .6: 3 + 1 + 1 + 3 of 12.
    assert image["roc_auc"]["value"] == pytest.approx(8 / 12)
    # Means: a .6 (positive), b .4, c .275 (negative), e .7, which is positive by its first image.
    assert (patient["rows"], patient["positive"], patient["mixed"]) == (4, 3, 1)
    assert patient["roc_auc"]["value"] == 1
    half = patient["operating_points"]["0.5"]
    assert (half["true_positive"], half["false_negative"]) == (2, 1)
    assert half["sensitivity"]["value"] == pytest.approx(2 / 3)
    assert half["wilson"]["specificity"] == pytest.approx([0.2065, 1], abs=1e-4)  # 1 of 1


def test_lesions_and_the_maximum_by_hand() -> None:
    lesions = ["l", "l", "l", "l", "r", "l", "l", "r"]  # c has two, and e
    predictions = dataclasses.replace(BY_HAND, frame=BY_HAND.frame.assign(lesion_id=lesions))
    metrics = evaluate(predictions, resamples=50, aggregation="max")
    assert metrics["method"]["aggregation"] == "max"
    both = metrics["heads"]["malignancy"]["sets"]["all"]
    lesion, patient = both["lesion"], both["patient"]
    assert (lesion["rows"], lesion["patients"], lesion["positive"], lesion["mixed"]) == (6, 4, 3, 0)
    # Positive a .9, b .4, e .8 against c .45, c .1, e .6: 3 + 1 + 3 of 9.
    assert lesion["roc_auc"]["value"] == pytest.approx(7 / 9)
    # Patients: a .9, b .4, e .8 against c .45.
    assert patient["roc_auc"]["value"] == pytest.approx(2 / 3)
    half = lesion["operating_points"]["0.5"]
    # Called: a and e rightly, e's other lesion wrongly; b missed, both of c passed.
    assert half["npv"]["value"] == pytest.approx(2 / 3)
    assert half["lr_positive"]["value"] == pytest.approx((2 / 3) / (1 / 3))
    assert half["lr_negative"]["value"] == pytest.approx((1 / 3) / (2 / 3))
    none = both["patient"]["operating_points"]["0.5"]["lr_positive"]
    assert none["reason"] == "no negative is called positive: it has no bound"


def test_sets_of_a_child_by_hand(by_hand: dict) -> None:
    alnm = by_hand["heads"]["alnm"]
    assert list(alnm["sets"]) == ["malignancy positive", "all"]
    assert alnm["primary"] == "malignancy positive"
    on_malignant, on_all = (alnm["sets"][on]["image"] for on in alnm["sets"])
    # Malignant: .7 .6 .1 against .2. All: against .2 .8 .9 .3 too.
    assert on_malignant["roc_auc"]["value"] == pytest.approx(2 / 3)
    assert (on_all["rows"], on_all["positive"]) == (7, 3)
    assert on_all["roc_auc"]["value"] == pytest.approx(4 / 12)


def per_image(metrics: dict) -> list[dict]:
    """Its inconsistency, by operating point."""
    return [it for it in metrics["inconsistency"] if it["per"] == "image"]


def test_inconsistency_by_hand(by_hand: dict) -> None:
    half, served, chosen = per_image(by_hand)
    # ALNM above .5 with malignancy at or below: a's second image, c's first, d, whose truth is
    # missing.
    assert (half["parent"], half["child"], half["at"]) == ("malignancy", "alnm", "0.5")
    assert (half["type_1"]["count"], half["type_1"]["class_rows"]) == (1, 3)
    assert (half["type_2"]["count"], half["type_2"]["class_rows"]) == (1, 4)
    # Of the seven whose malignancy is known: d could be neither error.
    assert half["type_1"]["rows"] == 7
    assert half["type_1"]["of_all"]["value"] == pytest.approx(1 / 7)
    assert half["type_2"]["of_all"]["value"] == pytest.approx(1 / 7)
    assert half["type_1"]["of_class"]["value"] == pytest.approx(1 / 3)
    assert half["type_2"]["of_class"]["value"] == pytest.approx(1 / 4)
    assert (half["parent_label_missing"], half["unknown"]) == (1, 1)
    # At .41 for both, c's first image is called malignant too.
    assert (served["at"], served["thresholds"]) == ("served", {"parent": 0.41, "child": 0.41})
    assert (served["type_1"]["count"], served["type_2"]["count"]) == (0, 1)
    # At .2: c's second, whose ALNM is .1, is none; d is, whose malignancy of .2 is not above.
    assert (chosen["at"], chosen["thresholds"]) == (
        "sensitivity_0.90",
        {"parent": 0.2, "child": 0.2},
    )
    assert (chosen["type_1"]["count"], chosen["type_2"]["count"], chosen["unknown"]) == (0, 0, 1)
    # ALNM at .5 in malignant lesions: .7 .6 of .7 .6 .1, and .2 is passed.
    price = half["price"]
    assert price["child"]["on"] == "malignancy positive"
    assert price["child"]["sensitivity"]["value"] == pytest.approx(2 / 3)
    assert price["child"]["specificity"]["value"] == 1
    # Malignancy: .9 .8 of .9 .3 .4 .8.
    assert price["parent"]["sensitivity"]["value"] == pytest.approx(2 / 4)
    assert price["conditional"] is None


def test_the_price_of_a_chain_by_hand() -> None:
    # P(malignant) .6, P(ALNM given it) .6: the product is .36, and at .5 it misses what the
    # conditional probability finds.
    rows = [("a", "x", True, 0.6, True, 0.36), ("b", "x", True, 0.9, False, 0.36)]
    rows += [("c", "x", True, 0.6, True, 0.24), ("d", "x", False, 0.1, False, 0.05)]
    chain = dataclasses.replace(small(rows), hierarchy="chain")
    half, *others = per_image(evaluate(chain, resamples=50))
    assert half["price"]["child"]["sensitivity"]["value"] == 0
    assert half["price"]["conditional"]["sensitivity"]["value"] == 0.5  # .6 and .4
    assert half["price"]["conditional"]["specificity"]["value"] == 1  # .4
    assert all(it["price"]["conditional"] is None for it in others)


def test_inconsistency_and_its_price_per_lesion_and_patient_by_hand() -> None:
    # Malignancy and ALNM at .5. Patient a: lesion x has the means .4 and .6 (type 2), y .8 and .3;
    # a as a whole .6 and .45. b: .3 and .7, benign (type 1), by its images with a label: the other
    # would make it .55. c has no label of malignancy: .2 and .9, unknown.
    rows: list[tuple[object, ...]] = [
        ("a", "x", True, 0.7, True, 0.5),
        ("a", "x", True, 0.1, True, 0.7),
        ("a", "y", True, 0.8, False, 0.3),
        ("a", "y", True, 0.8, False, 0.3),
        ("b", "x", False, 0.3, False, 0.7),
        ("b", "x", None, 0.8, None, 0.7),
        ("c", "x", None, 0.2, None, 0.9),
    ]
    made = small(rows)
    made.frame["lesion_id"] = [row[1] for row in rows]
    found = {
        it["per"]: it for it in evaluate(made, resamples=0)["inconsistency"] if it["at"] == "0.5"
    }
    for unit, type_1, of_benign, type_2, of_malignant in (
        ("image", 1, 1, 1, 4),
        ("lesion", 1, 1, 1, 2),
        ("patient", 1, 1, 0, 1),
    ):
        its = found[unit]
        assert (its["type_1"]["count"], its["type_1"]["class_rows"]) == (type_1, of_benign)
        assert (its["type_2"]["count"], its["type_2"]["class_rows"]) == (type_2, of_malignant)
        assert its["type_1"]["rows"] == of_benign + of_malignant
        assert its["unknown"] == 1
    assert [found[it]["parent_label_missing"] for it in found] == [2, 1, 1]
    prices = {unit: its["price"] for unit, its in found.items()}
    assert prices["lesion"]["parent"]["sensitivity"]["value"] == 1 / 2
    assert prices["patient"]["parent"]["sensitivity"]["value"] == 1
    assert prices["lesion"]["child"]["sensitivity"]["value"] == 1
    assert prices["patient"]["child"]["sensitivity"]["value"] == 0  # .45
    highest = evaluate(made, resamples=0, aggregation="max")["inconsistency"]
    (of_patients,) = (it for it in highest if (it["per"], it["at"]) == ("patient", "0.5"))
    assert of_patients["price"]["child"]["sensitivity"]["value"] == 1  # .7
    rows = [("a", "x", True, 0.8, True, 0.3), ("a", "x", True, 0.6, True, 0.36)]
    chain = dataclasses.replace(small(rows), hierarchy="chain")
    given = {
        it["per"]: it["price"]["conditional"]["sensitivity"]["value"]
        for it in evaluate(chain, resamples=0)["inconsistency"]
        if it["at"] == "0.5"
    }
    assert given == {"image": 1 / 2, "lesion": 0, "patient": 0}  # .375 and .6, their mean .4875


def test_subgroups_by_hand(by_hand: dict) -> None:
    found = {name: its[0] for name, its in by_hand["subgroups"].items()}
    assert {it["variable"] for it in found.values()} == {"device"}
    # GE has a and b, Hitachi e (of d the label is missing): too few to stand alone. c has none.
    for name, patients, positive, unknown in (("malignancy", 3, 3, 2), ("alnm", 3, 2, 0)):
        (group,) = found[name]["groups"]
        assert (group["rows"], group["positive"]) == (patients, positive)
        assert group["group"] == "2 others, each of fewer than 10 patients"
        assert found[name]["unknown_rows"] == unknown
        assert found[name]["tests"]["roc_auc"]["p"] is None
    assert by_hand["method"]["interaction_tests"] == 0
    both = evaluate(synthetic(), resamples=20)
    tests = [
        test
        for its in both["subgroups"].values()
        for variable in its
        for test in variable["tests"].values()
        if test["p"] is not None
    ]
    assert len(tests) == both["method"]["interaction_tests"] > 3
    smallest = min(tests, key=lambda it: it["p"])
    assert smallest["p_holm"] == pytest.approx(min(1, len(tests) * smallest["p"]))


def none_or_all(found: dict[str, object], n: int, *, events: bool) -> bool:
    """Whether the interval is Wilson's of 0 or n of n: it ends z^2 / (n + z^2) from the value."""
    wide = 1.959964**2 / (n + 1.959964**2)
    expected = [1 - wide, 1] if events else [0, wide]
    assert found["interval"] == f"Wilson, {counted(n, 'patient')}"
    return [found["low"], found["high"]] == pytest.approx(expected, abs=1e-6)


def test_none_and_all_have_a_wilson_interval_of_patients_everywhere(by_hand: dict) -> None:
    metrics = by_hand
    half, served, _ = per_image(metrics)
    # No image is a type 1 error at the served points: of a, b, c, e whose malignancy is known, and
    # of c and e, who have benign images.
    assert none_or_all(served["type_1"]["of_all"], 4, events=False)
    assert none_or_all(served["type_1"]["of_class"], 2, events=False)
    assert "interval" not in half["type_1"]["of_all"]
    sets = metrics["heads"]["alnm"]["sets"]["malignancy positive"]
    # .7 .6 .1 positive (a, a, e), .2 negative (b), at .5.
    image = sets["image"]["operating_points"]["0.5"]
    assert image["specificity"]["value"] == image["precision"]["value"] == 1
    assert none_or_all(image["specificity"], 1, events=True)
    assert none_or_all(image["precision"], 1, events=True)  # both called are of a
    assert "interval" not in image["sensitivity"]
    # Of the patients with a device, at .41: a is called, e is not, nor is b, the one negative.
    (group,) = metrics["subgroups"]["alnm"][0]["groups"]
    assert group["sensitivity"]["value"] == 0.5
    assert none_or_all(group["specificity"], 1, events=True)
    text = json.dumps(metrics)
    assert "Wilson" in text and SECRET not in text


def test_an_interval_that_is_not_given_says_why() -> None:
    rows = [(f"p{k}", "x", k < 1, k / 40, None, 0.2) for k in range(40)]
    found = evaluate(small(rows), resamples=400)["heads"]["malignancy"]["sets"]["all"]["image"]
    auc = found["roc_auc"]
    assert (auc["value"], auc["low"], auc["high"]) == (0.0, None, None)
    # The one positive patient is not drawn in (39/40)^40 = 36 % of the draws.
    assert auc["no_interval"] == f"{auc['undefined_resamples']} of 400 draws are undefined"
    assert 100 < auc["undefined_resamples"] < 190
    assert found["brier"]["low"] is not None
    # Perfect in 20 patients: each draw is, too, which is no evidence that all patients are.
    rows = [(f"p{k}", "x", k < 9, 0.9 if k < 9 else 0.1, None, 0.2) for k in range(20)]
    found = evaluate(small(rows), resamples=100)["heads"]["malignancy"]["sets"]["all"]["image"]
    for perfect in (found["roc_auc"], found["pr_auc"], found["operating_points"]["0.5"]["f1"]):
        assert (perfect["value"], perfect["low"], perfect["high"]) == (1.0, None, None)
        assert perfect["no_interval"] == "all draws are equal"


@pytest.mark.parametrize("wrong", [0, 12])
def test_the_interval_of_an_ece_allows_for_the_bias_of_its_draws(wrong: int) -> None:
    """Of 40 patients at .2 eight are positive, or so many more: an ECE of 0 or .3."""
    rows = [(f"p{k}", "x", k < 8 + wrong, 0.2, None, 0.2) for k in range(40)]
    found = evaluate(small(rows), resamples=400)["heads"]["malignancy"]["sets"]["all"]["image"]
    ece, truth = found["ece"], np.arange(40) < 8 + wrong
    ids = [f"p{k}" for k in range(40)]
    p = np.full(40, 0.2)
    drawn = bootstrap({"": reliability.ece}, truth, p, ids, resamples=400)[""]
    assert drawn.high is not None
    assert ece["value"] == pytest.approx(wrong / 40)
    assert ece["high"] == pytest.approx(drawn.high)
    # What cannot be told from right probabilities has 0 in its interval.
    assert (ece["value"] > ece["if_right"]["high"]) == (wrong > 0)
    assert ece["low"] == pytest.approx(2 * wrong / 40 - drawn.high if wrong else 0)


def test_a_burden_head_is_evaluated_on_the_malignant_and_on_its_parents_positives() -> None:
    predictions = synthetic()
    nodes = evaluate(predictions, resamples=0)["heads"]["nodes_2"]
    frame = predictions.frame
    assert list(nodes["sets"]) == ["malignancy positive", "alnm positive", "all"]
    for on, rows in (
        ("malignancy positive", frame[frame["malignancy_truth"]]),
        ("alnm positive", frame[frame["alnm_truth"].fillna(False)]),
        ("all", frame),
    ):
        expected = roc_auc_score(rows["nodes_2_truth"].astype(bool), rows["nodes_2_probability"])
        assert nodes["sets"][on]["image"]["roc_auc"]["value"] == pytest.approx(expected)


def honest(hierarchy: Hierarchy, given: str | None = None) -> Predictions:
    """20,000 lesions, one a patient, whose labels are drawn from the probabilities themselves."""
    generator = np.random.default_rng(0)
    malignancy, conditional = expit(1.5 * generator.standard_normal((2, 20_000)))
    malignant = generator.random(20_000) < malignancy
    alnm = malignant & (generator.random(20_000) < conditional)
    reported = conditional if hierarchy == "independent" else malignancy * conditional
    frame = pd.DataFrame(
        {
            "patient_id": np.arange(20_000).astype(str),
            "lesion_id": "one",
            **ROI,
            "device": None,
            "malignancy_truth": pd.array(malignant, "boolean"),
            "malignancy_probability": malignancy,
            "alnm_truth": pd.array(alnm, "boolean"),
            "alnm_probability": reported,
        }
    )
    heads = (MALIGNANCY, ALNM.model_copy(update={"given": given}))
    return Predictions(frame=frame, heads=heads, hierarchy=hierarchy, about={})


def calibration(metrics: dict, on: str) -> tuple[str | None, list[float | None]]:
    found = metrics["heads"]["alnm"]["sets"][on]
    names = ("calibration_slope", "calibration_in_the_large", "ece")
    assert found["image"]["judged"] == found["patient"]["judged"]
    return found["image"]["judged"], [found["image"][name]["value"] for name in names]


@pytest.mark.parametrize("hierarchy", ["chain", "max_constraint"])
def test_a_chain_that_is_right_is_found_so_on_all_and_by_its_quotient(hierarchy: str) -> None:
    predictions = honest(hierarchy)  # type: ignore[arg-type]
    metrics = evaluate(predictions, resamples=0)
    for on, expected in (("malignancy positive", "P(alnm given malignant)"), ("all", "P(alnm)")):
        judged, (slope, large, ece) = calibration(metrics, on)
        assert judged == expected
        assert slope == pytest.approx(1, abs=0.04)
        assert large == pytest.approx(0, abs=0.05)
        assert ece < 0.015
    # The reported probability on malignant lesions alone, as it was judged before: far too low.
    rows = predictions.frame[predictions.frame["malignancy_truth"]]
    facts = rows["alnm_truth"].to_numpy(bool), rows["alnm_probability"].to_numpy()
    assert binary.value(reliability.calibration_in_the_large, *facts) > 0.5


def test_an_independent_head_that_masks_is_judged_where_its_condition_holds() -> None:
    metrics = evaluate(honest("independent", given="malignant"), resamples=0)
    judged, (slope, large, _) = calibration(metrics, "malignancy positive")
    assert judged == "P(alnm given malignant)"
    assert (slope, large) == (pytest.approx(1, abs=0.04), pytest.approx(0, abs=0.05))
    alnm = metrics["heads"]["alnm"]
    assert alnm["given"] == "malignant"
    on_all = alnm["sets"]["all"]["image"]
    assert (on_all["judged"], on_all["brier"]["value"], on_all["reliability"]) == (None, None, [])
    assert on_all["brier"]["reason"] == (
        "the probability is about lesions with malignant positive only"
    )
    assert on_all["decision_curve"] is None
    assert on_all["roc_auc"]["value"] is not None
    # One that has learned from benign lesions too is judged on all, and there alone.
    marginal = evaluate(honest("independent"), resamples=0)
    assert calibration(marginal, "all")[0] == "P(alnm)"
    judged, values = calibration(marginal, "malignancy positive")
    assert (judged, values) == (None, [None, None, None])


def test_a_network_for_alnm_alone_is_judged_on_malignant_lesions() -> None:
    predictions = honest("independent")
    frame = predictions.frame.assign(malignant=predictions.frame["malignancy_truth"])
    alone = (ALNM.model_copy(update={"parent": None, "given": "malignant"}),)
    found = evaluate(dataclasses.replace(predictions, frame=frame, heads=alone), resamples=0)
    head = found["heads"]["alnm"]
    assert (list(head["sets"]), head["primary"]) == (
        ["malignant positive", "all"],
        "malignant positive",
    )
    on_malignant = head["sets"]["malignant positive"]["image"]
    assert on_malignant["rows"] == int(frame["malignant"].sum())
    assert on_malignant["judged"] == "P(alnm given malignant)"
    assert on_malignant["calibration_slope"]["value"] == pytest.approx(1, abs=0.04)
    assert head["sets"]["all"]["image"]["judged"] is None


def test_a_categorical_head_agrees_with_scikit_learn() -> None:
    predictions = synthetic()
    subtype = evaluate(predictions, resamples=50)["heads"]["subtype"]
    rows = predictions.frame[predictions.frame["subtype_truth"].notna()]
    p = rows[[f"subtype_probability_{label}" for label in LABELS]].to_numpy()
    truth = rows["subtype_truth"].map(LABELS.index).to_numpy()
    found = subtype["sets"]["all"]["image"]
    assert subtype["kind"] == "categorical"
    assert found["macro_roc_auc"]["value"] == pytest.approx(
        roc_auc_score(truth, p, multi_class="ovr", average="macro")
    )
    assert found["accuracy"]["value"] == pytest.approx((p.argmax(axis=1) == truth).mean())
    confusion = np.array(found["confusion"])
    assert confusion.sum(axis=1).tolist() == [found["counts"][label] for label in LABELS]
    assert confusion.trace() / confusion.sum() == pytest.approx(found["accuracy"]["value"])
    assert found["macro_roc_auc"]["low"] < found["macro_roc_auc"]["value"]


def test_patients_whose_categorical_labels_disagree_are_left_out() -> None:
    predictions = synthetic()
    frame = predictions.frame.copy()
    known = frame.index[frame["subtype_truth"].notna() & frame["patient_id"].duplicated(keep=False)]
    first = frame.loc[known[0], "subtype_truth"]
    frame.loc[known[0], "subtype_truth"] = LABELS[(LABELS.index(first) + 1) % 3]
    before, after = (
        evaluate(one, resamples=0)["heads"]["subtype"]["sets"]["all"]["patient"]
        for one in (predictions, dataclasses.replace(predictions, frame=frame))
    )
    assert (before["mixed"], after["mixed"]) == (0, 1)
    assert after["rows"] == before["rows"] - 1


def test_it_is_json_without_nan_names_no_one_and_repeats_with_the_seed() -> None:
    first, again, other = (evaluate(synthetic(), resamples=60, seed=seed) for seed in (1, 1, 2))
    text = json.dumps(first, allow_nan=False)
    assert SECRET not in text
    assert text == json.dumps(again)
    assert text != json.dumps(other)
    auc = first["heads"]["malignancy"]["sets"]["all"]["image"]["roc_auc"]
    assert auc["low"] < auc["value"] < auc["high"]
    assert auc["resamples"] == 60


def test_types_of_arrow_are_taken_and_the_served_point_is_always_among_them() -> None:
    predictions = synthetic()
    frame = predictions.frame.convert_dtypes(dtype_backend="pyarrow")
    plain = tuple(one.model_copy(update={"operating_points": {}}) for one in HEADS)
    found = evaluate(dataclasses.replace(predictions, frame=frame, heads=plain), resamples=0)
    assert list(found["heads"]["alnm"]["sets"]["all"]["image"]["operating_points"]) == [
        "0.5",
        "served",
    ]


def test_equal_scores_by_hand() -> None:
    rows = [(f"p{k}", "x", k < 3, 0.5, None, 0.2) for k in range(8)]
    found = evaluate(small(rows), resamples=50)["heads"]["malignancy"]["sets"]["all"]["image"]
    values = {name: found[name]["value"] for name in ("roc_auc", "pr_auc", "brier", "ece")}
    assert values == pytest.approx({"roc_auc": 0.5, "pr_auc": 3 / 8, "brier": 0.25, "ece": 1 / 8})
    assert found["calibration_in_the_large"]["value"] == pytest.approx(math.log(3 / 5))
    assert found["calibration_slope"]["value"] is None
    assert (found["delong"]["low"], found["delong"]["reason"]) == (None, "its standard error is 0")
    assert found["roc_auc"]["no_interval"] == "all draws are equal"


@pytest.mark.parametrize(
    ("truth", "reason"),
    [
        ([True, True], "one class only: 2 positive, 0 negative"),
        ([False, False], "one class only: 0 positive, 2 negative"),
        ([None, None], "no row has a label"),
    ],
)
def test_undefined_is_null_with_the_reason(truth: list[bool | None], reason: str) -> None:
    predictions = small([(f"p{k}", "x", one, 0.3, None, 0.2) for k, one in enumerate(truth)])
    metrics = evaluate(predictions, resamples=50)
    json.dumps(metrics, allow_nan=False)
    for level in ("image", "patient"):
        found = metrics["heads"]["malignancy"]["sets"]["all"][level]
        for name in ("roc_auc", "pr_auc", "calibration_slope", "calibration_in_the_large"):
            assert (found[name]["value"], found[name]["low"]) == (None, None)
            assert found[name]["reason"] == reason
        assert found["delong"]["reason"] == reason
        assert found["curves"] is None
        if truth[0] is not None:
            assert found["brier"]["value"] is not None
    assert (
        metrics["heads"]["alnm"]["sets"]["all"]["image"]["brier"]["reason"] == "no row has a label"
    )


def test_each_rate_says_its_own_reason() -> None:
    predictions = small([("a", "x", False, 0.1, None, 0.2), ("b", "x", False, 0.2, None, 0.2)])
    found = evaluate(predictions, resamples=50)["heads"]["malignancy"]["sets"]["all"]["image"]
    half = found["operating_points"]["0.5"]
    assert half["sensitivity"]["reason"] == "no positive label"
    assert half["precision"]["reason"] == "nothing is called positive"
    assert half["f1"]["reason"] == "nothing is positive or called positive"
    assert half["specificity"]["value"] == 1
    assert half["lr_negative"]["reason"] == "one class only: 0 positive, 2 negative"
    assert half["wilson"]["sensitivity"] is None


def test_an_empty_part_is_undefined_throughout() -> None:
    predictions = synthetic()
    empty = dataclasses.replace(predictions, frame=predictions.frame.iloc[:0])
    metrics = evaluate(empty, resamples=50)
    json.dumps(metrics, allow_nan=False)
    found = metrics["heads"]["malignancy"]["sets"]["all"]["patient"]
    assert (found["rows"], found["roc_auc"]["value"]) == (0, None)
    assert metrics["inconsistency"][0]["type_1"]["of_all"]["reason"] == (
        "no row whose malignancy is known"
    )


@pytest.mark.parametrize("wrong", [np.nan, 1.2])
def test_a_probability_that_is_none_is_refused(wrong: float) -> None:
    predictions = synthetic()
    frame = predictions.frame.copy()
    frame.loc[3, "alnm_probability"] = wrong
    with pytest.raises(UserError, match=r"head alnm: 1 of \d+ probabilities are not numbers"):
        evaluate(dataclasses.replace(predictions, frame=frame))

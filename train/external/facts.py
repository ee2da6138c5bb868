"""What the items of the reporting checklists are filled with: plain sentences from metrics.json."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sonode.console import counted
from sonode.measure_text import with_interval
from train.measures.measure import Json

_NO_IDS = (
    "The set has no patient ids: each image, or group of similar ones, is counted as a patient."
)


def facts(metrics: Json, external: Json | None) -> dict[str, str]:
    """What the items of checklists.yaml are filled with; absent where it is not known."""
    about = metrics["about"]
    model, training = about["model"], about["training"]
    cohort, folds = about["cohort"], about.get("folds")
    trained_on = cohort if folds else about["trained_on"]
    part = "every patient by folds" if folds else f"{about['part']} part"
    heads = {name: head for name, head in metrics["heads"].items() if head["kind"] == "binary"}
    method = metrics["method"]
    found = {
        "cohort": f"Cohort {cohort['name']} ({part}: {_size(cohort)}); trained on "
        f"{'the other folds of it' if folds else trained_on['name']}. "
        f"{'Synthetic: no patient is in it. ' * bool(cohort['synthetic'])}"
        + ("" if cohort.get("patient_ids", True) else _NO_IDS),
        "preprocessing": "The lesion box is widened, cut out of the grey image and resized to the "
        "network's input; settings: "
        + _list(f"{name} {value}" for name, value in model["preprocessing"].items())
        + ".",
        "region": "Input is one grey image and one box around the lesion; nothing else.",
        "missing": "Images without a head's label are left out of that head's figures, never "
        "counted as negative. Missing here: "
        + _list(f"{name} {head['missing']} of {metrics['rows']}" for name, head in heads.items())
        + ".",
        "labels": _list(
            f"{name}: column {head['target']}, {' or '.join(head['labels'])}"
            for name, head in metrics["heads"].items()
        )
        + ". How each label was determined is the author's to say.",
        "model": f"{model['architecture']}, shared by the heads {_list(metrics['heads'])}; "
        f"hierarchy {metrics['hierarchy']}. Each head gives a calibrated probability.",
        "weights": f"Weights to start from: {training.get('weights', 'not recorded')}.",
        "measures": "ROC AUC, PR AUC, sensitivity, specificity, PPV, NPV, likelihood ratios, "
        "accuracy, F1, Brier score, calibration slope and intercept, ECE, net benefit; per image, "
        f"lesion and patient (score: {method['aggregation']} over the images).",
        "statistics": f"95 % intervals are percentiles of {method['resamples']} bootstrap draws of "
        f"whole patients (seed {method['seed']}); proportions of 0 or 1 have Wilson's interval; "
        "DeLong's interval is given beside. Models are compared on the same draws.",
        "flow": f"{_size(cohort)} in the part evaluated. Exclusions at import: Figure 1 of "
        "`sonode paper`.",
        "characteristics": "Table 1 in report.html (the whole cohort); `sonode describe --csv`.",
        "thresholds": "Positive is a probability above the threshold: "
        + _list(f"{name} {head['threshold']:.3f}" for name, head in heads.items())
        + (
            ". They were chosen on what is evaluated here."
            if folds or about["part"] == "val"
            else ". None was chosen on what is evaluated here."
        ),
        "imbalance": "No class is weighted or drawn more often; probabilities are at the cohort's "
        "prevalence.",
        "kept": "predictions.parquet has truth and probabilities of every image, metrics.json all "
        "figures; in service each answer names its archive's sha256.",
        "blinding": "The network sees the image and the box alone.",
        "input": "Damaged images, wrong types, and boxes outside the image are refused with a "
        "reason; no score is given.",
        "digests": f"Cohort sha256 {cohort['sha256']}; trained on {trained_on['sha256']}.",
        "software": _list(f"{k} {v}" for k, v in training.get("versions", {}).items()),
        "performance": _list(
            f"{name} ({head['primary']}, per patient): ROC AUC "
            + with_interval(head["sets"][head["primary"]]["patient"]["roc_auc"])
            for name, head in heads.items()
        ),
        "rates": _list(map(_rates, heads, heads.values())),
        "counts": _list(
            f"{name}: {it['positive']} positive of {counted(it['rows'], 'image')}, "
            f"{counted(it['patients'], 'patient')}"
            for name, head in heads.items()
            for it in [head["sets"][head["primary"]]["image"]]
        ),
        "crosstab": _list(map(_crosstab, heads, heads.values())),
        "training": f"Seed {training.get('seed')}, {training.get('epochs')} epochs, batches of "
        f"{training.get('batch_size')}, learning rate {training.get('learning_rate')} "
        f"({training.get('schedule')}), weight decay {training.get('weight_decay')}; augmentation "
        + _list(f"{k} {v}" for k, v in training.get("augmentation", {}).items())
        + ".",
    }
    if folds:
        found["partitions"] = (
            f"Divided by patient into the folds {_list(folds['names'])}; each predicted by "
            "networks that never saw its patients."
        )
        found["selection"] = (
            "The last epoch; temperatures and thresholds are of all folds' predictions together."
        )
    else:
        found["explanation"] = "Grad-CAM heat maps of the last features, in report.html."
        found["failures"] = (
            "report.html shows the most certain wrong images of each head with heat maps; why they "
            "are wrong is the author's to say."
        )
    parts = {
        name: its
        for name in ("train", "val", "test")
        if (its := trained_on.get(name, {})).get("patients")
    }
    if parts:
        found["partitions"] = (
            "Divided by patient: " + _list(f"{name} {_size(its)}" for name, its in parts.items())
        ) + _divided(trained_on, parts)
        kept = (
            "The last epoch"
            if training.get("keep") == "last"
            else "The epoch with the smallest validation loss after temperatures are fitted"
        )
        if "val" in parts:
            found["selection"] = f"{kept}; temperatures and thresholds are of the validation part."
        elif training.get("figures"):  # refitted: no part was held out
            found["selection"] = (
                f"{kept}; temperatures and thresholds are of the predictions of folds, by networks "
                "that never saw the patient."
            )
    if folds or parts:
        whom = "Patients." if trained_on.get("patient_ids", True) else f"Images. {_NO_IDS}"
        found["disjoint"] = f"{whom} Similar images across parts are reported by the training."
    variables = [it for its in metrics["subgroups"].values() for it in its if it["groups"]]
    by = sorted({it["variable"] for it in variables})
    of_device = [it["groups"] for it in variables if it["variable"] == "device"]
    devices = sorted({one["group"] for groups in of_device for one in groups})
    if devices:
        found["devices"] = f"Devices: {_list(devices)}. Settings are the author's to say."
    if by:
        found["heterogeneity"] = f"Subgroups by {_list(by)} in report.html, with tests (Holm)."
    certainty = (metrics["uncertainty"] or {}).get("heads", {})
    if any("uncertain" in its for its in certainty.values()):  # others have too few patients
        found["undecided"] = (
            "A result is uncertain where its label set does not hold its label alone. It is in all "
            "figures; their share, and the AUC of the others, are in report.html."
        )
    if metrics.get("roi_jitter"):
        found["robustness"] = "Box moved and grown by 5 and 10 %: median difference of a score " + (
            _list(
                f"{it['head']} {it['kind']} {100 * it['amount']:.0f} %: {it['median']:.3f}"
                for it in metrics["roi_jitter"]
            )
        )
    if external is not None:
        found |= _external(external)
    return {name: " ".join(text.split()) for name, text in found.items()}


def _external(found: Json) -> dict[str, str]:
    aucs = (
        f"{head} in {name}: ROC AUC per patient "
        + with_interval(
            found["cohorts"][name]["heads"][head]["sets"][
                found["cohorts"][name]["heads"][head]["primary"]
            ]["patient"]["roc_auc"]
        )
        for head, of in found["compared"].items()
        for name in of
    )
    method = found["method"]
    return {
        "external": f"{_list(aucs)}. External cohorts share no image and no patient with the "
        "training's, which was checked."
        if found["overlap_checked"]
        else f"{_list(aucs)}. Overlap with the training was not checked.",
        "recalibration": "Calibration before and after recalibration (intercept; intercept and "
        f"slope) on {method['recalibration_patients']} external patients, measured on the others: "
        "external.html.",
        "heterogeneity": "Subgroups by device, age, BI-RADS, histology and lesion size with "
        f"{method['interaction_tests']} permutation tests, adjusted by Holm: external.html.",
    }


def _divided(trained_on: Json, parts: Collection[str]) -> str:
    if set(parts) == {"train"}:
        return ". No patient was held out: the recipe was measured by folds."
    if trained_on.get("fold") is not None:
        return f" (fold {trained_on['fold']} is val)."
    by = trained_on.get("divided_by")  # a checkpoint of an earlier version does not say it
    return f" (by {by})." if by else "."


def _size(of: Json) -> str:
    return f"{counted(of['patients'], 'patient')}, {counted(of['images'], 'image')}"


def _list(texts: Any) -> str:
    return "; ".join(str(text) for text in texts)


def _served(head: Json) -> Json:
    points = head["sets"][head["primary"]]["patient"]["operating_points"].values()
    found: Json = next(it for it in points if it["threshold"] == head["threshold"])
    return found


def _rates(name: str, head: Json) -> str:
    point = _served(head)
    return f"{name} per patient at {head['threshold']:.3f}: " + ", ".join(
        f"{rate} {with_interval(point[rate])}" for rate in ("sensitivity", "specificity")
    )


def _crosstab(name: str, head: Json) -> str:
    counts = ("true_positive", "false_negative", "false_positive", "true_negative")
    point = _served(head)
    return f"{name} per patient: " + ", ".join(
        f"{point[count]} {count.replace('_', ' ')}" for count in counts
    )

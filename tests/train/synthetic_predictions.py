"""Predictions made from numbers alone, as `train.fitting.predictions.predict` would give them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit

from model_def.heads import HeadSpec
from train.fitting.predictions import Predictions

SECRET = "patient-secret"
POINTS = {"0.5": 0.5, "youden": 0.41, "sensitivity_0.90": 0.2}
ROI = {"roi_x_min": 0, "roi_y_min": 0, "roi_x_max": 9, "roi_y_max": 9}
LABELS = ("luminal", "HER2", "triple negative")


def head(name: str, target: str, labels: tuple[str, ...], parent: str | None = None) -> HeadSpec:
    """A head with operating points, as the card has it after calibration."""
    return HeadSpec(
        name=name,
        target=target,
        labels=labels,
        parent=parent,
        threshold=0.41,
        operating_points=POINTS,
    )


HEADS = (
    head("malignancy", "malignant", ("benign", "malignant")),
    head("alnm", "alnm", ("no ALNM", "ALNM"), "malignancy"),
    head("nodes_2", "nodes_ge_2", ("below 2 nodes", "2 nodes or more"), "alnm"),
    head("subtype", "subtype", LABELS, "malignancy"),
)


def synthetic(
    patients: int = 120, seed: int = 0, heads: tuple[HeadSpec, ...] = HEADS
) -> Predictions:
    """Up to four images a patient; some labels and devices missing; scores that carry a signal."""
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), generator.integers(1, 5, patients))
    n = len(patient)

    def of_patient(p: np.ndarray) -> np.ndarray:
        return (generator.random(patients) < p)[patient]

    malignant = of_patient(np.full(patients, 0.6))
    alnm = malignant & of_patient(np.full(patients, 0.45))
    many = alnm & of_patient(np.full(patients, 0.5))
    own = generator.standard_normal(patients)[patient] * 0.6
    frame = pd.DataFrame(
        {
            "patient_id": [f"{SECRET}-{index}" for index in patient],
            "lesion_id": [f"{SECRET}-{index}-l" for index in patient],
            "image": [f"images/{SECRET}-{index}.png" for index in range(n)],
            "device": pd.array(np.array(["Aixplorer", "LOGIQ E9", None])[patient % 3], "string"),
            **ROI,
            "n_nodes": pd.array([None] * n, "Int32"),
        }
    )
    for name, truth, gap in (
        ("malignancy", malignant, 2.0),
        ("alnm", alnm, 1.4),
        ("nodes_2", many, 1.0),
    ):
        noise = own + 0.8 * generator.standard_normal(n)
        frame[f"{name}_truth"] = pd.array(truth, "boolean")
        frame[f"{name}_probability"] = expit(gap * (truth - 0.5) + noise)
    frame.loc[generator.random(n) < 0.1, "alnm_truth"] = pd.NA
    subtype = generator.integers(0, 3, patients)[patient]
    frame["subtype_truth"] = pd.array(
        np.where(malignant, np.array(LABELS)[subtype], None), "string"
    )
    logits = generator.standard_normal((n, 3)) + 1.5 * (subtype[:, None] == np.arange(3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for index, label in enumerate(LABELS):
        frame[f"subtype_probability_{label}"] = p[:, index]
    about = {
        "cohort": {"name": "synthetic <b>numbers</b>", "sha256": "0" * 64, "synthetic": True},
        "part": "test",
        "model": {"architecture": "resnet18", "seed": 0, "device": None},
    }
    return Predictions(frame=frame, heads=heads, hierarchy="independent", about=about)

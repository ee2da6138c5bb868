import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from model_def import checkpoint
from model_def.preprocessing import RoI
from tests.train.synthetic_predictions import HEADS, synthetic
from train.cohorts.cohort import Cohort
from train.evidence.jitter import CHANGES, changed_box, jitter, of_head
from train.evidence.report import render
from train.fitting.predictions import predict
from train.measures.evaluate import evaluate
from train.measures.measure import Resampling

HOW = Resampling(resamples=30, seed=0)
BOX = RoI(40, 20, 80, 40)


@pytest.mark.parametrize(
    ("kind", "amount", "angle", "expected"),
    [
        # 10 % of 40 x 20.
        ("moved", 0.1, 0.0, (44, 20, 84, 40)),
        ("moved", 0.1, math.pi / 2, (40, 22, 80, 42)),
        ("moved", 0.1, math.pi, (36, 20, 76, 40)),
        ("grown", 0.1, 0.0, (38, 19, 82, 41)),
        # No room: one pixel to the right in a frame of 81, none below in one of 40.
        ("moved", 0.1, 0.25 * math.pi, (41, 20, 81, 40)),
        ("grown", 0.2, 0.0, (36, 18, 81, 40)),
    ],
)
def test_boxes_by_hand(kind: str, amount: float, angle: float, expected: tuple[int, ...]) -> None:
    tight = expected[2] == 81
    width, height = (81, 40) if tight else (200, 100)
    assert changed_box(BOX, kind, amount, angle, width, height) == expected


def test_a_head_by_hand() -> None:
    frame = (
        synthetic(3)
        .frame.iloc[:4]
        .assign(
            patient_id=list("abcd"),
            malignancy_truth=[True, True, False, False],
            malignancy_probability=[0.9, 0.5, 0.4, 0.1],
        )
    )
    predictions = dataclasses.replace(synthetic(3), frame=frame)
    found = of_head(HEADS[0], predictions, np.array([0.8, 0.3, 0.4, 0.4]), HOW)
    # .1, .2, 0, .3 at the threshold .41: the second row changes.
    assert found["median"] == pytest.approx(0.15)
    assert found["p95"] == pytest.approx(0.2 + 0.85 * 0.1)  # linear between .2 and .3
    assert (found["changed"]["count"], found["changed"]["value"]) == (1, 0.25)
    # 4 of 4 pairs before; the second is now below both negatives: 2 of 4.
    assert (found["auc_before"], found["auc_after"]) == (1, 0.5)
    assert found["auc_difference"]["value"] == -0.5


def test_boxes_of_a_cohort_are_scored_again(
    checkpoint_folder: Path, phantom: Cohort, tmp_path: Path
) -> None:
    network, card = checkpoint.load(checkpoint_folder)
    about = {"name": "phantom", "sha256": phantom.sha256, "synthetic": True, "split_seed": 4}
    card = card.model_copy(update={"training": {**card.training, "cohort": about}})
    checkpoint.save(tmp_path / "c", network, card)
    predictions = predict(tmp_path / "c", phantom.folder, "val")
    found = jitter(tmp_path / "c", phantom.folder, predictions, HOW)
    heads = [head.name for head in card.heads if not head.categorical]
    assert [(it["head"], it["kind"], it["amount"]) for it in found] == [
        (head, *change) for change in CHANGES for head in heads
    ]
    assert all(0 < it["median"] <= it["p95"] for it in found)
    assert found == jitter(tmp_path / "c", phantom.folder, predictions, HOW)
    page = render({**evaluate(predictions, resamples=10), "roi_jitter": found})
    assert "RoI jitter" in page and "moved by 10 %" in page

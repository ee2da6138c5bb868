"""The AUC of proposed against drawn boxes, with a locator whose boxes are known."""

from pathlib import Path

import numpy as np
import pytest

from model_def import checkpoint
from model_def.preprocessing import RoI
from sonode.locating import detector as detectors
from sonode.locating import evaluate as evaluating
from sonode.locating.detector import Proposal
from train.cohorts.cohort import Cohort
from train.cohorts.images import read_image
from train.measures.measure import Resampling


@pytest.fixture
def boxes(phantom: Cohort) -> dict[bytes, RoI]:
    """The drawn box of each image, by its pixels: a locator that is always right."""
    rows = range(len(phantom.table))
    return {read_image(phantom.image_path(row)).tobytes(): phantom.roi(row) for row in rows}


def test_the_drawn_boxes_themselves_change_no_auc(
    locator: Path,
    phantom: Cohort,
    checkpoint_folder: Path,
    boxes: dict[bytes, RoI],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def known(_: object, frame_HW: np.ndarray, size: int) -> list[Proposal]:
        return [Proposal(boxes[frame_HW.tobytes()], 0.9)]

    monkeypatch.setattr(evaluating, "proposals", known)
    card = checkpoint.read_card(checkpoint_folder)
    training = {**card.training, "cohort": {**card.training["cohort"], "split_seed": 4}}
    network = tmp_path / "checkpoint"
    loaded, _ = checkpoint.load(checkpoint_folder)
    checkpoint.save(network, loaded, card.model_copy(update={"training": training}))
    assert detectors.read(locator).card.min_confidence == 0.0
    numbers = evaluating.evaluate(
        locator,
        phantom.folder,
        tmp_path / "out",
        part="all",
        checkpoint=network,
        how=Resampling(resamples=100, seed=0),
    )
    assert (numbers["iou_mean"], numbers["none_found"]) == (1.0, 0)
    assert numbers["sensitivity_at_false_positives"]["0.25"] == 1.0
    found = {its["head"]: its for its in numbers["auc_proposed_minus_drawn"]}
    assert found["malignancy"]["difference"] == 0.0
    assert found["malignancy"]["n_images"] == len(phantom.table)

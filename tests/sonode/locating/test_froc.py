import numpy as np
import pytest

from model_def.preprocessing import RoI
from sonode.locating.detector import Proposal
from sonode.locating.froc import best_iou, froc, measure, threshold

BOX = RoI(0, 0, 10, 10)
NEAR = RoI(0, 0, 10, 8)  # IoU 80 / 100
HALF = RoI(0, 0, 10, 5)  # IoU 50 / 100: not over 0.5
FAR = RoI(50, 50, 60, 60)


def test_the_surest_proposal_is_the_one_that_counts() -> None:
    found = [[Proposal(HALF, 0.9), Proposal(BOX, 0.8)], [], [Proposal(FAR, 0.9)]]
    assert best_iou([[BOX], [BOX], [BOX, FAR]], found) == pytest.approx([0.5, 0.0, 1.0])


def test_froc_by_hand() -> None:
    """Three lesions in two images; by falling confidence: hit, miss, hit, a second hit, miss."""
    truth = [[BOX, FAR], [BOX]]
    found = [
        [Proposal(NEAR, 0.9), Proposal(BOX, 0.5), Proposal(FAR, 0.3)],
        [Proposal(FAR, 0.8), Proposal(BOX, 0.6), Proposal(HALF, 0.4)],
    ]
    # 0.9: 1 of 3; 0.8: a false positive, 0.5 an image; 0.6: 2 of 3; 0.5: nothing; 0.4: 1 an image;
    # 0.3: 3 of 3.
    assert froc(truth, found) == pytest.approx({"0.25": 1 / 3, "0.5": 2 / 3, "1": 1.0, "2": 1.0})


def test_of_equal_confidence_none_comes_first() -> None:
    found = [[Proposal(BOX, 0.5)], [Proposal(FAR, 0.5)]]
    assert froc([[BOX], [BOX]], found) == pytest.approx(
        {"0.25": 0.0, "0.5": 0.5, "1": 0.5, "2": 0.5}
    )


def test_the_confidence_to_ask_for_keeps_hits_and_drops_misses() -> None:
    found = [[Proposal(BOX, 0.9)], [Proposal(NEAR, 0.6)], [Proposal(FAR, 0.4)], []]
    truth = [[BOX]] * 4
    assert threshold(truth, found) == 0.6
    assert threshold(truth[:2], found[:2]) == 0.6
    # Nothing is ever found: an image is right where its proposal is dropped, and one cannot be.
    assert threshold(truth[2:], found[2:]) == 0.4


def test_where_nothing_is_found_the_overlap_is_0() -> None:
    found = [[Proposal(BOX, 0.9)], [Proposal(BOX, 0.1)]]
    its = measure([[BOX], [BOX]], found, 0.5)
    assert (its["none_found"], its["iou_mean"], its["found"]) == (1, 0.5, 0.5)
    assert its["sensitivity_at_false_positives"]["0.25"] == 1.0  # of all proposals
    assert np.isclose(its["iou_median"], 0.5)

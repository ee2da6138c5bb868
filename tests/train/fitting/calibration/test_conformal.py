import math

import numpy as np
import pytest

from model_def.heads import HeadSpec
from train.fitting.calibration.conformal import bound, label_sets, patients_needed, with_label_sets

NAN = math.nan
LABELS = ("benign", "malignant")


def test_one_image_each_is_the_usual_quantile() -> None:
    scores = np.arange(1.0, 21)
    names = [f"p{it}" for it in range(20)]
    assert [patients_needed(level) for level in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]
    assert bound(scores[:8], names[:8], 0.9) is None
    assert bound(scores[:9], names[:9], 0.9) == 9
    assert bound(scores[:19], names[:19], 0.9) == 18  # the ceil(20 x 0.9)-th
    assert bound(scores[:18], names[:18], 0.95) is None
    assert bound(scores[::-1], names, 0.9) == 19  # ceil(21 x 0.9), in whatever order they come


def test_a_patient_counts_once_however_many_images() -> None:
    # 18 of 20 shares are reached without the patient of four images; as 22 images that are
    # independent it would be the ceil(23 x 0.9)-th, which is 3.
    scores = np.array([*[0.0] * 18, 1.0, 2.0, 3.0, 4.0])
    names = [*map(str, range(18)), *["many"] * 4]
    assert bound(scores, names, 0.9) == 0
    # One patient less: 17 of 19 shares are 0.895, with a quarter of the last one 0.908.
    assert bound(scores[1:], names[1:], 0.9) == 1


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_whoever_of_the_patients_is_the_new_one_the_promise_holds(level: float) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        sizes = generator.integers(1, 9, 25)
        patient = np.repeat(np.arange(25), sizes)
        score = generator.normal(size=25)[patient] + generator.normal(size=len(patient)) / 2
        covered = []
        for new in range(25):
            highest = bound(score[patient != new], patient[patient != new], level)
            covered.append(np.mean(score[patient == new] <= highest))
        assert level <= np.mean(covered) <= level + 0.1


def test_bounds_of_each_label_from_its_own_patients() -> None:
    # Nine benign patients at .1 to .9 and nine malignant ones, of the same probabilities.
    positive = np.tile(np.arange(1, 10) / 10, 2)
    truth = np.repeat([0.0, 1.0], 9)
    both = np.column_stack([1 - positive, positive])
    patients = [f"p{it}" for it in range(18)]
    found = label_sets(both, truth, patients, LABELS, given=None, level=0.9)
    assert found.least == {"benign": 1 - 0.9, "malignant": 0.1}
    assert found.patients == {"benign": 9, "malignant": 9}
    assert (found.level, found.given, found.why) == (0.9, None, None)
    # Of a ninth malignant patient the label is missing.
    found = label_sets(
        both, np.where(np.arange(18) == 17, NAN, truth), patients, LABELS, given=None, level=0.9
    )
    assert found.least is None
    assert found.why == ("too few calibration patients: 8 with malignant; a level of 0.9 needs 9")


def test_the_set_of_a_chained_head_speaks_of_its_parents_positives(
    heads: tuple[HeadSpec, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    n = 12
    malignant, alnm = np.r_[np.zeros(n), np.ones(2 * n)], np.r_[[NAN] * n, np.zeros(n), np.ones(n)]
    p_alnm = np.r_[np.full(n, 0.9), np.full(n, 0.3), np.full(n, 0.6)]  # benign ones are not asked
    p = np.column_stack([np.r_[np.full(n, 0.2), np.full(2 * n, 0.8)], p_alnm])
    learned = np.column_stack([malignant, alnm])
    patients = [str(it) for it in range(3 * n)]
    malignancy, found = with_label_sets(heads, "chain", p, learned, patients, 0.9)
    assert malignancy.label_sets is not None and found.label_sets is not None
    assert malignancy.label_sets.given is None
    assert found.label_sets.given == "malignant"
    assert found.label_sets.patients == {"no ALNM": n, "ALNM": n}
    assert found.label_sets.least == {"no ALNM": 1 - 0.3, "ALNM": 0.6}
    assert capsys.readouterr().out == ""
    # With one patient for all ALNM there are no sets, and training says so.
    patients[2 * n :] = ["one"] * n
    _, refused = with_label_sets(heads, "chain", p, learned, patients, 0.9)
    assert refused.label_sets is not None and refused.label_sets.least is None
    assert "head alnm: no label sets: too few" in " ".join(capsys.readouterr().out.split())

import numpy as np
import pandas as pd

from train.paper.performance import per_unit
from train.repeats.measured import TaskRows
from train.repeats.variants import HeldOut


def test_images_lesions_and_patients_by_hand() -> None:
    """Patient a has two lesions, the first with two images; b has one; the last row is unknown."""
    rows = pd.DataFrame(
        {"patient_id": ["b", "a", "a", "a", "c"], "lesion_id": ["1", "1", "2", "1", "1"]}
    )
    truth_N = np.array([False, True, False, True])
    score_NR = np.array([[0.4, 0.6], [0.9, 0.1], [0.1, 0.2], [0.5, 0.3]])

    def units(of: pd.DataFrame) -> dict[str, tuple[list[str], list[bool], list[list[float]]]]:
        test = HeldOut.__new__(HeldOut)
        test.rows, test.known = of, {"malignancy": np.arange(5) < 4}
        patient_N = of["patient_id"].to_numpy(dtype=object)[:4]
        test.tested = {"malignancy": TaskRows(truth_N=truth_N, patient_N=patient_N)}
        return {
            unit: (on.patient_N.tolist(), on.truth_N.tolist(), its["chain"].round(9).tolist())
            for unit, on, its in per_unit(test, "malignancy", {"chain": score_NR})
        }

    found = units(rows)
    assert found["image"] == (["b", "a", "a", "a"], truth_N.tolist(), score_NR.tolist())
    lesions = [[0.7, 0.2], [0.1, 0.2], [0.4, 0.6]]
    assert found["lesion"] == (["a", "a", "b"], [True, False, False], lesions)
    assert found["patient"] == (["a", "b"], [True, False], [[0.5, 0.2], [0.4, 0.6]])
    # One lesion a patient: rows per lesion would be those per patient once more.
    assert [*units(rows.assign(lesion_id="1"))] == ["image", "patient"]

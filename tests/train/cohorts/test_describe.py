from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.command_line import sonode
from tests.pictures import picture
from train.cohorts.cohort import SCHEMA, Cohort, load_cohort, write_cohort
from train.cohorts.describe import GROUPS, chi_square, student_t, table_of_parts, table_one


def test_chi_square_by_hand() -> None:
    # 2 x 2, Yates: N (|ad - bc| - N/2)^2 / (product of the margins)
    #   = 100 (|30*25 - 20*25| - 50)^2 / (55 * 45 * 50 * 50) = 100 * 200^2 / 6187500 = 0.646465
    counts = [[30, 25], [20, 25]]
    assert chi_square(counts).p == pytest.approx(stats.chi2.sf(100 * 200**2 / 6187500, 1))
    assert str(chi_square(counts)) == "0.421"
    # 3 x 2, no correction: every expected count is 10, so 4 cells of (2^2)/10 = 1.6 over 2 df.
    assert chi_square([[12, 8], [8, 12], [10, 10]]).p == pytest.approx(stats.chi2.sf(1.6, 2))
    # An unused category changes nothing; 5 expected patients are enough, 4 are not.
    assert chi_square([[12, 8], [8, 12], [0, 0], [10, 10]]).p == pytest.approx(0.449329, rel=1e-5)
    assert not chi_square([[5, 5], [5, 5]]).sparse
    assert str(chi_square([[4, 4], [4, 4]])) == "1.000*"


def test_student_t_by_hand() -> None:
    # Means 2 and 5, both variances 1, pooled 1: t = -3 / sqrt(2/3) = -3.674235 at 4 df.
    expected = 2 * stats.t.sf(3 / np.sqrt(2 / 3), 4)
    assert student_t([1, 2, 3], [4, 5, 6]).p == pytest.approx(expected)
    assert str(student_t([1, 2, 3], [4, 5, 6])) == "0.021"
    assert str(student_t(range(50), range(1000, 1050))) == "<0.001"


@pytest.mark.parametrize(
    "outcome",
    [
        chi_square([[3, 0], [4, 0]]),
        chi_square([[3, 4]]),
        chi_square(np.zeros((0, 2))),
        student_t([], [1, 2]),
        student_t([1], [2]),
        student_t([1, 1], [2, 2]),
        student_t([0.1, 0.1, (0.1 + 0.1 + 0.1) / 3], [0.2, 0.2]),
    ],
)
def test_what_is_undefined_is_called_so(outcome: object) -> None:
    assert str(outcome) == "undefined"


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Patients a, b benign; c, d, e malignant, of them d ALN+, e of unknown ALN; f unlabelled."""
    rows = [
        # patient, lesion, malignant, alnm, n_nodes, device, age, subtype
        ("a", "a1", False, None, None, "X", 30.0, None),
        ("a", "a1", False, None, None, "Y", 32.0, None),
        ("b", "b1", False, False, 0, "X", 41.0, None),
        ("c", "c1", True, False, 0, "Y", 50.0, "HER2"),
        ("c", "c2", False, None, None, "Y", None, None),
        ("d", "d1", True, True, 5, "Y", 60.0, "luminal"),
        ("d", "d1", True, True, 5, "Y", 60.0, None),
        ("e", "e1", True, None, None, None, None, "luminal"),
        ("f", "f1", None, None, None, "X", 70.0, None),
    ]
    names = ["patient_id", "lesion_id", "malignant", "alnm", "n_nodes", "device", "age", "subtype"]
    frame = pd.DataFrame(rows, columns=names)
    frame["image"] = [f"{number}.png" for number in range(len(frame))]
    frame[["roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max"]] = [0, 0, 10, 10]
    for number in range(len(frame)):
        picture(tmp_path / f"{number}.png", number)
    frame = frame[[*SCHEMA.names, "age", "subtype"]]
    write_cohort(tmp_path, frame, name="six", source="test", synthetic=False)
    return load_cohort(tmp_path)


def test_table_one_by_hand(cohort: Cohort) -> None:
    table = table_one(cohort)
    assert list(table.columns) == [
        *("characteristic", "value", *GROUPS, "p malignancy", "p ALN"),
    ]
    t = f"{stats.ttest_ind([31, 41], [50, 60]).pvalue:.3f}"
    chi = "1.000*"  # two patients of 2 x 2 in one category: Yates takes all of it
    assert table.values.tolist() == [
        # all, benign, malignant, ALN-, ALN+, p malignancy, p ALN
        ["patients", "", "6", "2", "3", "1", "1", "", ""],
        ["", "malignancy missing", "1", "", "", "", "", "", ""],
        ["", "ALN missing", "", "", "1", "", "", "", ""],
        ["images", "", "9", "3", "5", "2", "2", "", ""],
        ["lesion boxes", "", "9", "3", "5", "2", "2", "", ""],
        # a's age is 31; e has none. SD of 31, 41 is 7.07; of 31, 41, 50, 60, 70 it is sqrt(235.3).
        [
            *("age", "mean ± SD", "50.40 ± 15.34", "36.00 ± 7.07", "55.00 ± 7.07"),
            *("50.00 ± undefined", "60.00 ± undefined", t, "undefined"),
        ],
        ["", "range", "31 to 70", "31 to 41", "50 to 60", "50 to 50", "60 to 60", "", ""],
        ["", "missing", "1", "0", "1", "0", "0", "", ""],
        # b is X; a is on two devices; c and d are Y: three categories, all sparse.
        ["device", "n (%)", "", "", "", "", "", "0.135*", "undefined"],
        ["", "X", "2 (40.0)", "1 (50.0)", "0 (0.0)", "0 (0.0)", "0 (0.0)", "", ""],
        ["", "Y", "2 (40.0)", "0 (0.0)", "2 (100.0)", "1 (100.0)", "1 (100.0)", "", ""],
        ["", "several", "1 (20.0)", "1 (50.0)", "0 (0.0)", "0 (0.0)", "0 (0.0)", "", ""],
        ["", "missing", "1", "0", "1", "0", "0", "", ""],
        ["subtype", "n (%)", "", "", "", "", "", "undefined", chi],
        ["", "HER2", "1 (33.3)", "0", "1 (33.3)", "1 (100.0)", "0 (0.0)", "", ""],
        ["", "luminal", "2 (66.7)", "0", "2 (66.7)", "0 (0.0)", "1 (100.0)", "", ""],
        ["", "missing", "3", "2", "0", "0", "0", "", ""],
        ["positive nodes", "n (%)", "", "", "", "", "", "", ""],
        ["", "0", "2 (66.7)", "1 (100.0)", "1 (50.0)", "1 (100.0)", "0 (0.0)", "", ""],
        *(["", n, *["0 (0.0)"] * 5, "", ""] for n in "123"),
        ["", "4 or more", "1 (33.3)", "0 (0.0)", "1 (50.0)", "0 (0.0)", "1 (100.0)", "", ""],
        ["", "missing", "3", "1", "1", "0", "0", "", ""],
    ]
    # The device: [X 1 0], [Y 0 2], [several 1 0] of 4 patients, chi-square 4 at 2 df.
    assert stats.chi2.sf(4, 2) == pytest.approx(0.135, abs=5e-4)


def test_parts_beside_each_other_by_hand(cohort: Cohort) -> None:
    of_patient = {it: "train" if it in "abcd" else "test" for it in "abcdef"}
    part_N = cohort.table["patient_id"].map(of_patient).to_numpy(str)
    table = table_of_parts(cohort, part_N)
    assert list(table.columns) == ["characteristic", "value", "train", "test", "p"]
    assert table.values.tolist()[:14] == [
        ["patients", "", "4", "2", ""],
        ["malignancy", "n (%)", "", "", "1.000*"],
        ["", "benign", "2 (50.0)", "0 (0.0)", ""],
        ["", "malignant", "2 (50.0)", "1 (100.0)", ""],
        ["", "missing", "0", "1", ""],  # f
        ["ALN", "n (%)", "", "", "undefined"],  # of malignant patients
        ["", "ALN-", "1 (50.0)", "0", ""],
        ["", "ALN+", "1 (50.0)", "0", ""],
        ["", "missing", "0", "1", ""],  # e
        ["images", "", "7", "2", ""],
        ["lesion boxes", "", "7", "2", ""],
        ["age", "mean ± SD", "45.50 ± 12.40", "70.00 ± undefined", table["p"][11]],
        ["", "range", "31 to 60", "70 to 70", ""],
        ["", "missing", "0", "1", ""],
    ]
    assert table["p"][11] == f"{stats.ttest_ind([31, 41, 50, 60], [70]).pvalue:.3f}"
    nodes = table.set_index("characteristic").index.get_loc("positive nodes")
    counts = table[["train", "test"]][nodes + 1 : nodes + 6].map(lambda it: int(it.split()[0]))
    assert counts["train"].sum() + counts["test"].sum() == 3
    assert table["p"][nodes] == str(chi_square(counts.to_numpy()))


def test_one_class_and_no_further_column(cohort: Cohort, tmp_path: Path) -> None:
    rows = cohort.table[cohort.table["malignant"].eq(False)][SCHEMA.names]
    write_cohort(tmp_path, rows, name="benign", source="test", synthetic=False)
    table = table_one(load_cohort(tmp_path)).set_index("characteristic")
    assert table.loc["patients", "malignant"] == "0"
    assert table.loc["device", ["p malignancy", "p ALN"]].tolist() == ["undefined"] * 2


def test_numbers_of_studies_are_not_listed(cohort: Cohort, tmp_path: Path) -> None:
    rows = pd.concat([cohort.table[SCHEMA.names]] * 4, ignore_index=True).astype(object)
    rows["patient_id"] = rows["lesion_id"] = [f"p{number}" for number in range(len(rows))]
    rows["image"] = [f"{number}.png" for number in range(len(rows))]
    rows["accession"] = [f"secret {number}" for number in range(len(rows))]
    for number in range(len(rows)):
        picture(tmp_path / f"{number}.png", 100 + number)
    write_cohort(tmp_path, rows, name="many", source="test", synthetic=False)
    table = table_one(load_cohort(tmp_path))
    assert table.set_index("characteristic").loc["accession", "value"] == "36 values, not shown"
    assert "secret" not in table.to_csv()


def test_describe_shows_the_table_and_writes_it(cohort: Cohort, tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    done = sonode("describe", cohort.folder, "--csv", path)
    assert done.returncode == 0, done.stderr
    assert "cohort: six" in done.stdout
    assert "age, mean ± SD" in done.stdout
    assert "Yates" in done.stdout
    written = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert written.values.tolist() == table_one(cohort).values.tolist()

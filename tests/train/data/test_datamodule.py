from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from handlers.images.prepare import prepare
from handlers.requests import ScoringRequest
from model_def.heads import HeadSpec
from model_def.preprocessing import Preprocessing, RoI
from sonode.console import UserError
from tests.conftest import HEADS, encode
from tests.handlers.dicoms import dataset, write
from train.cohorts.cohort import Cohort
from train.cohorts.folds import folds_of
from train.cohorts.split import PARTS, part_of
from train.data.datamodule import CohortData
from train.data.split_remarks import split_remarks
from train.importers.table import import_csv


def test_patients_of_a_part_are_those_whose_lesions_it_holds(
    phantom: Cohort, heads: tuple[HeadSpec, ...]
) -> None:
    data = CohortData(phantom.folder, split_seed=4, malignant_only=True)
    data.setup_for(heads, Preprocessing(size=32))
    table = phantom.table
    train = table[[part_of(patient, 4) == "train" for patient in table["patient_id"]]]
    malignant = train[train["malignant"]]["patient_id"].nunique()
    assert data.patients("train") == malignant < train["patient_id"].nunique()


def test_a_fold_is_kept_aside_or_none_is(phantom: Cohort, heads: tuple[HeadSpec, ...]) -> None:
    data = CohortData(phantom.folder, folds=2, fold="2")
    data._cohort = phantom
    fold_N = folds_of(phantom, 2, 0)
    assert data.rows_of("val") == [row for row, it in enumerate(fold_N) if it == "2"]
    assert data.rows_of("train") == [row for row, it in enumerate(fold_N) if it == "1"]
    data.setup_for(heads, Preprocessing(size=32))
    assert [len(data.parts[part]) for part in PARTS] == [*map(len, map(data.rows_of, PARTS))]
    assert data.rows_of("test") == []

    everybody = CohortData(phantom.folder, folds=2, fold="all")
    everybody._cohort = phantom
    assert everybody.rows_of("train") == list(range(len(phantom.table)))
    for folds, fold, message in (
        (2, "3", r"data.fold 3: give the fold to hold out \(1, 2\)"),
        (2, None, r"data.fold None: .* `sonode train folds`"),
        (None, "1", "data.fold 1: give data.folds, too"),
    ):
        data = CohortData(phantom.folder, folds=folds, fold=fold)
        data._cohort = phantom
        with pytest.raises(UserError, match=message):
            data.rows_of("val")


def test_a_cohort_that_brings_its_split_is_split_by_it(
    phantom: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = phantom.table["patient_id"]
    brought = np.where(ids == ids.iloc[0], "test", np.where(ids == ids.iloc[-1], "val", "train"))
    data = CohortData(phantom.folder, split_seed=4)
    data._cohort = replace(phantom, table=phantom.table.assign(split=brought))
    assert data.part_of_row == brought.tolist()
    assert "its column `split` is the split" in capsys.readouterr().out
    # What the seed of a drawn split would do says nothing of this one.
    assert not any("split_seed" in line for line in split_remarks(data, HEADS))


def test_a_target_that_a_cohort_to_evaluate_on_lacks_is_missing(
    phantom: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = [
        HeadSpec(name="grade", target="grade", labels=("1", "2", "3")),
        HeadSpec(name="many", target="mitoses>=2", labels=("few", "many")),
        HeadSpec(name="her2", target="her2", labels=("negative", "positive")),
    ]
    data = CohortData(phantom.folder)
    data.setup_for(heads, Preprocessing(size=32), may_lack=True)
    assert torch.isnan(data.parts["train"].labels_NK).all()
    assert data.parts["train"].labels_NK.shape[1] == 3
    told = capsys.readouterr().out
    assert "has no column `mitoses`; head many is not measured" in told
    with pytest.raises(UserError, match="target `grade` of `grade` is not a label of this cohort"):
        CohortData(phantom.folder).setup_for(heads, Preprocessing(size=32))


def test_training_sees_greys_of_more_than_8_bits_as_serving_does(tmp_path: Path) -> None:
    """Boxes whose context is clipped at the frame, from the import to the network's input."""
    pictures = np.random.default_rng(3).integers(0, 4096, (4, 48, 64), np.uint16)
    window = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 1500, "WindowWidth": 2000}
    files = {
        "12 of 16.png": encode(pictures[0]),
        "16.png": encode(pictures[1] * 16),
        "12.dcm": write(dataset(pictures[2], "MONOCHROME2", **window)),
        "16.dcm": write(dataset(pictures[3] * 16, "MONOCHROME2")),
    }
    box = RoI(1, 20, 41, 47)
    lines = ["patient_id,image,roi_x_min,roi_y_min,roi_x_max,roi_y_max,malignant"]
    for number, (name, file) in enumerate(files.items()):
        (tmp_path / name).write_bytes(file)
        lines.append(f"{number},{name},{','.join(map(str, box))},{number % 2}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    import_csv(tmp_path / "table.csv", tmp_path / "cohort", name="deep")
    data, facts = CohortData(tmp_path / "cohort", folds=2, fold="all"), Preprocessing(context=0.2)
    data.setup_for(HEADS[:1], facts)
    for index, file in enumerate(files.values()):
        served = prepare(ScoringRequest(file, box, None, None), facts).input_SS
        assert np.array_equal(data.parts["train"].image(index).numpy(), served)
        assert len(np.unique(served)) > 8  # something of the picture is left

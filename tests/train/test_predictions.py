import json
from pathlib import Path

import pytest
import torch

from archives.loader import load_archive
from model_def import checkpoint
from model_def.heads import HeadSpec
from sonode_console import UserError
from train.cohort import Cohort
from train.predictions import predict
from train.split import part_of


@pytest.fixture
def trained(checkpoint_folder: Path, phantom: Cohort, tmp_path: Path) -> Path:
    """The untrained checkpoint, whose card says that it was trained on the phantom."""
    network, card = checkpoint.load(checkpoint_folder)
    about = {"name": "phantom", "sha256": phantom.sha256, "synthetic": True, "split_seed": 4}
    card = card.model_copy(update={"training": {**card.training, "cohort": about}})
    checkpoint.save(tmp_path / "checkpoint", network, card)
    return tmp_path / "checkpoint"


def test_the_test_part_with_its_truth(trained: Path, phantom: Cohort) -> None:
    found = predict(trained, phantom.folder, "test")
    table = phantom.table
    in_test = [part_of(patient, 4) == "test" for patient in table["patient_id"]]
    assert found.frame["lesion_id"].tolist() == table.loc[in_test, "lesion_id"].tolist()
    for head, column in (("malignancy", "malignant"), ("alnm", "alnm")):
        assert found.frame[f"{head}_truth"].tolist() == table.loc[in_test, column].tolist()
        assert found.frame[f"{head}_probability"].between(0, 1).all()
    assert found.about["cohort"]["images"] == sum(in_test) == len(found.frame)
    assert json.loads(json.dumps(found.about)) == found.about


def test_the_scores_are_those_of_the_archive(
    trained: Path, archive_path: Path, phantom: Cohort
) -> None:
    frame = predict(trained, phantom.folder, "val").frame
    rows = [
        {
            "image": (phantom.folder / str(row.image)).read_bytes(),
            "roi": [row.roi_x_min, row.roi_y_min, row.roi_x_max, row.roi_y_max],
        }
        for row in frame.itertuples()
    ]
    with load_archive(archive_path) as archive:
        outcomes = archive.score(rows)
    for (_, row), outcome in zip(frame.iterrows(), outcomes, strict=True):
        for head in ("malignancy", "alnm"):
            served = outcome.body["heads"][head]["probability"]
            assert row[f"{head}_probability"] == pytest.approx(served, abs=1e-5)


def test_all_of_the_training_cohort_is_refused(
    trained: Path, checkpoint_folder: Path, phantom: Cohort, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"--part all: .* trained on; give --part test"):
        predict(trained, phantom.folder, "all")
    network, card = checkpoint.load(trained)
    other = {**card.training, "cohort": {**card.training["cohort"], "sha256": "0" * 64}}
    checkpoint.save(tmp_path / "o", network, card.model_copy(update={"training": other}))
    assert len(predict(tmp_path / "o", phantom.folder, "all").frame) == len(phantom.table)


def test_categorical_columns(phantom: Cohort, trained: Path, tmp_path: Path) -> None:
    network, card = checkpoint.load(trained)
    network.heads = torch.nn.Linear(network.heads.in_features, 4)
    device = HeadSpec(
        name="machine", target="device", labels=("Phantom A", "Phantom B", "Phantom C")
    )
    card = card.model_copy(update={"heads": (card.heads[0], device)})
    checkpoint.save(tmp_path / "c", network, card)
    frame = predict(tmp_path / "c", phantom.folder, "test").frame
    columns = [f"machine_probability_Phantom {letter}" for letter in "ABC"]
    assert (frame[columns].sum(axis=1) - 1).abs().max() < 1e-9
    assert frame["machine_truth"].tolist() == frame["device"].tolist()

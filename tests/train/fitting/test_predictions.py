import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from archives.packing.loader import load_archive
from model_def import checkpoint
from model_def.heads import HeadSpec
from model_def.network import joined
from model_def.preprocessing import Preprocessing
from sonode.console import UserError
from tests.conftest import HEADS
from train.cohorts.cohort import Cohort, write_cohort
from train.cohorts.images import read_image
from train.cohorts.split import part_of
from train.data.datamodule import CohortData
from train.data.leakage import IMAGES, images_of
from train.fitting.predictions import predict
from train.importers.phantom import write_phantom
from train.importers.table import import_voc


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


def test_a_cohort_without_a_heads_labels_has_no_truth_of_it(
    trained: Path, phantom: Cohort, tmp_path: Path
) -> None:
    """Not even `no ALNM` of the benign lesions, which follows where others have the label."""
    rows = phantom.table.drop(columns="pixels_sha256").copy()
    rows["image"] = [str((phantom.folder / image).resolve()) for image in rows["image"]]
    rows["patient_id"] = "d" + rows["patient_id"]
    benign = rows["malignant"].eq(False).to_numpy(bool)
    assert benign.any() and not benign.all()
    rows["n_nodes"] = None
    for name, alnm in (
        ("none", [None] * len(rows)),
        ("some", [None if it else True for it in benign]),
    ):
        rows["alnm"] = alnm
        write_cohort(tmp_path / name, rows, name=name, source="test", synthetic=True)
        found = predict(trained, tmp_path / name, "all").frame
        assert found["malignancy_truth"].notna().all()
        assert found["alnm_truth"].isna().all() == (name == "none")
    assert found["alnm_truth"].tolist() == [not it for it in benign]


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


def test_a_network_on_every_patient_says_so_and_has_no_part_of_its_own(
    trained: Path, phantom: Cohort, tmp_path: Path
) -> None:
    network, card = checkpoint.load(trained)
    about = {"fold": "all", "folds": 2, "sha256": "0" * 64, "train": {"patients": 14}}
    facts = {
        "cohort": {**card.training["cohort"], **about},
        "figures": {"statement": "trained on all 14 patients; figures are of 2 folds"},
    }
    card = card.model_copy(update={"training": {**card.training, **facts}})
    checkpoint.save(tmp_path / "refit", network, card)
    for part in ("val", "test"):
        with pytest.raises(UserError, match="on all 14 patients, and no part was held out"):
            predict(tmp_path / "refit", phantom.folder, part)  # type: ignore[arg-type]
    found = predict(tmp_path / "refit", phantom.folder, "all")
    assert found.about["statement"] == facts["figures"]["statement"]
    assert found.frame["lesion_id"].tolist() == phantom.table["lesion_id"].tolist()


def test_members_spread_is_that_of_their_own_probabilities(
    trained: Path, phantom: Cohort, tmp_path: Path
) -> None:
    network, card = checkpoint.load(trained)
    other, _ = checkpoint.load(trained)
    torch.nn.init.normal_(other.heads.weight)
    frames = []
    for name, one in (("0", network), ("1", other)):
        checkpoint.save(tmp_path / name, one, card)
        frames.append(predict(tmp_path / name, phantom.folder, "test").frame)
        assert "alnm_spread" not in frames[-1]
    both = card.model_copy(update={"members": 2})
    checkpoint.save(tmp_path / "2", joined(card.architecture, [network, other]), both)
    frame = predict(tmp_path / "2", phantom.folder, "test").frame
    p, q = (its["alnm_probability"].to_numpy() for its in frames)
    np.testing.assert_allclose(frame["alnm_spread"], np.abs(p - q) / 2**0.5, atol=1e-6)
    logit = (np.log(p / (1 - p)) + np.log(q / (1 - q))) / 2
    np.testing.assert_allclose(frame["alnm_probability"], 1 / (1 + np.exp(-logit)), atol=1e-6)


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


def test_images_that_were_learned_from_are_no_evidence(
    trained: Path, phantom: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(trained, phantom.folder, "test")
    assert "has no images.parquet; not checked" in capsys.readouterr().out

    data = CohortData(phantom.folder, split_seed=4)
    network, card = checkpoint.load(trained)
    data.setup_for(card.heads, card.preprocessing)
    checkpoint.save(trained, network, card, {IMAGES: images_of(data)})
    for part in ("val", "test"):
        predict(trained, phantom.folder, part)  # type: ignore[arg-type]
    assert "not checked" not in capsys.readouterr().out

    # The same images under new ids fall into other parts, and the split cannot know them.
    rows = phantom.table.drop(columns="pixels_sha256").copy()
    rows["image"] = [str((phantom.folder / image).resolve()) for image in rows["image"]]
    was = [part_of(patient, 4) for patient in rows["patient_id"]]
    rows["patient_id"] = "d" + rows["patient_id"]
    now = [part_of(patient, 4) for patient in rows["patient_id"]]
    write_cohort(tmp_path / "renamed", rows, name="renamed", source="test", synthetic=True)
    for part, learned in (("val", ["train"]), ("test", ["train", "val"])):
        both = [
            index
            for index, parts in enumerate(zip(was, now, strict=True))
            if parts[0] in learned and parts[1] == part
        ]
        assert both
        with pytest.raises(
            UserError, match=f"no evidence; remove {len(both)} rows? of part {part} "
        ) as caught:
            predict(trained, tmp_path / "renamed", part)  # type: ignore[arg-type]
        assert caught.value.details == [f"row {index}, image: the same pixels" for index in both]
    with pytest.raises(
        UserError, match="images or patients that the checkpoint was trained on are no evidence"
    ):
        predict(trained, tmp_path / "renamed", "all")


@pytest.fixture
def knowing(trained: Path, phantom: Cohort) -> Path:
    """The checkpoint with what it saw."""
    data = CohortData(phantom.folder, split_seed=4)
    network, card = checkpoint.load(trained)
    data.setup_for(card.heads, card.preprocessing)
    checkpoint.save(trained, network, card, {IMAGES: images_of(data)})
    return trained


def stored_again(phantom: Cohort, folder: Path, rows: pd.DataFrame) -> None:
    """The cohort of those rows, whose images are JPEGs of the phantom's."""
    folder.mkdir()
    for image in rows["image"].unique():
        pixels = read_image(phantom.folder / image)
        Image.fromarray(pixels).save((folder / Path(image).name).with_suffix(".jpg"), quality=85)
    rows = rows.drop(columns="pixels_sha256")
    rows["image"] = [Path(image).stem + ".jpg" for image in rows["image"]]
    write_cohort(folder, rows, name="again", source="test", synthetic=True)


def test_images_that_were_stored_again_are_no_evidence(
    knowing: Path, phantom: Cohort, tmp_path: Path
) -> None:
    rows = phantom.table.copy()
    rows["patient_id"] = "d" + rows["patient_id"]
    stored_again(phantom, tmp_path / "again", rows)
    learned = [
        index
        for index, patient in enumerate(phantom.table["patient_id"])
        if part_of(patient, 4) != "test"
    ]
    with pytest.raises(
        UserError, match=f"no evidence; remove {len(learned)} rows of part all "
    ) as caught:
        predict(knowing, tmp_path / "again", "all")
    told = [line.split(" (about")[0] for line in caught.value.details]
    assert told == [f"row {index}, image: a similar one" for index in learned]

    # What it did not learn from is evidence, whatever its file.
    new = phantom.table[[part_of(it, 4) == "test" for it in phantom.table["patient_id"]]]
    stored_again(phantom, tmp_path / "new", new)
    assert len(predict(knowing, tmp_path / "new", "all").frame) == len(new)
    # But it is not external: the cohort of the training has it.
    message = f"no evidence; remove {len(new)} rows? of part external "
    with pytest.raises(UserError, match=message):
        predict(knowing, tmp_path / "new", "external")
    with pytest.raises(UserError, match=r"external cohort: .* is the cohort that the checkpoint"):
        predict(knowing, phantom.folder, "external")


def test_other_images_of_the_patients_are_no_evidence(
    knowing: Path, phantom: Cohort, tmp_path: Path
) -> None:
    # Other images under the ids of the phantom, as of a later visit.
    write_phantom(tmp_path / "later", 6, 99)
    rows = import_voc(tmp_path / "later", tmp_path / "later", name="l", synthetic=True).table
    rows["patient_id"] = rows["patient_id"].str.replace("phantom_99_", "phantom_")
    rows = rows.drop(columns="pixels_sha256")
    write_cohort(tmp_path / "later", rows, name="later", source="test", synthetic=True)
    learned = [
        index for index, patient in enumerate(rows["patient_id"]) if part_of(patient, 4) != "test"
    ]
    assert learned
    with pytest.raises(
        UserError, match=f"no evidence; remove {len(learned)} rows of part all "
    ) as caught:
        predict(knowing, tmp_path / "later", "all")
    assert caught.value.details == [
        f"row {index}, patient_id: of that patient" for index in learned
    ]
    # Its ids are in the file under a key alone.
    assert b"phantom_" not in (knowing / IMAGES).read_bytes()


def test_what_a_checkpoint_saw_is_damaged(knowing: Path, phantom: Cohort) -> None:
    whole = (knowing / IMAGES).read_bytes()
    for damaged in (b"PAR1", whole[:-4] + b"PAR2"):
        (knowing / IMAGES).write_bytes(damaged)
        with pytest.raises(UserError, match=r"its images\.parquet is damaged"):
            predict(knowing, phantom.folder, "test")


def test_a_cohort_of_one_patient_is_evaluated_whole(
    trained: Path, phantom: Cohort, tmp_path: Path
) -> None:
    rows = phantom.table.drop(columns="pixels_sha256").copy()
    rows["image"] = [str((phantom.folder / image).resolve()) for image in rows["image"]]
    one = rows[rows["patient_id"] == rows["patient_id"].iloc[0]]
    write_cohort(tmp_path / "one", one, name="one", source="test", synthetic=True)
    whole = predict(trained, tmp_path / "one", "all").frame
    assert whole["lesion_id"].tolist() == one["lesion_id"].tolist()
    empty = next(part for part in ("val", "test") if part != part_of(one["patient_id"].iloc[0], 4))
    with pytest.raises(UserError, match=f"no patient falls into the {empty} part .* --part all"):
        predict(trained, tmp_path / "one", empty)  # type: ignore[arg-type]


def test_an_image_under_two_patients_stops_training_and_evaluation(
    trained: Path, phantom: Cohort, tmp_path: Path
) -> None:
    rows = phantom.table.drop(columns="pixels_sha256").copy()
    rows["image"] = [str((phantom.folder / image).resolve()) for image in rows["image"]]
    first = rows[rows["patient_id"] == rows["patient_id"].iloc[0]].index[0]
    rows.loc[first, ["image", "patient_id"]] = [rows["image"].iloc[-1], "another"]
    write_cohort(tmp_path / "twice", rows, name="twice", source="test", synthetic=True)
    data = CohortData(tmp_path / "twice")
    for work in (
        lambda: predict(trained, tmp_path / "twice", "test"),
        lambda: data.setup_for(HEADS, Preprocessing()),  # what `train` begins with
    ):
        with pytest.raises(UserError) as caught:
            work()
        told = [line for line in caught.value.details if "which is another patient" in line]
        assert told == [
            f"row {len(rows) - 1}, image: same pixels as row 0, which is another patient"
        ]

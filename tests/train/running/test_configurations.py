"""What is trained by configuration alone: the shipped ones, and heads that none of them has."""

from pathlib import Path

import pytest
import yaml

from archives.packing.loader import load_archive
from archives.packing.pack import pack
from model_def import checkpoint
from tests.train.trainings import CONFIGS, train
from train.cohorts.cohort import Cohort, write_cohort
from train.cohorts.split import part_of

SUBTYPES = ("luminal", "HER2", "triple-negative")


@pytest.fixture(scope="module")
def burdened(phantom: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom's images with labels of every nodal burden in its training part, split 3."""
    rows = phantom.table.drop(columns="pixels_sha256").copy()
    rows["image"] = [str((phantom.folder / image).resolve()) for image in rows["image"]]
    place: dict[str, int] = {}
    for patient in rows["patient_id"].unique():
        same = [other for other in place if part_of(other, 3) == part_of(patient, 3)]
        place[patient] = len(same) % 6
    state = rows["patient_id"].map(place).astype(int)
    rows["malignant"] = (state > 0).astype("bool[pyarrow]")
    rows["n_nodes"] = (state - 1).clip(lower=0).astype("int32[pyarrow]")
    rows["alnm"] = (rows["n_nodes"] > 0).astype("bool[pyarrow]")
    rows["subtype"] = (state % 3).map(dict(enumerate(SUBTYPES))).where(state > 0, None)
    folder = tmp_path_factory.mktemp("burdened")
    write_cohort(folder, rows, name="burdened", source="phantom", synthetic=True)
    return folder


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(name, marks=[pytest.mark.slow] if "resnet50" in name else [])
        for name in sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    ],
)
def test_every_shipped_configuration_runs(burdened: Path, tmp_path: Path, config: str) -> None:
    done = train(
        *("fit", burdened, tmp_path / "out", "--trainer.max_epochs=1"),
        *("--trainer.limit_train_batches=1", "--data.split_seed=3"),
        "--data.augmentation.size=null",
        config=config,
    )
    assert done.returncode == 0, done.stderr
    card = checkpoint.read_card(tmp_path / "out" / "checkpoint")
    settings = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())["model"]
    assert [head.name for head in card.heads] == [head["name"] for head in settings["heads"]]
    assert card.hierarchy == settings.get("hierarchy", "independent")


def test_a_categorical_head_is_configuration(
    burdened: Path, phantom: Cohort, tmp_path: Path
) -> None:
    heads = (
        "[{name: malignancy, target: malignant, labels: [benign, malignant]},"
        f" {{name: subtype, target: subtype, labels: [{', '.join(SUBTYPES)}], parent: malignancy}}]"
    )
    out = tmp_path / "out"
    done = train(
        *("fit", burdened, out, "--trainer.max_epochs=1"),
        *(f"--model.heads={heads}", "--model.hierarchy=chain", "--data.split_seed=3"),
    )
    assert done.returncode == 0, done.stderr
    archive = pack(out / "checkpoint", "subtypes", "1.0", tmp_path / "store")
    with load_archive(archive) as loaded:
        assert loaded.heads["subtype"] == SUBTYPES
        (outcome,) = loaded.score([{"image": phantom.image_path(0).read_bytes()}])
    found = outcome.body["heads"]
    assert found["subtype"]["label"] in SUBTYPES
    assert found["subtype"]["threshold"] is None
    total = sum(found["subtype"]["distribution"].values())
    assert total == pytest.approx(found["malignancy"]["probability"])


def test_the_papers_configuration_is_the_papers() -> None:
    settings = yaml.safe_load((CONFIGS / "paper.yaml").read_text())
    assert settings["trainer"]["max_epochs"] == 200
    assert settings["model"]["architecture"] == "resnet50"
    assert settings["model"]["preprocessing"] == {"size": 256, "context": 0.0}
    assert settings["model"]["learning_rate"] == 1e-4
    assert (settings["model"]["schedule"], settings["model"]["step_epochs"]) == ("step", 50)
    assert settings["model"]["loss"] == {
        "hierarchy_weight": 0.05,
        "margin": 0.1,
        "parent_negative": "mask",
    }

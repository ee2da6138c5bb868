import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback

from archives.build import pack
from archives.loader import load_archive
from model_def import checkpoint
from sonode_console import UserError
from train.cli import run
from train.cohort import Cohort, write_cohort
from train.split import part_of

CONFIGS = Path(__file__).parents[2] / "train" / "configs"
SUBTYPES = ("luminal", "HER2", "triple-negative")
# Under split seed 4 every part of the 14 patients has both classes of both labels.
SMALL = [
    *("--model.preprocessing.size=32", "--trainer.precision=32-true"),
    *("--data.batch_size=8", "--data.split_seed=4"),
]
AVERAGED = ["--model.average_decay=0.9", "--model.weight_decay=0.05"]


def sonode(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "sonode", *map(str, arguments)]


def train(
    step: str, cohort: Path, out: Path, *more: object, config: str = "demo"
) -> subprocess.CompletedProcess[str]:
    command = sonode(
        *("train", step, "--config", CONFIGS / f"{config}.yaml"),
        *("--data.cohort", cohort, "--out", out, *SMALL, *more),
    )
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def trained(phantom: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of an uninterrupted run over three epochs."""
    out = tmp_path_factory.mktemp("run") / "out"
    done = train("fit", phantom.folder, out, "--trainer.max_epochs=3")
    assert done.returncode == 0, done.stderr
    assert "epoch 3/3: loss" in done.stdout
    assert "crops as they were stored" in done.stdout
    return out


@pytest.fixture(scope="module")
def averaged(phantom: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a moving average of the weights."""
    out = tmp_path_factory.mktemp("run") / "out"
    done = train("fit", phantom.folder, out, *AVERAGED, "--trainer.max_epochs=3")
    assert done.returncode == 0, done.stderr
    return out


def test_logs_and_the_images_of_the_split_are_kept(trained: Path, phantom: Cohort) -> None:
    log = pd.read_csv(trained / "run" / "csv" / "metrics.csv")
    assert log["val_loss"].notna().sum() == log["train_loss"].notna().sum() == 3
    assert len(list((trained / "run" / "tensorboard").glob("events.out.tfevents.*"))) == 1
    images = pd.read_parquet(trained / "checkpoint" / "images.parquet")
    assert set(images["pixels_sha256"]) == set(phantom.table["pixels_sha256"])
    assert set(images["part"]) == {"train", "val", "test"}


def test_the_card_says_what_a_reviewer_asks(trained: Path, phantom: Cohort) -> None:
    card = checkpoint.read_card(trained / "checkpoint")
    assert card.architecture == "resnet18"
    assert [head.name for head in card.heads] == ["malignancy", "alnm"]
    assert (card.preprocessing.size, card.preprocessing.context) == (32, 0.2)
    training = card.training
    validation = training["cohort"]["val"]["images"]
    assert [sum(counts) for counts in training["score_reference"].values()] == [validation] * 2
    assert training["cohort"]["sha256"] == phantom.sha256
    assert training["cohort"]["synthetic"] is True
    images = [training["cohort"][part]["images"] for part in ("train", "val", "test")]
    assert sum(images) == len(phantom.table)
    malignancy, alnm = training["labels"]["malignancy"], training["labels"]["alnm"]
    assert sum(malignancy.values()) == images[0]
    assert sum(alnm.values()) == malignancy["malignant"]  # benign images are not in its term
    assert (training["precision"], training["processes"]) == ("32-true", 1)
    assert training["loss"] == {
        "hierarchy_weight": 0.05,
        "margin": 0.1,
        "parent_negative": "mask",
    }


def test_test_reports_the_exported_checkpoint(trained: Path, phantom: Cohort) -> None:
    done = train("test", phantom.folder, trained)
    assert done.returncode == 0, done.stderr
    found = json.loads((trained / "test.json").read_text())
    assert [(item["head"], item["on"]) for item in found] == [
        ("malignancy", "all"),
        ("alnm", "malignancy positive"),
        ("alnm", "all"),
    ]
    for item in found:
        assert ("undefined" if item["auc"] is None else f"{item['auc']:.3f}") in done.stdout


def test_a_finished_checkpoint_is_not_trained_over(trained: Path, phantom: Cohort) -> None:
    done = train("fit", phantom.folder, trained)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: --out")
    assert "holds a finished checkpoint; give another folder" in done.stderr


def weights(out: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(out / "checkpoint")[0].state_dict()


def test_worker_processes_train_to_the_same_weights(
    trained: Path, phantom: Cohort, tmp_path: Path
) -> None:
    more = ("--trainer.max_epochs=3", "--data.num_workers=2")
    done = train("fit", phantom.folder, tmp_path / "out", *more)
    assert done.returncode == 0, done.stderr
    helped = weights(tmp_path / "out")
    for name, tensor in weights(trained).items():
        assert torch.equal(helped[name], tensor), name


def test_the_average_of_the_weights_is_what_is_exported(
    trained: Path, averaged: Path, phantom: Cohort, tmp_path: Path
) -> None:
    memoryless = tmp_path / "out"
    done = train(
        *("fit", phantom.folder, memoryless, "--trainer.max_epochs=3"),
        "--model.average_decay=1e-12",
    )
    assert done.returncode == 0, done.stderr
    plain, same, other = weights(trained), weights(memoryless), weights(averaged)
    for name, tensor in plain.items():
        torch.testing.assert_close(same[name], tensor)
    assert not torch.allclose(other["heads.weight"], plain["heads.weight"])
    training = checkpoint.read_card(averaged / "checkpoint").training
    assert training["average_decay"] == 0.9


@pytest.mark.parametrize("kind", ["trained", "averaged"])
def test_a_killed_run_goes_on_to_the_same_weights(
    kind: str, request: pytest.FixtureRequest, phantom: Cohort, tmp_path: Path
) -> None:
    trained: Path = request.getfixturevalue(kind)
    more = AVERAGED if kind == "averaged" else []
    out = tmp_path / "out"
    arguments = ["--data.cohort", phantom.folder, "--out", out, *SMALL, *more]
    arguments.append("--trainer.max_epochs=3")
    command = sonode("train", "fit", "--config", CONFIGS / "demo.yaml", *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 2/3"):  # said before its own checkpoint is written
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "checkpoint").exists()

    other = train("fit", phantom.folder, out, *more, "--trainer.max_epochs=4")
    assert other.returncode == 2
    assert "holds an interrupted run of another configuration or cohort" in other.stderr

    done = train("fit", phantom.folder, out, *more, "--trainer.max_epochs=3")
    assert done.returncode == 0, done.stderr
    assert "resuming the interrupted run" in done.stdout
    assert "epoch 1/3" not in done.stdout
    resumed = weights(out)
    for name, tensor in weights(trained).items():
        assert torch.equal(resumed[name], tensor), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.max_epoch=1"], "trainer.max_epoch"),
        (["--model.loss.weight=1"], "weight"),
        (["--model.architecture=vgg"], "architecture"),
        (["--model.preprocessing.size=7"], "size"),
        (["--model.heads=[{name: a, target: liver, labels: [n, y]}]"], "target `liver`"),
        (["--model.heads=[]"], "the list is empty"),
        (["--config=none.yaml"], "none.yaml"),
        (["--data.batch_size=0"], "batch_size"),
        (["--data.num_workers=-1"], "num_workers"),
        (["--model.learning_rate=-1"], "learning_rate"),
        (["--model.average_decay=1"], "average_decay"),
        (["--model.operating_point=sensitivity_95"], "operating_point"),
        (["--data.augmentation.flip=1"], "flip"),
        (["--seed_everything=-1"], "--seed_everything -1: give a whole number"),
        (["--seed_everything=false"], "--seed_everything False: give a whole number"),
        (["--trainer.accelerator=gpu"], "No supported gpu backend found"),
        (["--trainer.enable_checkpointing=false"], "enable_checkpointing"),
        (["--trainer.default_root_dir=/tmp"], "default_root_dir: is below --out"),
    ],
)
@pytest.mark.filterwarnings("default")  # Lightning's and its dependencies' own
def test_wrong_settings_are_one_line(
    phantom: Cohort,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["sonode"])
    out = tmp_path / "out"
    given = ["--config", str(CONFIGS / "demo.yaml"), "--data.cohort", str(phantom.folder)]
    with pytest.raises(UserError) as caught:
        run(["fit", *given, "--out", str(out), *SMALL, *arguments])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (out / "checkpoint").exists()


def test_a_wrong_setting_on_the_command_line(phantom: Cohort, tmp_path: Path) -> None:
    done = train("fit", phantom.folder, tmp_path / "out", "--trainer.max_epoch=1")
    assert done.returncode == 2
    assert [line[:6] for line in done.stderr.splitlines()] == ["error:"]
    assert "trainer.max_epoch" in done.stderr


def test_no_checkpoint_to_test(phantom: Cohort, tmp_path: Path) -> None:
    done = train("test", phantom.folder, tmp_path)
    assert done.returncode == 2
    assert "holds no model.json" in done.stderr


class Remove(Callback):
    """Takes the file of the first weights away once they are read."""

    def on_train_start(self, trainer: object, module: object) -> None:
        Path(module.weights).unlink()  # type: ignore[attr-defined]


class Stop(Callback):
    """What a user may add to a run."""

    def on_train_start(self, trainer: object, module: object) -> None:
        raise UserError("the callback was called")


@pytest.mark.filterwarnings("default")  # Lightning's and its dependencies' own
def test_callbacks_of_the_user_are_called(
    phantom: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["sonode"])
    given = ["--config", str(CONFIGS / "demo.yaml"), "--data.cohort", str(phantom.folder)]
    given += ["--out", str(tmp_path / "out"), *SMALL, "--trainer.logger=false"]
    with pytest.raises(UserError, match="the callback was called"):
        run(["fit", *given, "--trainer.callbacks+=tests.train.test_cli.Stop"])
    assert not list(tmp_path.rglob("metrics.csv"))


@pytest.mark.parametrize("given", [None, "32-true"])
@pytest.mark.filterwarnings("default")  # Lightning's and its dependencies' own
def test_the_precision_is_the_machines_unless_given(
    phantom: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.setattr(sys, "argv", ["sonode"])
    monkeypatch.setattr("train.cli.best_precision", lambda accelerator: "64-true")
    out = tmp_path / "out"
    arguments = ["--config", str(CONFIGS / "demo.yaml"), "--data.cohort", str(phantom.folder)]
    arguments += ["--model.preprocessing.size=32", "--data.split_seed=4", "--out", str(out)]
    arguments += [] if given is None else [f"--trainer.precision={given}"]
    with pytest.raises(UserError, match="the callback was called"):
        run(["fit", *arguments, "--trainer.callbacks+=tests.train.test_cli.Stop"])
    # Recorded, so that an interrupted run goes on in the precision that it began with.
    settings = yaml.safe_load((out / "config.yaml").read_text())
    assert settings["fit"]["trainer"]["precision"] == (given or "64-true")


def test_the_weights_are_named_as_they_were_read(
    trained: Path, phantom: Cohort, tmp_path: Path
) -> None:
    first = Path(shutil.copy(trained / "checkpoint" / "weights.safetensors", tmp_path))
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    done = train(
        *("fit", phantom.folder, tmp_path / "out", "--trainer.max_epochs=1"),
        *(f"--model.weights={first}", "--trainer.callbacks+=tests.train.test_cli.Remove"),
    )
    assert done.returncode == 0, done.stderr
    assert not first.exists()
    card = checkpoint.read_card(tmp_path / "out" / "checkpoint")
    assert card.training["weights"] == f"sha256 {digest}"


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


@pytest.mark.parametrize("config", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_every_shipped_configuration_runs(burdened: Path, tmp_path: Path, config: str) -> None:
    done = train(
        *("fit", burdened, tmp_path / "out", "--trainer.max_epochs=1"),
        *("--trainer.limit_train_batches=1", "--data.split_seed=3"),
        *(["--data.augmentation.size=null"] if config == "small" else []),
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


def test_validate_reports_its_part(trained: Path, phantom: Cohort) -> None:
    done = train("validate", phantom.folder, trained)
    assert done.returncode == 0, done.stderr
    assert "Validation part" in done.stdout
    assert "malignancy" in done.stdout


def test_another_split_would_test_on_training_patients(trained: Path, phantom: Cohort) -> None:
    done = train("test", phantom.folder, trained, "--data.split_seed=5")
    assert done.returncode == 2
    assert "--data.split_seed 5: the checkpoint was trained with 4" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.max_epochs=0"], "no epoch was finished"),
        (["--trainer.limit_val_batches=0"], "validation is switched off"),
        (["--model.learning_rate=1e30"], "training diverged in epoch"),
    ],
)
def test_a_run_that_gives_no_checkpoint(
    phantom: Cohort, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = train("fit", phantom.folder, tmp_path / "out", "--trainer.max_epochs=2", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_ctrl_c_is_not_taken_for_findings(phantom: Cohort, tmp_path: Path) -> None:
    command = sonode(
        *("train", "fit", "--config", CONFIGS / "demo.yaml", "--data.cohort", phantom.folder),
        *("--out", tmp_path / "out", *SMALL, "--trainer.max_epochs=50"),
    )
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        next(line for line in process.stdout if line.startswith("epoch 1/50"))
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted"
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_two_processes_train_together(phantom: Cohort, tmp_path: Path) -> None:
    done = train(
        *("fit", phantom.folder, tmp_path / "out", "--trainer.max_epochs=2"),
        *("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"),
        "--data.batch_size=4",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 1
    training = checkpoint.read_card(tmp_path / "out" / "checkpoint").training
    assert (training["epochs"], training["processes"]) == (2, 2)
    # Each takes batches of 4 from its half of the images, the last, partial one left out.
    last = torch.load(tmp_path / "out" / "run" / "last.ckpt", weights_only=True)
    half = training["cohort"]["train"]["images"] // 2
    assert last["global_step"] == 2 * (half // 4)
    done = train("test", phantom.folder, tmp_path / "out")
    assert done.returncode == 0, done.stderr

"""`sonode external`, from its command line, with networks that go into service."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import copytree

import pandas as pd
import pytest

from tests.command_line import sonode
from tests.train.trainings import CONFIGS, SMALL
from train.cohorts.cohort import Cohort
from train.evidence.report import write_evaluation
from train.experiments import fold_networks, folds
from train.importers.phantom import write_phantom
from train.importers.table import import_voc


def imported(folder: Path, patients: int, seed: int) -> Path:
    write_phantom(folder, patients, seed)
    import_voc(folder, folder, name=f"phantom {seed}", synthetic=True)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom of other patients."""
    return imported(tmp_path_factory.mktemp("other"), 8, 5)


@pytest.fixture(scope="module")
def of_folds(once: Callable[[str, Callable[[Path], object]], Path], phantom: Cohort) -> Path:
    """OUT of `sonode train folds --refit` with two folds."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folds, "write_evaluation", partial(write_evaluation, bootstrap=50))
            patch.setattr(fold_networks, "run_sonode", lambda line: sonode(*line).returncode)
            done = sonode(
                *(
                    "train",
                    "folds",
                    "--refit",
                    "--members=1",
                    "--config",
                    CONFIGS / "pretrain.yaml",
                    *SMALL,
                ),
                *("--data.cohort", phantom.folder, "--out", folder),
                *("--data.folds=2", "--trainer.max_epochs=1"),
            )
        assert done.returncode == 0, done.stderr

    return once("of_folds", make)


def external(checkpoint: Path, cohort: Path, out: Path, *others: str) -> tuple[int, str]:
    named = [word for it in others for word in ("--cohort", it)]
    done = sonode("external", checkpoint, cohort, out, *named, "--bootstrap", 100)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_a_network_on_every_patient_is_measured_by_its_folds(
    of_folds: Path, phantom: Cohort, other: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, said = external(of_folds / "checkpoint", phantom.folder, out, f"b={other}")
    assert code == 0, said
    found = json.loads((out / "external.json").read_text())
    ours = found["cohorts"]["development"]
    # Each row by the network of the other fold: what the folds reported, not the last network's.
    kept = [
        pd.read_parquet(folder / name)["malignancy_probability"].tolist()
        for folder, name in (
            (of_folds / "evidence", "predictions.parquet"),
            (out, "predictions-development.parquet"),
        )
    ]
    assert kept[0] == kept[1]
    assert (ours["about"]["part"], ours["patients"]) == ("out-of-fold", 14)
    theirs = found["cohorts"]["b"]["about"]
    assert theirs["statement"] == "trained on all 14 patients; figures are of 2 folds"
    assert (found["overlap_checked"], found["same_cohort"]) == (True, True)
    assert found["cohorts"]["b"]["patients"] == 8
    page = (out / "external.html").read_text()
    assert "The network was trained on all 14 patients of the development cohort." in page

    done = sonode("checklists", of_folds / "evidence", tmp_path / "lists", "--external", out)
    assert done.returncode == 0, done.stderr
    lines = pd.read_csv(tmp_path / "lists" / "tripod-ai.csv").set_index("number")["filled"]
    assert lines["5a"].startswith("Cohort phantom (every patient by folds: 14 patients, ")
    assert lines["12a"].startswith("Divided by patient into the folds 1; 2;")
    assert lines["15"].endswith("They were chosen on what is evaluated here.")
    assert "malignancy in b: ROC AUC per patient" in lines["20c"]

    # Its archive's card has both, and no other network's has.
    packed = ("pack", "--name", "a", "--version", "1", "--store", tmp_path / "store")
    done = sonode(*packed, of_folds / "checkpoint", "--evidence", out)
    assert done.returncode == 0, done.stderr
    shown = sonode("inspect", tmp_path / "store" / "a-1.mar").stdout
    assert "phantom 5 (another cohort, synthetic)" in shown
    assert "phantom (by networks that never saw the patient, synthetic)" in shown
    done = sonode(*packed, of_folds / "folds" / "1" / "checkpoint", "--evidence", out)
    assert (done.returncode, "is of another checkpoint" in done.stderr) == (2, True)


def test_a_network_of_a_fold_is_measured_on_that_fold(
    of_folds: Path, phantom: Cohort, other: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, said = external(
        of_folds / "folds" / "2" / "checkpoint", phantom.folder, out, f"b={other}"
    )
    assert code == 0, said
    kept = pd.read_parquet(of_folds / "evidence" / "predictions.parquet")
    frame = pd.read_parquet(out / "predictions-development.parquet")
    assert frame["patient_id"].tolist() == kept["patient_id"][kept["fold"] == "2"].tolist()
    page = (out / "external.html").read_text()
    assert "the fold that was held out" in page
    assert "predictions of all folds (`sonode train folds`) are the evidence." in page
    assert "test part" not in page


def test_what_is_no_external_validation_is_refused(
    of_folds: Path, phantom: Cohort, other: Path, tmp_path: Path
) -> None:
    checkpoint, out = of_folds / "checkpoint", tmp_path / "out"
    code, said = external(checkpoint, phantom.folder, out, f"b={phantom.folder}")
    assert (code, "is the cohort that the checkpoint was trained on" in said) == (2, True)
    code, said = external(checkpoint, other, out, f"b={other}")
    assert (code, "is not the one that the checkpoint was trained on" in said) == (2, True)

    copytree(other, tmp_path / "copy")
    two = (f"b={other}", f"c={tmp_path / 'copy'}")
    code, said = external(checkpoint, phantom.folder, out, *two)
    rows = len(pd.read_parquet(other / "cohort.parquet"))
    assert code == 2
    assert f"pictures that an earlier cohort has, too: {rows} rows of c; leave them out" in said

    copytree(checkpoint, tmp_path / "alone" / "checkpoint")
    code, said = external(tmp_path / "alone" / "checkpoint", phantom.folder, out, two[0])
    assert (code, "metrics.json: missing" in said) == (2, True)
    copytree(of_folds / "evidence", tmp_path / "alone" / "evidence")
    card = tmp_path / "alone" / "checkpoint" / "model.json"
    facts = json.loads(card.read_text())
    facts["heads"][0]["temperature"] = 3
    card.write_text(json.dumps(facts))
    code, said = external(tmp_path / "alone" / "checkpoint", phantom.folder, out, two[0])
    assert (code, "is not of the folds that this checkpoint follows" in said) == (2, True)
    assert not out.exists()

"""The model card: what is known, what was measured, and what only the author can write."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from archives.packing import evidence
from archives.packing.evidence import read_evidence, where
from archives.packing.inspect import inspect_archive
from archives.packing.model_card import Statement, model_card
from model_def.checkpoint import ModelCard
from model_def.label_sets import LabelSets
from model_def.outliers import OutlierLimit
from sonode.console import UserError
from tests.command_line import sonode
from tests.train.synthetic_predictions import synthetic
from train.measures.evaluate import evaluate

BLANK = "**TO BE WRITTEN BY THE AUTHOR**"


def measured(card: ModelCard, part: str, without: Sequence[str] = ()) -> dict[str, Any]:
    """An evaluation as `sonode evaluate` writes it of a checkpoint with that card.

    `without`: heads that the cohort has no label for.
    """
    training = dict(card.training)
    about = {
        "part": part,
        "cohort": {"name": "second|hospital", "synthetic": False, "sha256": "b"},
        "overlap_checked": part in ("all", "external"),
        "trained_on": training.pop("cohort"),
        "training": training,
        "model": card.model_dump(mode="json", exclude={"training"}),
    }
    frame = synthetic().frame
    for name in without:
        frame[f"{name}_truth"] = pd.Series(pd.NA, frame.index, dtype="boolean")
    found = replace(synthetic(), frame=frame, heads=card.heads, about=about)
    return evaluate(found, resamples=50)


def test_what_nobody_wrote_is_marked_and_what_is_known_is_there(card: ModelCard) -> None:
    page = model_card("tiny", "1.0", card.model_dump(mode="json"), [], Statement())
    assert page.startswith("# Model card: tiny 1.0\n")
    assert page.count(BLANK) == 3
    for said in (
        "- alnm: no ALNM or ALNM; threshold 0.5",
        "trained on a synthetic cohort and is not for patients",
        "- malignancy: was not evaluated on another cohort.",
        "- alnm: was not evaluated on another cohort.",
        "- alnm: its results are never marked as uncertain (its training made no label sets).",
        "test_resnet at 64 x 64 pixels, the box widened by 10% a side",
        "Not measured here on held-out patients: pack it with `--evidence`",
    ):
        assert said in page
    several = card.model_dump(mode="json") | {"members": 2}
    several["training"] = {**several["training"], "seeds": [4, 5]}
    page = model_card("tiny", "1.0", several, [], Statement())
    assert "The mean logit of 2 such networks, which differ by their seeds: 4, 5." in page
    sets = LabelSets(
        level=0.9,
        given=None,
        patients={"benign": 42, "malignant": 20},
        least={"benign": 0.2, "malignant": 0.4},
    )
    heads = (card.heads[0].model_copy(update={"label_sets": sets}), card.heads[1])
    limit = OutlierLimit(false_alarms=0.05, patients=62, limit=3.0)
    sure = card.model_copy(update={"heads": heads, "out_of_distribution": limit})
    text = Statement(intended_use="A second reader.", limits="Not on men.")
    page = model_card("tiny", "1.0", sure.model_dump(mode="json"), [], text)
    assert (page.count(BLANK), "A second reader." in page, "Not on men." in page) == (1, True, True)
    assert "at level 0.9, per label, from calibration patients benign 42, malignant 20" in page
    assert "false alarms of at most 0.05, from 62 calibration patients" in page


def test_figures_are_those_of_the_evaluations(card: ModelCard, tmp_path: Path) -> None:
    facts = json.loads(card.model_dump_json())
    found = []
    for part in ("test", "all"):
        (tmp_path / part).mkdir()
        metrics = measured(card, part)
        (tmp_path / part / "metrics.json").write_text(json.dumps(metrics))
        found += read_evidence(tmp_path / part, facts)
    page = model_card("tiny", "1.0", facts, found, Statement())
    image = metrics["heads"]["malignancy"]["sets"]["all"]["image"]
    auc, point = image["roc_auc"], image["operating_points"]["0.5"]
    cells = [
        f"{it['value']:.3f} ({it['low']:.3f} to {it['high']:.3f})"
        for it in (auc, point["sensitivity"], point["specificity"])
    ]
    counts = f"{image['rows']} | {image['positive']}"
    changed = "not the cohort of the training as it was, overlap with training not checked"
    for limit in changed.split(", "):
        assert f"- Evaluation on second|hospital, test part: {limit}." in page
    for its in (f"second/hospital (test part, {changed})", "second/hospital (another cohort)"):
        row = f"| {its} | malignancy | all | image | {counts} | {' | '.join(cells)} |"
        assert row in page
        assert f"| {its} | alnm | device | LOGIQ E9 |" in page
    assert "was not evaluated on another cohort" not in page


def test_an_external_validation_is_in_the_card(card: ModelCard, tmp_path: Path) -> None:
    """The development cohort of a network on every patient is of other networks."""
    own, other = measured(card, "out-of-fold"), measured(card, "external")
    own["about"] = {"part": "out-of-fold", "cohort": {"name": "first", "synthetic": True}}
    numbers = {"format": own["format"], "cohorts": {"development": own, "b": other}}
    (tmp_path / "external.json").write_text(json.dumps(numbers))
    facts = json.loads(card.model_dump_json())
    found = read_evidence(tmp_path, facts)
    page = model_card("tiny", "1.0", facts, found, Statement())
    folds = "first (by networks that never saw the patient, synthetic)"
    assert f"| {folds} | malignancy | all | patient | {own['patients']} |" in page
    assert "| second/hospital (another cohort) | alnm | device | LOGIQ E9 |" in page
    assert "was not evaluated on another cohort" not in page
    lines = evidence.tested_on(facts, found)
    assert [where(it) for it in lines] == [folds, "second|hospital (another cohort)"]
    sizes = {"patients": own["patients"], "images": own["rows"]}
    first = {"cohort": "first", "part": "out-of-fold", "synthetic": True, "limits": []}
    assert lines[0] == {**first, **sizes}
    other["about"]["training"]["seed"] = 7
    (tmp_path / "external.json").write_text(json.dumps(numbers))
    with pytest.raises(UserError, match=r"--evidence .*: is of another checkpoint"):
        read_evidence(tmp_path, facts)


def test_two_external_cohorts_of_one_name_are_told_apart(card: ModelCard, tmp_path: Path) -> None:
    own, other = measured(card, "test"), measured(card, "external")
    cohorts = {"development": own, "b": other, "c": other}
    (tmp_path / "external.json").write_text(
        json.dumps({"format": own["format"], "cohorts": cohorts})
    )
    found = evidence.read_all([tmp_path], card.model_dump(mode="json"))
    names = [its["about"]["cohort"]["name"] for its in found]
    assert names == [f"second|hospital {name}" for name in cohorts]


def test_lesions_that_are_patients_are_not_in_the_card_twice(card: ModelCard) -> None:
    metrics = measured(card, "test")
    units = metrics["heads"]["malignancy"]["sets"]["all"]
    assert units["lesion"]["rows"] == units["patient"]["rows"] < units["image"]["rows"]
    facts = card.model_dump(mode="json")
    assert " | lesion | " not in model_card("tiny", "1.0", facts, [metrics], Statement())
    units["lesion"]["rows"] += 1
    page = model_card("tiny", "1.0", facts, [metrics], Statement())
    assert page.count(" | malignancy | all | lesion | ") == 1


def test_a_head_without_a_label_elsewhere_is_not_tested_there(card: ModelCard) -> None:
    facts = json.loads(card.model_dump_json())
    found = measured(card, "external", without=["alnm"])
    page = model_card("tiny", "1.0", facts, [found], Statement())
    assert "malignancy: was not evaluated on another cohort" not in page
    assert "- alnm: was not evaluated on another cohort." in page
    (line,) = evidence.tested_on(facts, [found])
    assert where(line) == "second|hospital (another cohort, no label for alnm)"
    found = measured(card, "external", without=["malignancy", "alnm"])
    page = model_card("tiny", "1.0", facts, [found], Statement())
    assert page.count("was not evaluated on another cohort.") == 2
    assert evidence.tested_on(facts, [found]) == []


def test_what_an_evaluation_says_against_itself_is_in_the_card(card: ModelCard) -> None:
    facts = json.loads(card.model_dump_json())
    external, val = measured(card, "external"), measured(card, "val")
    external["about"]["overlap_checked"] = False
    val["about"]["cohort"] = {**facts["training"]["cohort"], "name": "own", "synthetic": False}
    page = model_card("tiny", "1.0", facts, [external, val], Statement())
    unchecked = "second/hospital (another cohort, overlap with training not checked)"
    assert f"| {unchecked} | malignancy |" in page
    limit = "- Evaluation on second|hospital, external part: overlap with training not checked."
    assert limit in page
    assert "| own (validation part, on which it was chosen) | malignancy |" in page
    assert page.count(val["notes"][0]) == 1


def test_evidence_that_is_given_twice_is_there_once(card: ModelCard, tmp_path: Path) -> None:
    facts = json.loads(card.model_dump_json())
    test, other = measured(card, "test"), measured(card, "external")
    for name, content in (
        ("metrics", test),
        ("external", {"format": 2, "cohorts": {"development": test, "b": other}}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.json").write_text(json.dumps(content))
    found = evidence.read_all([tmp_path / "metrics", tmp_path / "external"], facts)
    assert [it["about"]["part"] for it in found] == ["test", "external"]
    test["about"] = {"part": "out-of-fold", "cohort": {"name": "first"}}
    (tmp_path / "metrics" / "metrics.json").write_text(json.dumps(test))
    with pytest.raises(UserError, match="whose figures the card has; leave it out"):
        read_evidence(tmp_path / "metrics", facts)


def test_an_archive_says_what_it_was_tested_on(card: ModelCard) -> None:
    assert evidence.as_text([]) == "no cohort"
    lines = evidence.tested_on(
        {"training": {}}, [measured(card, "all"), measured(card, "external")]
    )
    assert evidence.as_text(lines) == ", ".join(["second|hospital (another cohort)"] * 2)


def test_a_network_on_every_patient_has_the_figures_of_its_folds(card: ModelCard) -> None:
    auc = {"value": 0.875, "low": 0.8, "high": 0.9375}
    figures = {
        "statement": "trained on all 60 patients; figures are of 5 folds",
        "assumes": "The recipe is judged.",
        "roc_auc": {"malignancy": {"on": "all", "image": {"pooled": auc}}},
    }
    facts = card.model_dump(mode="json")
    facts["training"]["figures"] = figures
    facts["training"]["cohort"]["train"] = {"patients": 60, "images": 75}
    page = model_card("tiny", "1.0", facts, [], Statement())
    assert "Trained on all 60 patients; figures are of 5 folds. The recipe is judged." in page
    assert "were chosen on the predictions of the folds" in page
    assert "validation part" not in page
    assert "| malignancy | all | image | 0.875 (0.800 to 0.938) |" in page
    (line,) = evidence.tested_on(facts, [])
    assert (line["patients"], line["images"]) == (60, 75)
    assert where(line) == "phantom (by networks that never saw the patient, synthetic)"


def test_an_evaluation_of_another_checkpoint_is_refused(card: ModelCard, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(measured(card, "test")))
    facts = json.loads(card.model_dump_json())
    facts["heads"][0]["temperature"] = 1.25
    with pytest.raises(UserError, match=r"--evidence .*: is of another checkpoint"):
        read_evidence(tmp_path, facts)
    other = json.loads(card.model_dump_json())
    other["training"]["seed"] = 7
    with pytest.raises(UserError, match=r"--evidence .*: is of another checkpoint"):
        read_evidence(tmp_path, other)
    with pytest.raises(UserError, match=r"metrics\.json: missing, or damaged"):
        read_evidence(tmp_path / "nowhere", facts)


def test_an_archive_has_its_card_and_inspect_shows_it(archive_path: Path) -> None:
    facts = inspect_archive(archive_path, verify=False)
    assert facts["tested_on"] == []
    page = facts["model_card"]
    assert page.startswith("# Model card: tiny 1.0\n")
    done = sonode("inspect", archive_path, "--model-card")
    assert (done.returncode, done.stderr) == (0, "")
    assert BLANK in done.stdout


def test_a_statement_that_cannot_be_is_refused(checkpoint_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.yaml").write_text("intended: reading")
    line = ("pack", checkpoint_folder, "--name", "a", "--version", "1", "--store", tmp_path / "s")
    done = sonode(*line, "--statement", tmp_path / "text.yaml")
    assert done.returncode == 2
    assert "--statement" in done.stderr
    assert "intended_use, limits, data" in " ".join(done.stderr.split())
    assert not (tmp_path / "s").exists()

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sonode.console import UserError
from sonode.files.metrics import FORMAT
from tests.train.evidence.test_report import Page
from tests.train.synthetic_predictions import synthetic
from train.external.checklists import guidelines, items_of, run
from train.external.facts import facts
from train.measures.evaluate import evaluate

MODEL = {"architecture": "resnet18", "preprocessing": {"size": 96, "context": 0.2}}
PART = {"patients": 9, "images": 20}


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    found = evaluate(synthetic(), resamples=20)
    about = found["about"]
    sizes = {"patients": found["patients"], "images": found["rows"]}
    trained_on = {**about["cohort"], "train": PART, "val": PART}
    trained_on["divided_by"] = "data.split_seed 7"
    return {
        **found,
        "about": {
            "part": "test",
            "cohort": {**about["cohort"], **sizes},
            "trained_on": trained_on,
            "model": MODEL,
            "training": {"seed": 3, "versions": {"torch": "2.9"}},
        },
    }


def folder(path: Path, metrics: dict[str, Any]) -> Path:
    path.mkdir()
    (path / "metrics.json").write_text(json.dumps(metrics))
    return path


def test_the_guidelines_are_whole() -> None:
    claim, tripod, stard = guidelines()
    assert [item[0] for item in claim["items"]] == [str(n) for n in range(1, 45)]
    numbers = {int(item[0].rstrip("abcdefg")) for item in tripod["items"]}
    assert numbers == set(range(1, 28)) and len(tripod["items"]) == 52
    numbers = {int(item[0].rstrip("abcd")) for item in stard["items"]}
    assert numbers == set(range(1, 41)) and len({item[0] for item in stard["items"]}) == 48
    assert all(it["source"].count("doi ") for it in (claim, tripod, stard))


def test_every_fact_is_known_where_all_was_recorded(metrics: dict[str, Any]) -> None:
    jitter = [{"head": "alnm", "kind": "moved", "amount": 0.05, "median": 0.012}]
    development = {"heads": metrics["heads"], "about": metrics["about"]}
    external = {
        "format": FORMAT,
        "overlap_checked": True,
        "cohorts": {"development": development, "bra": development},
        "compared": {"malignancy": {"bra": {}}},
        "method": {"recalibration_patients": 50, "interaction_tests": 9},
    }
    known = facts(
        {**metrics, "roi_jitter": jitter, "uncertainty": {"heads": {"alnm": {"uncertain": {}}}}},
        external,
    )
    wanted = {
        fact for it in guidelines() for item in it["items"] for fact in (item[3] or "").split()
    }
    assert wanted <= set(known)
    assert known["disjoint"].startswith("Patients.")
    assert (
        "val 9 patients, 20 images" in known["partitions"] and "split_seed 7" in known["partitions"]
    )
    older = {it: its for it, its in metrics["about"]["trained_on"].items() if it != "divided_by"}
    about = {**metrics["about"], "trained_on": older}
    assert facts({**metrics, "about": about}, None)["partitions"].endswith("20 images.")
    assert "9 permutation tests, adjusted by Holm" in known["heterogeneity"]
    assert "alnm moved 5 %: 0.012" in known["robustness"]
    assert known["selection"].startswith("The epoch with the smallest validation loss")
    last = {**metrics["about"], "training": {**metrics["about"]["training"], "keep": "last"}}
    assert facts({**metrics, "about": last}, None)["selection"].startswith("The last epoch;")
    auc = metrics["heads"]["malignancy"]["sets"]["all"]["patient"]["roc_auc"]
    assert f"malignancy in bra: ROC AUC per patient {auc['value']:.3f}" in known["external"]


def test_a_part_without_patients_is_not_named(metrics: dict[str, Any]) -> None:
    about, none = metrics["about"], {"patients": 0, "images": 0}
    training = {**about["training"], "keep": "last"}

    def known(training: dict[str, Any], **parts: object) -> dict[str, str]:
        trained_on = {**about["trained_on"], **parts}
        return facts(
            {**metrics, "about": {**about, "training": training, "trained_on": trained_on}}, None
        )

    fold = known(training, test=none, fold=2)["partitions"]
    assert "test" not in fold and fold.endswith(" (fold 2 is val).")
    refitted = known({**training, "figures": {"folds": 5}}, val=none, test=none, fold="all")
    assert "No patient was held out" in refitted["partitions"]
    assert "val" not in refitted["partitions"] and "by networks" in refitted["selection"]


def test_a_set_without_patient_ids_claims_no_patients(metrics: dict[str, Any]) -> None:
    about = metrics["about"]
    none = {it: {**about[it], "patient_ids": False} for it in ("cohort", "trained_on")}
    known = facts({**metrics, "about": {**about, **none}}, None)
    assert "no patient ids" in known["cohort"]
    assert known["disjoint"].startswith("Images. The set has no patient ids")


def test_without_label_sets_nothing_is_said_of_uncertain_results(metrics: dict[str, Any]) -> None:
    assert "undecided" not in facts(
        {**metrics, "uncertainty": {"heads": {"alnm": {"why": "few"}}}}, None
    )


def test_what_is_not_known_is_blank(metrics: dict[str, Any], tmp_path: Path) -> None:
    known = facts(metrics, None)
    claim = {item.number: item for item in items_of(guidelines()[0], known)}
    assert claim["8"].filled == claim["33"].filled == claim["30"].filled == ""
    assert claim["19"].filled
    stard = {item.number: item for item in items_of(guidelines()[2], known)}
    assert stard["15b"].filled == f"{known['partitions']} {known['training']}"
    assert stard["13"].filled.endswith(known["software"]) and "torch 2.9" in stard["13"].filled
    assert stard["29"].filled == "" and stard["31"].filled == known["rates"]
    run(folder(tmp_path / "e", metrics), tmp_path / "out", None)
    table = pd.read_csv(tmp_path / "out" / "claim-2024.csv", dtype=str)
    assert len(table) == 44
    assert table["filled"].isna().sum() == sum(not item.filled for item in claim.values())
    page = Page((tmp_path / "out" / "checklists.html").read_text())
    assert "synthetic <b>numbers</b>" in page.text and not page.all("b")
    with pytest.raises(UserError, match="is not empty; give a new folder"):
        run(tmp_path / "e", tmp_path / "out", None)


def test_what_it_cannot_be_made_from(metrics: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.json: missing, or damaged"):
        run(tmp_path, tmp_path / "out", None)
    forest = {**metrics, "about": {**metrics["about"], "model": "radiomics"}}
    with pytest.raises(UserError, match="is not of a network"):
        run(folder(tmp_path / "f", forest), tmp_path / "out", None)
    with pytest.raises(UserError, match="is not of a network"):
        run(folder(tmp_path / "h", {**metrics, "about": {}}), tmp_path / "out", None)
    own = folder(tmp_path / "e", metrics)
    about = {**metrics["about"], "training": {"seed": 4}}
    for cohorts in ({"development": {"about": about}}, {}):
        (own / "external.json").write_text(json.dumps({"format": FORMAT, "cohorts": cohorts}))
        with pytest.raises(UserError, match=r"--external .*: is of another network than"):
            run(own, tmp_path / "out", own)
    assert not (tmp_path / "out").exists()

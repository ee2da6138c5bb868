import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml

from model_def.checkpoint import load, read_card, save
from sonode.console import UserError
from tests.command_line import run_here
from tests.conftest import TRUNK
from train.cohorts.cohort import Cohort
from train.cohorts.split import part_of
from train.commands import training
from train.data.datamodule import CohortData
from train.experiments import ablation
from train.experiments.ablation_table import MEASURES, REFERENCE, paired_p, show, summarise
from train.experiments.margin import search_margin
from train.running.command import run

SETTINGS = {
    "trainer": {"max_epochs": 1, "precision": "32-true"},
    "model": {"architecture": TRUNK, "preprocessing": {"size": 32}, "learning_rate": 1e-3},
    "data": {"batch_size": 8, "split_seed": 4},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    return path


# A file that says itself what tells variants apart, each setting otherwise than most variants do.
HOSTILE = {
    **SETTINGS,
    "model": {
        **SETTINGS["model"],
        "hierarchy": "chain",
        "loss": {"hierarchy_weight": 0.3},
        "heads": [{"name": "other", "target": "malignant", "labels": ["no", "yes"]}],
    },
    "data": {**SETTINGS["data"], "malignant_only": False},
}


def test_variants_differ_whatever_the_file_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for place, settings in enumerate((SETTINGS, HOSTILE)):
        path = tmp_path / f"{place}.yaml"
        path.write_text(yaml.safe_dump(settings))
        for variant, flags in ablation.VARIANTS.items():
            with pytest.raises(SystemExit):
                line = f"fit --config {path} --out o --data.cohort c --print_config".split()
                run([*line, *flags])
            read = yaml.safe_load(capsys.readouterr().out)
            heads = [head["name"] for head in read["model"]["heads"]]
            weight = read["model"]["loss"]["hierarchy_weight"]
            only = read["data"]["malignant_only"]
            found[place, variant] = (heads, read["model"]["hierarchy"], weight, only)
    both = ["malignancy", "alnm"]
    for place in (0, 1):
        assert [found[place, variant] for variant in ablation.VARIANTS] == [
            (["malignancy"], "independent", 0, False),
            (["alnm"], "independent", 0, True),
            (both, "independent", 0, False),
            (both, "independent", 0.05, False),
            (both, "chain", 0, False),
            (both, "max_constraint", 0, False),
        ]


def lesions(**alnm: bool | None) -> pd.DataFrame:
    """Of two malignant and one benign lesion in each part of the split: a patient each."""
    rows = []
    for part in ("train", "val", "test"):
        ids = [it for it in map(str, range(60)) if part_of(it, 4) == part][:3]
        for place, patient in enumerate(ids):
            rows.append((patient, place < 2, alnm.get(part) if place == 0 else False))
    table = pd.DataFrame(rows, columns=["patient_id", "malignant", "alnm"])
    return table.astype({"malignant": "boolean", "alnm": "boolean"})


@pytest.mark.parametrize(
    ("table", "lacks", "divided_by"),
    [
        (
            lesions().assign(alnm=pd.Series(pd.NA, range(9), "boolean")),
            ["'no ALNM'", "'ALNM'"],
            "data.split_seed 4",
        ),
        (lesions(val=True, test=True), ["'ALNM'"], "data.split_seed 4"),
        (
            lesions(val=True, test=True).assign(split=["train"] * 3 + ["val"] * 3 + ["test"] * 3),
            ["'ALNM'"],
            "column `split`",
        ),
    ],
    ids=["no label of ALNM", "none in training", "own split"],
)
def test_a_cohort_that_some_variant_cannot_learn_from_is_refused_before_any_training(
    tmp_path: Path,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    table: pd.DataFrame,
    lacks: list[str],
    divided_by: str,
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("trained")

    cohort = Cohort(name="c", synthetic=True, folder=tmp_path, table=table)
    monkeypatch.setattr(CohortData, "cohort", cohort)
    monkeypatch.setattr(ablation, "_train", refuse)
    with pytest.raises(UserError, match="some variant cannot be trained on it") as caught:
        ablation.ablate(tmp_path, tmp_path / "out", seeds=2, config=config)
    assert f"({divided_by})" in str(caught.value)
    assert caught.value.details == [
        f"the train part of the split has no {it} of alnm where malignancy holds" for it in lacks
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_runs_are_made_once_and_counted(
    phantom: Cohort, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(
        yaml.safe_dump({**HOSTILE, "model": {**HOSTILE["model"], "hierarchy": "max_constraint"}})
    )
    chosen = {name: ablation.VARIANTS[name] for name in ("single alnm", "chain")}
    monkeypatch.setattr(ablation, "VARIANTS", chosen)
    monkeypatch.setattr("train.experiments.ablation_table.REFERENCE", "chain")
    monkeypatch.setattr(ablation, "run_sonode", run_here)
    out = tmp_path / "out"
    summary = ablation.ablate(phantom.folder, out, seeds=2, config=config)
    assert summary["variant"].tolist() == list(chosen)
    assert summary["seeds"].tolist() == [2, 2]
    single, chain = summary.to_dict("records")
    assert pd.isna(single["malignancy_auc_mean"])
    assert pd.isna(single["type_1_mean"])
    assert chain["type_1_mean"] == chain["type_2_mean"] == 0
    runs = json.loads((out / "runs.json").read_text())["runs"]
    assert len(runs) == 4
    alone, chained = (
        read_card(out / "runs" / f"{it}-0" / "checkpoint") for it in ("single_alnm", "chain")
    )
    assert ([head.name for head in alone.heads], alone.hierarchy) == (["alnm"], "independent")
    assert ([head.name for head in chained.heads], chained.hierarchy) == (
        ["malignancy", "alnm"],
        "chain",
    )
    assert (
        alone.training["cohort"]["malignant_only"]
        and not chained.training["cohort"]["malignant_only"]
    )

    # Two patients do not carry a temperature, and the card says so.
    for card in (alone, chained):
        for head in card.heads:
            told = card.training["temperatures"][head.name]
            assert (head.temperature, told["temperature"]) == (1, 1)
            assert f"{told['patients']} labelled patients" in told["why"]

    def refuse(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(ablation, "_train", refuse)
    again = ablation.ablate(phantom.folder, out, seeds=2, config=config)
    pd.testing.assert_frame_equal(again, summary)

    config.write_text(yaml.safe_dump({**SETTINGS, "data": {"batch_size": 4, "split_seed": 4}}))
    with pytest.raises(UserError, match="holds runs of another cohort, configuration or"):
        ablation.ablate(phantom.folder, out, seeds=2, config=config)


def test_the_margin_is_searched_on_validation(
    phantom: Cohort,
    tmp_path: Path,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained: list[str] = []
    aucs = {"margin_0.3-0": 0.8, "margin_0.1-0": 0.9, "margin_0.2-0": 0.9}

    def train(_: Path, folder: Path, __: Path, flags: Any, ___: int) -> None:
        folder.mkdir(parents=True)
        trained.append(flags[-1])

    def measure(checkpoint: Path, _: Path, part: str) -> dict[str, float | None]:
        assert part == "val"
        return {**dict.fromkeys(MEASURES, 0.0), "alnm_auc": aucs[checkpoint.parent.name]}

    monkeypatch.setattr(ablation, "_train", train)
    monkeypatch.setattr(ablation, "measure", measure)
    found = search_margin(phantom.folder, tmp_path / "out", [0.3, 0.2, 0.1], seeds=1, config=config)
    assert trained == [f"--model.loss.margin={it}" for it in (0.3, 0.2, 0.1)]
    assert found["margin"].tolist() == [0.1, 0.2, 0.3]
    with pytest.raises(UserError, match=r"OUT .*: is a file; give a new folder"):
        training.margin(phantom.folder, config, [0.1], [0.05], seeds=1, config=config)
    training.margin(phantom.folder, tmp_path / "out", [0.1], [0.05], seeds=1, config=config)
    assert "mean over 1 seed, best first" in capsys.readouterr().out
    assert (tmp_path / "out" / "margins.csv").is_file()


def test_a_run_that_fails_is_named(
    phantom: Cohort, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "run_sonode", run_here)
    config.write_text(yaml.safe_dump({**SETTINGS, "trainer": {"max_epochs": 0}}))
    with pytest.raises(UserError, match=r"run single_malignancy-0 failed \(exit 2\): .*no epoch"):
        ablation.ablate(phantom.folder, tmp_path / "out", seeds=2, config=config)


def test_mean_sd_and_p_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "VARIANTS", {"chain": [], REFERENCE: []})
    rows = []
    for variant, aucs in (("chain", (0.8, 0.9, 1.0)), (REFERENCE, (0.7, 0.8, 0.8))):
        for seed, auc in enumerate(aucs):
            nothing = dict.fromkeys(MEASURES)
            rows.append({"variant": variant, "seed": seed, **nothing, "malignancy_auc": auc})
    chain, reference = summarise(pd.DataFrame(rows), list(ablation.VARIANTS))
    assert chain["malignancy_auc_mean"] == pytest.approx(0.9)
    assert chain["malignancy_auc_sd"] == pytest.approx(0.1)
    # Differences 0.1, 0.1, 0.2: mean 0.4 / 3, SD 0.057735, t = 4, two degrees of freedom.
    assert chain["malignancy_auc_p"] == pytest.approx(0.057191, abs=1e-6)
    assert reference["malignancy_auc_p"] is None
    assert pd.isna(chain["alnm_auc_mean"])


def test_differences_that_are_alike_have_no_p_value() -> None:
    # 0.8 - 0.7 and 0.9 - 0.8 differ in their last digits; a t-test of them has p = 1e-16.
    values, reference = pd.Series([0.8, 0.9, 0.6]), pd.Series([0.7, 0.8, 0.5])
    assert (values - reference).std() > 0
    assert paired_p(values, reference) is None
    assert paired_p(values + pd.Series([0, 0, 0.001]), reference) is not None


def test_shares_of_inconsistency_are_of_rows_whose_malignancy_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = pd.DataFrame(
        {
            "malignant": pd.array([False, True, None, True], "boolean"),
            "alnm": pd.array([False, True, None, False], "boolean"),
            "malignancy_probability": [0.2, 0.3, 0.1, 0.9],
            "alnm_probability": [0.7, 0.8, 0.9, 0.1],
        }
    )
    monkeypatch.setattr(ablation, "predict", lambda *_: SimpleNamespace(frame=frame))
    found = ablation.measure(Path("c"), Path("o"), "test")
    # One of either error among the three that can be judged; the third row could be neither.
    assert (found["type_1"], found["type_2"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    frame["malignant"] = pd.array([None] * 4, "boolean")
    assert ablation.measure(Path("c"), Path("o"), "test")["type_1"] is None


def test_the_table_shows_a_p_beside_every_measure(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"variant": "chain", "seeds": 2}
    for place, name in enumerate(MEASURES, start=1):
        row |= {f"{name}_mean": place / 10, f"{name}_sd": place / 100, f"{name}_p": place / 1000}
    show(pd.DataFrame([{**row, "type_2_mean": math.nan, "type_2_p": math.nan}]))
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-2].split("│")[1:-1]]
    assert cells == [
        *("chain", "0.100 ± 0.010", "0.001", "0.200 ± 0.020", "0.002"),
        *("30.0 ± 3.0 %", "0.003", "–", "–"),
    ]


def test_other_things_in_out_are_left_alone(phantom: Cohort, tmp_path: Path, config: Path) -> None:
    with pytest.raises(UserError, match="OUT "):
        ablation.ablate(phantom.folder, tmp_path, seeds=2, config=config)


def test_runs_that_began_with_other_weights_do_not_meet(
    phantom: Cohort,
    tmp_path: Path,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    checkpoint_folder: Path,
) -> None:
    """The file at the path of `model.weights` was replaced between two runs."""
    network, card = load(checkpoint_folder)
    files = iter(("sha256 a", "sha256 b"))

    def train(_: Path, folder: Path, *__: object) -> None:
        training = {**card.training, "weights": next(files)}
        save(folder / "checkpoint", network, card.model_copy(update={"training": training}))

    monkeypatch.setattr(ablation, "_train", train)
    runs = ablation.trained(
        phantom, tmp_path / "out", {"one": []}, seeds=2, config=config, part="test"
    )
    assert next(runs)[:2] == ("one", 0)
    with pytest.raises(UserError, match="run one-1: began with other weights"):
        next(runs)


def test_the_plan_is_written_whole_and_once(
    phantom: Cohort, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "VARIANTS", {})
    monkeypatch.setattr(ablation, "summarise", lambda *_: [])
    out = tmp_path / "out"
    out.mkdir()
    (out / ".plan.json-1.part").write_text('{"cohort": "')  # of a run killed as it began
    ablation.ablate(phantom.folder, out, seeds=2, config=config)
    plan = out / "plan.json"
    assert json.loads(plan.read_text())["cohort"] == phantom.sha256
    plan.chmod(0o400)
    written = plan.stat()
    ablation.ablate(phantom.folder, out, seeds=2, config=config)
    assert (plan.stat().st_ino, plan.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    plan.chmod(0o600)
    monkeypatch.setattr(ablation, "VARIANTS", {"one": ["--a=1"]})
    monkeypatch.setattr(ablation, "_train", lambda *_: None)
    monkeypatch.setattr(ablation, "measure", lambda *_: dict.fromkeys(MEASURES))
    (out / "runs").mkdir()
    for name in ("one", "two"):
        ablation.VARIANTS[name] = ["--a=1"]
        for seed in range(2):
            (out / "runs" / f"{name}-{seed}").mkdir(exist_ok=True)
        ablation.ablate(phantom.folder, out, seeds=2, config=config)
    assert json.loads(plan.read_text())["variants"] == {"one": ["--a=1"], "two": ["--a=1"]}
    monkeypatch.setattr(ablation, "VARIANTS", {"one": ["--a=2"]})
    with pytest.raises(UserError, match=r"configuration or variants; give a new folder"):
        ablation.ablate(phantom.folder, out, seeds=2, config=config)
    for torn in ('{"cohort": "', "", "[]"):
        plan.write_text(torn)
        with pytest.raises(UserError, match=r"its plan\.json is damaged; give a new folder"):
            ablation.ablate(phantom.folder, out, seeds=2, config=config)

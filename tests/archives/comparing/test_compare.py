"""`sonode compare`: two real archives whose difference is known, and what is refused."""

import json
import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from archives.comparing import commands, compare
from archives.comparing.process import process_of
from archives.comparing.speed import summary
from archives.packing.loader import Description
from archives.packing.pack import pack
from batch.storage import objects
from model_def import checkpoint
from model_def.heads import HeadSpec
from model_def.network import Network
from sonode.console import UserError
from sonode.demo.local_s3 import LocalS3
from tests.command_line import ROOT, sonode
from tests.processes import assert_no_process_about
from train.cohorts.cohort import Cohort

pytestmark = pytest.mark.timeout(600)  # two archives are loaded, by a process each, several times
SHIFT = 1.1  # about half of the lesions are benign then
HEADS = {"malignancy": ("benign", "malignant"), "alnm": ("no ALNM", "ALNM")}


@pytest.fixture(scope="module", autouse=True)
def torch_imported_once() -> Iterator[None]:
    """Archives' processes are forked from one that has torch; an interrupted command's are not."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchvision", "batch.run"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda method: context)
        yield


@pytest.fixture(scope="module")
def shifted(
    checkpoint_folder: Path, card: checkpoint.ModelCard, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same network with malignancy's logit lowered by SHIFT, and one head more."""
    network, _ = checkpoint.load(checkpoint_folder)
    wider = Network(card.architecture, 3)
    state = network.state_dict()
    with torch.no_grad():
        for name in ("heads.weight", "heads.bias"):
            state[name] = torch.cat([state[name], state[name][:1]])
        state["heads.bias"][0] -= SHIFT
    wider.load_state_dict(state)
    more = HeadSpec(name="nodes", target="n_nodes>=2", labels=("<2", ">=2"), parent="alnm")
    folder = tmp_path_factory.mktemp("shifted")
    changed = card.model_copy(update={"heads": (*card.heads, more)})
    checkpoint.save(folder / "checkpoint", wider, changed)
    return pack(folder / "checkpoint", "tiny", "1.1", folder)


@pytest.fixture(scope="module")
def manifest(phantom: Cohort) -> pd.DataFrame:
    """The phantom with its labels, and one file that is no image."""
    columns = ["patient_id", "roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max"]
    columns += ["malignant", "alnm"]
    rows = phantom.table[columns].assign(image_uri=phantom.table["image"])
    broken = {"patient_id": "x", "image_uri": "broken.png", "malignant": True}
    return pd.concat([rows, pd.DataFrame([broken])], ignore_index=True)


@pytest.fixture(scope="module")
def compared(
    archive_path: Path,
    shifted: Path,
    manifest: pd.DataFrame,
    phantom: Cohort,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[subprocess.CompletedProcess[str], Path]]:
    """The command on a manifest in S3, with a policy of which one limit is broken."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "policy.yaml").write_text("auc_margin: 0.02\nmax_flip_rate: 0.02\n")
    with (
        LocalS3(folder / "s3", access_key="k", secret_key="s", bucket="studies") as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in server.environment.items():
            patch.setenv(name, value)
        for uri in manifest["image_uri"].unique():
            path = phantom.folder / uri
            objects.write(f"s3://studies/{uri}", path.read_bytes() if path.exists() else b"none")
        manifest.to_parquet(folder / "m.parquet")
        objects.write("s3://studies/m.parquet", (folder / "m.parquet").read_bytes())
        done = sonode(
            *("compare", archive_path, shifted, "s3://studies/m.parquet", folder / "out"),
            *("--policy", folder / "policy.yaml", "--carry", "image_uri", "--pictures", "3"),
            *("--timed", "8", "--bootstrap", "200"),
        )
    yield done, folder / "out"


@pytest.fixture(scope="module")
def found(compared: tuple[subprocess.CompletedProcess[str], Path]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((compared[1] / "compare.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def scores(compared: tuple[subprocess.CompletedProcess[str], Path]) -> pd.DataFrame:
    return pd.read_parquet(compared[1] / "scores.parquet")


live = pytest.mark.live


@live
def test_findings_are_exit_code_1_and_reported(
    compared: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, out = compared
    assert done.returncode == 1, done.stderr
    assert "Verdict: fail" in done.stdout
    assert {path.name for path in out.iterdir()} == {
        *("compare.json", "report.html", "scores.parquet", "heatmaps")
    }
    assert_no_process_about(out.parent)


@live
def test_scores_of_both_stand_beside_one_another(
    scores: pd.DataFrame, manifest: pd.DataFrame
) -> None:
    assert scores["image_uri"].tolist() == manifest["image_uri"].tolist()
    assert "patient_id" not in scores and "malignant" not in scores
    good = scores[scores["a_status"] == "ok"]
    logit = {
        side: np.log(good[f"{side}_malignancy_probability"])
        - np.log1p(-good[f"{side}_malignancy_probability"])
        for side in ("a", "b")
    }
    assert (logit["b"] - logit["a"]).to_numpy() == pytest.approx(-SHIFT, abs=0.01)
    assert good["a_alnm_probability"].to_numpy() == pytest.approx(good["b_alnm_probability"])


@live
def test_measures_are_those_of_the_scores(found: dict[str, Any], scores: pd.DataFrame) -> None:
    good = scores[scores["a_status"] == "ok"]
    flipped = (good["a_malignancy_label"] != good["b_malignancy_label"]).sum()
    assert 0 < flipped < len(good)
    head = found["heads"]["malignancy"]
    assert head["flips"]["count"] == flipped
    assert head["flips"]["from_to"] == {"malignant to benign": flipped}
    kappa = cohen_kappa_score(good["a_malignancy_label"], good["b_malignancy_label"])
    assert head["kappa"]["value"] == pytest.approx(kappa)
    moved = good["b_malignancy_probability"] - good["a_malignancy_probability"]
    assert head["shift"]["malignancy"]["mean"]["value"] == pytest.approx(moved.mean())
    assert found["heads"]["alnm"]["flips"]["count"] == 0
    assert found["drift"]["malignancy"]["ks"] > 0.2 > found["drift"]["alnm"]["psi"] == 0
    assert found["inconsistency"]["a"] == 0
    incoherent = (good["b_alnm_label"] == "ALNM") & (good["b_malignancy_label"] == "benign")
    assert found["inconsistency"]["b"] == incoherent.sum() > 0


@live
def test_labels_are_found_in_the_manifest(
    found: dict[str, Any], manifest: pd.DataFrame, scores: pd.DataFrame
) -> None:
    malignant = manifest["malignant"][:-1].astype(bool)
    (auc,) = found["heads"]["malignancy"]["auc"]
    assert (auc["n_images"], auc["n_positive"]) == (len(manifest) - 1, malignant.sum())
    assert auc["difference"] == pytest.approx(0, abs=0.01)  # the same order
    sensitivity = found["heads"]["malignancy"]["right"]["sensitivity"]
    lost = malignant & (scores["b_malignancy_label"][:-1] == "benign")
    assert (sensitivity["lost"], sensitivity["gained"]) == (lost.sum(), 0)
    assert sensitivity["mcnemar_p"] == pytest.approx(min(1, 2 * 0.5 ** lost.sum()))
    assert [auc["on"] for auc in found["heads"]["alnm"]["auc"]] == [
        "all",
        "malignancy positive",
    ]


@live
def test_rows_are_named_as_asked_and_no_more(
    found: dict[str, Any], manifest: pd.DataFrame, compared: tuple[object, Path]
) -> None:
    rows = found["rows"]
    assert (rows["manifest"], rows["compared"]) == (len(manifest), len(manifest) - 1)
    assert rows["failed"] == {"both": 1, "a_only": [], "b_only": []}
    assert found["left_out"] == {"nodes": "only in B"}
    for flip in found["flips"]:
        assert flip["carried"] == {"image_uri": manifest["image_uri"][flip["row"]]}
        assert (flip["a"]["label"], flip["b"]["label"]) == ("malignant", "benign")
        assert (flip["truth"] == "malignant") == manifest["malignant"][flip["row"]]
    moved = [flip["a"]["probability"] - flip["b"]["probability"] for flip in found["flips"]]
    assert moved == sorted(moved, reverse=True)
    pages = [(compared[1] / name).read_text() for name in ("report.html", "compare.json")]
    for patient in manifest["patient_id"].unique():
        assert not any(f'"{patient}"' in page or f">{patient}<" in page for page in pages)


@live
def test_flips_have_both_heat_maps(found: dict[str, Any], compared: tuple[object, Path]) -> None:
    out = compared[1]
    named = [flip[side]["heatmap"] for flip in found["flips"][:3] for side in ("a", "b")]
    assert {f"heatmaps/{path.name}" for path in (out / "heatmaps").iterdir()} == set(named)
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in named)
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 6
    assert 'src="http' not in page and "<script" not in page
    assert page.count("data:image/svg+xml") == 2 * 3 + 1


@live
def test_speed_and_verdict(found: dict[str, Any]) -> None:
    speed = found["speed"]
    assert speed["images"] == len(speed["a"]["latency_ms"]) == len(speed["b"]["latency_ms"]) == 8
    assert speed["p95_ratio"]["value"] == pytest.approx(speed["b"]["p95_ms"] / speed["a"]["p95_ms"])
    assert {(rule["on"], rule["outcome"]) for rule in found["verdict"]["rules"]} == {
        ("malignancy", "pass"),
        ("malignancy", "fail"),
        ("alnm", "pass"),
        ("alnm, malignancy positive images", "pass"),
    }
    assert found["verdict"]["policy"] == {"auc_margin": 0.02, "max_flip_rate": 0.02}


def test_an_archive_against_itself_on_unlabelled_rows(
    archive_path: Path, manifest: pd.DataFrame, phantom: Cohort, tmp_path: Path
) -> None:
    rows = manifest[["image_uri"]].drop_duplicates()[:3]
    path = phantom.folder / "unlabelled.parquet"
    rows.to_parquet(path)
    policy = tmp_path / "policy.yaml"
    policy.write_text("max_flip_rate: 0.0\nmax_inconsistency_increase: 0.0\n")
    done = sonode(
        *("compare", archive_path, archive_path, path, tmp_path / "out", "--policy", policy),
        *("--json", "--timed", "0", "--bootstrap", "100"),
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["verdict"]["outcome"] == "pass"
    assert found["speed"] is None and "flips" not in found
    assert found["method"]["patients"] is False
    assert found["heads"]["malignancy"]["auc"][0]["difference"] is None
    assert not (tmp_path / "out" / "heatmaps").exists()


def test_interrupted_it_leaves_nothing(
    archive_path: Path, manifest: pd.DataFrame, phantom: Cohort, tmp_path: Path
) -> None:
    path = phantom.folder / "interrupted.parquet"
    manifest.to_parquet(path)
    command = [sys.executable, "-m", "sonode", "compare", archive_path, archive_path, path, "out"]
    with subprocess.Popen(
        map(str, command), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while not (said := process.stderr.readline()).startswith("A: tiny 1.0"):
            assert said, "it ended"
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert_no_process_about(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mar", "b.mar", "none.parquet", "out"], "manifest none.parquet: neither a Parquet"),
        (["a.mar", "b.mar", "empty.parquet", "out"], "manifest empty.parquet: has no row"),
        (["a.mar", "b.mar", "m.parquet", "s3://b/out"], "give a local folder"),
        (["a.mar", "b.mar", "m.parquet", "."], "OUT .: is not empty; give a new folder"),
        (
            ["a.mar", "b.mar", "m.parquet", "out", "--carry", "study"],
            "--carry study: ",
        ),
        (["a.mar", "b.mar", "m.parquet", "out"], "A: ARCHIVE a.mar: no such file; pack one"),
        (
            ["a.mar", "b.mar", "m.parquet", "out", "--policy", "m.parquet"],
            "--policy m.parquet: is not valid YAML",
        ),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    rows = pd.DataFrame({"image_uri": ["x.png"]})
    rows.to_parquet(tmp_path / "m.parquet")
    rows[:0].to_parquet(tmp_path / "empty.parquet")
    done = sonode("compare", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and message in line
    assert {path.name for path in tmp_path.iterdir()} == {"m.parquet", "empty.parquet"}


def about(heads: dict[str, tuple[str, ...]], *methods: str) -> Description:
    return Description(
        name="n",
        version="1",
        sha256="0",
        engine="eager",
        heads=heads,
        targets=dict.fromkeys(heads, "t"),
        parents=dict.fromkeys(heads),
        given=dict.fromkeys(heads),
        methods=methods or ("gradcam",),
        promises={},
        score_reference={},
    )


def test_heads_that_differ_are_named() -> None:
    a = about({**HEADS, "old": ("no", "yes"), "grade": ("1", "2", "3")})
    b = about({**HEADS, "grade": ("1", "2")})
    heads, left_out = compare.common_heads(a, b)
    assert heads == HEADS
    assert left_out == {"old": "only in A", "grade": "other labels in B"}
    with pytest.raises(UserError, match=r"no head in common \(grade only in A, old only in B\)"):
        compare.common_heads(about({"grade": ("1", "2")}), about({"old": ("no", "yes")}))


def test_lesions_that_a_head_is_measured_on_are_known_by_parents_not_by_names() -> None:
    tumour = {"tumour": ("benign", "malignant"), "axilla": ("free", "positive")}
    a = replace(
        about(tumour),
        targets={"tumour": "cancer", "axilla": "alnm"},
        parents={"tumour": None, "axilla": "tumour"},
    )
    b = replace(
        about({"axilla": tumour["axilla"]}),
        targets={"axilla": "alnm"},
        given={"axilla": "malignant"},
    )
    both = {"a": a, "b": b}
    primary = commands._primary(both)
    assert primary == {"axilla": ("tumour positive", "tumour_truth")}
    # B alone has no such head: it learned from malignant lesions, as the manifest may call them.
    assert commands._primary({"b": b}) == {"axilla": ("malignant positive", "malignant")}
    facts = pd.DataFrame(
        {"cancer": [1, 0, 0, None], "alnm": [True, None, False, None]}, dtype="Float64"
    ).astype({"alnm": "boolean"})
    heads, _ = compare.common_heads(a, b)
    truth = commands._truth(facts, heads, both, primary)
    assert truth["tumour_truth"].tolist() == [True, False, False, pd.NA]
    assert truth["axilla_truth"].tolist() == [True, False, False, pd.NA]  # benign has none


def test_a_method_or_head_that_one_lacks() -> None:
    more = {**HEADS, "nodes": ("<2", ">=2")}
    sides = {"a": about(HEADS), "b": about(more, "gradcam", "occlusion")}
    compare.check_explain("gradcam", sides)
    compare.check_explain("gradcam:alnm, malignancy", sides)
    with pytest.raises(UserError, match=r"A: --explain occlusion: .* give gradcam"):
        compare.check_explain("occlusion", sides)
    with pytest.raises(UserError, match=r"A: .*gradcam:nodes: .* give malignancy, alnm"):
        compare.check_explain("gradcam:nodes", sides)


def test_truth_by_the_heads_name_or_by_what_both_were_trained_on() -> None:
    facts = pd.DataFrame({"t": [True], "alnm": [False]})
    same = {"a": about(HEADS), "b": about(HEADS)}
    found = commands._truth(facts, HEADS, same, {})
    assert found["patient_id"].tolist() == ["0"]
    assert found["malignancy_truth"].tolist() == [True]
    assert found["alnm_truth"].tolist() == [False]
    other = {**same, "b": replace(same["b"], targets=dict.fromkeys(HEADS, "u"))}
    found = commands._truth(facts, HEADS, other, {})
    assert found["malignancy_truth"].isna().all()
    assert found["alnm_truth"].tolist() == [False]


def test_rows_without_a_patient_are_each_their_own() -> None:
    facts = pd.DataFrame({"patient_id": pd.array(["p", None, "p", " ", ""], "string")})
    found = commands._truth(facts, {}, {}, {})
    assert found["patient_id"].tolist() == ["p", "row 1", "p", "row 3", "row 4"]
    lesions = facts.assign(lesion_id=["l", "m", "l", "n", ""])
    assert "lesion_id" not in commands._truth(lesions, {}, {}, {})
    assert "lesion_id" in commands._truth(lesions.assign(lesion_id="l"), {}, {}, {})


def test_a_process_that_is_killed_is_reported_in_a_line(tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    with (
        pytest.raises(UserError, match="B: its process was killed"),
        process_of("B", "b.mar") as side,
    ):
        (child,) = set(multiprocessing.active_children()) - before
        child.kill()
        side.open({}, tmp_path)
    assert set(multiprocessing.active_children()) == before


def test_an_archives_process_ends_with_the_one_that_asks(tmp_path: Path) -> None:
    """Also where that is killed: it has no time to say so."""
    code = """
import multiprocessing, time
from archives.comparing.process import process_of
with process_of("A", "a.mar"):
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as asking:
        assert asking.stdout is not None
        child = psutil.Process(int(asking.stdout.readline()))
        asking.kill()
    child.wait(60)


def test_rows_that_one_alone_fails() -> None:
    def results(*codes: str | None) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "status": ["failed" if code else "ok" for code in codes],
                "code": codes,
                "stage": ["fetch" if code else None for code in codes],
            }
        )

    pair = compare.Pair(results(None, "x", "y", None), results(None, "x", None, "z"))
    assert compare.failures(pair) == {
        "both": 1,
        "a_only": [{"row": 2, "code": "y", "stage": "fetch"}],
        "b_only": [{"row": 3, "code": "z", "stage": "fetch"}],
    }
    assert [frame.index.tolist() for frame in pair.scored] == [[0], [0]]


def test_flips_of_a_categorical_head_by_the_new_label() -> None:
    def results(label: str, p: float) -> pd.DataFrame:
        rows = {"status": ["ok"], "subtype_label": [label], "subtype_truth": ["C"]}
        return pd.DataFrame({**rows, **{f"subtype_probability_{it}": [p] for it in "ABC"}})

    pair = compare.Pair(results("A", 0.25), results("B", 0.5))
    named = pa.table({"site": ["s"], "n": [1]})
    (flip,) = compare.flips(pair, {"subtype": ("A", "B", "C")}, compare.columns(named, ["site"]))
    assert flip == {
        "row": 0,
        "carried": {"site": "s", "n": 1},
        "head": "subtype",
        "truth": "C",
        "a": {"label": "A", "probability": 0.25},
        "b": {"label": "B", "probability": 0.5},
    }


def test_speed_by_hand() -> None:
    each = {"a": [[0.1, 0.2], [0.3, 0.4]], "b": [[0.2, 0.4], [0.6, 0.8]]}
    together = {"a": [[1.0], [1.0]], "b": [[0.5], [0.5]]}
    found = summary(each, together, 4, 0)
    assert found["a"]["p50_ms"] == pytest.approx(250)
    assert found["b"]["p95_ms"] == pytest.approx(770)  # 0.6 + 0.85 of the way to 0.8
    assert found["a"]["images_per_second"] == pytest.approx(2)
    assert found["p95_ratio"] == {"value": pytest.approx(2), "low": None, "high": None}
    assert found["throughput_ratio"] == pytest.approx({"value": 2, "low": 2, "high": 2})
    enough = {name: turns * 8 for name, turns in each.items()}
    many = summary(enough, together, 64, 0)
    assert many["p95_ratio"] == pytest.approx({"value": 2, "low": 2, "high": 2})
    # Two blocks: 1/2 - 1 and 3/2 - 1 deviate by 1/2 each, and t of one degree is 12.706.
    uneven = summary(each, {"a": [[1.0], [3.0]], "b": [[1.0], [1.0]]}, 4, 0)
    assert uneven["throughput_ratio"] == pytest.approx(
        {"value": 2, "low": 2 / 574.1, "high": 2 * 574.1}, rel=1e-3
    )
    one = summary({"a": [[0.1]], "b": [[0.2]]}, {"a": [[1]], "b": [[1]]}, 1, 0)
    assert one["p95_ratio"] == {"value": pytest.approx(2), "low": None, "high": None}

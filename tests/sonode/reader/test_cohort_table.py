"""What readers said becomes a cohort: its labels by hand, and one that is trained on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.results import schema
from model_def import checkpoint
from sonode.reader.judgements.record import COLUMNS, Record
from sonode.reader.results import Results
from tests.command_line import sonode
from tests.conftest import encode
from tests.handlers import dicoms
from tests.sonode.reader.conftest import MadeUp, body, serving
from tests.train.trainings import train
from train.cohorts.cohort import Cohort, load_cohort

ROI = [10, 8, 90, 70]
MOVED = [10, 8, 91, 70]
HEAD = "[{name: malignancy, target: reader_malignancy, labels: [benign, malignant]}]"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def said(image: bytes, word: str, reader: str | None = "R1", **changed: Any) -> dict[str, Any]:
    """A line of the record; `word`: a label, `cannot judge`, or "" for none in place of B."""
    told: dict[str, Any] = {"verdict": "agree", "reader_label": word, "label": word}
    if word == "cannot judge":
        told = {"verdict": word, "reader_label": None, "label": "B"}
    if not word:
        told = {"verdict": "disagree", "reader_label": None, "label": "B"}
    places = dict(zip(("x_min", "y_min", "x_max", "y_max"), changed.pop("roi", ROI), strict=True))
    return {
        **dict.fromkeys(COLUMNS),
        **{"head": "malignancy", "reader": reader, "frame": 0, "image_sha256": sha256(image)},
        **{f"roi_{name}": corner for name, corner in places.items()},
        **told,
        **changed,
    }


def scored(folder: Path, images: dict[str, bytes], **columns: list[Any]) -> Path:
    """Results of a run over images that are written there."""
    for name, image in images.items():
        (folder / name).write_bytes(image)
    rows = [
        schema.scored(body(ROI), etag=f"sha256:{sha256(image)}", heatmap_uris={})
        for image in images.values()
    ]
    manifest = pa.table({"image_uri": [*images], **columns})
    heads = schema.fields({"malignancy": ("benign", "malignant")}, with_heatmaps=False)
    place = folder / "run" / "model=tiny-1.0"
    place.mkdir(parents=True)
    pq.write_table(schema.table(manifest, rows, heads), place / "part-0.parquet")
    return folder / "run"


def exported(folder: Path, lines: list[dict[str, Any]], *more: object) -> tuple[pd.DataFrame, str]:
    file, out = folder / "reading.jsonl", folder / "readings.csv"
    file.write_text("".join(json.dumps(it) + "\n" for it in lines))
    out.unlink(missing_ok=True)
    given = ("--run", folder / "run", "--images", folder)
    done = sonode("reader", "export", file, out, *given, *more)
    assert done.returncode == 0, done.stderr
    return pd.read_csv(out, dtype=str, keep_default_na=False), done.stdout


def test_labels_by_hand(tmp_path: Path) -> None:
    """Image a: both benign. b: they differ. c: one cannot judge. d: none can. e: not the model's
    label, and no other. f: R1 changes to malignant. Then a box that R1 moved on a, an image of no
    patient, one that is not the run's, and one that has changed.
    """
    images = {it: encode(np.full((80, 120), ord(it), np.uint8)) for it in "abcdefxy"}
    patients = [*("p1", "p1", "p2", "p3", "p4", "p5"), None, "p6"]
    scored(tmp_path, images, patient_id=patients, lesion_id=[*"12345678"])
    (tmp_path / "y").write_bytes(b"another image")
    lines = [
        *(said(images["a"], "benign"), said(images["a"], "benign", "R2")),
        *(said(images["b"], "benign"), said(images["b"], "malignant", "R2")),
        *(said(images["c"], "malignant"), said(images["c"], "cannot judge", "R2")),
        *(said(images["d"], "cannot judge"), said(images["e"], "")),
        *(
            said(images["f"], "benign", stage="before"),
            said(images["f"], "malignant", stage="after"),
        ),
        said(images["a"], "malignant", roi=MOVED),
        *(said(images["x"], "benign"), said(b"elsewhere", "benign"), said(images["y"], "benign")),
    ]
    table, told = exported(tmp_path, lines)
    assert [Path(it).name for it in table["image"]] == [*"abcdefa"]
    assert table["patient_id"].tolist() == ["p1", "p1", "p2", "p3", "p4", "p5", "p1"]
    moved = f"{sha256(images['a'])[:16]}_0_10_8_91_70"
    assert table["lesion_id"].tolist() == [*"123456", moved]
    assert table["roi_x_max"].tolist() == ["90"] * 6 + ["91"]
    assert table["reader_malignancy"].tolist() == [
        *("benign", "", "malignant", "", "", "malignant", "malignant")
    ]
    assert table["reader_malignancy_said"].tolist() == [
        *("2 benign", "1 benign, 1 malignant", "1 cannot judge, 1 malignant"),
        *("1 cannot judge", "1 not B", "1 malignant", "1 malignant"),
    ]
    assert not {"malignant", "alnm"} & {*table.columns}
    for words in (
        "judged boxes (1): the run has no such image",
        "judged boxes (1): the run names no patient",
        "judged boxes (1): the image has changed",
        "answers replaced by a later one of the same reader: 1",
        "4 labels; empty where readers differ (1), where none can judge (1), and where a reader "
        "names no label (1)",
    ):
        assert words in told
    table, told = exported(tmp_path, lines, "--first")
    assert table["reader_malignancy"].tolist() == ["benign"]
    assert "replaced" not in told


def test_readers_without_a_name_replace_no_word_of_each_other(tmp_path: Path) -> None:
    """Two of them may differ. On image b one of them says the same twice."""
    images = {it: encode(np.full((80, 120), ord(it), np.uint8)) for it in "ab"}
    scored(tmp_path, images, patient_id=["p1", "p2"])
    words = (("a", "benign"), ("a", "malignant"), ("b", "benign"), ("b", "benign"))
    lines = [said(images[name], word, reader=None) for name, word in words]
    table, told = exported(tmp_path, lines)
    assert table["reader_malignancy"].tolist() == ["", "benign"]
    assert table["reader_malignancy_said"].tolist() == ["1 benign, 1 malignant", "1 benign"]
    assert "replaced" not in told


def test_ids_are_those_of_other_imports_of_the_same_run(tmp_path: Path) -> None:
    """A whole number that Parquet holds as 7.0; no path where none is; a blank is no patient."""
    images = {it: encode(np.full((80, 120), ord(it), np.uint8)) for it in "abcd"}
    scored(
        tmp_path, images, patient_id=pa.array([12.0, 7.0, None, np.nan]), lesion_id=[*"12", "", ""]
    )
    table, told = exported(tmp_path, [said(it, "benign") for it in images.values()])
    assert (table["patient_id"].tolist(), table["lesion_id"].tolist()) == (["12", "7"], ["1", "2"])
    assert "judged boxes (2): the run names no patient" in told
    (tmp_path / "more").mkdir()
    scored(tmp_path / "more", images, patient_id=["p1", " ", "p2", "p2"])
    table, told = exported(tmp_path / "more", [said(it, "benign") for it in images.values()])
    assert table["patient_id"].tolist() == ["p1", "p2", "p2"]
    assert not table["lesion_id"].str.contains("/").any() and table["lesion_id"].is_unique


def test_of_two_copies_of_an_image_the_one_that_is_there_is_taken(tmp_path: Path) -> None:
    image = encode(np.zeros((80, 120), np.uint8))
    scored(tmp_path, {"a": image, "b": image, "c": image}, patient_id=["p1", "p1", "p1"])
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_bytes(b"another image")
    table, _ = exported(tmp_path, [said(image, "benign")])
    assert table["image"].tolist() == [f"{tmp_path}/c"]


def test_a_loops_frame_is_named(tmp_path: Path) -> None:
    loop = dicoms.write(
        dicoms.dataset(np.stack([dicoms.GREY, 255 - dicoms.GREY]), "MONOCHROME2", frames=2)
    )
    scored(tmp_path, {"loop.dcm": loop}, patient_key=["k1"], frame=[1])
    lines = [said(loop, "benign", frame=1, roi=[1, 2, 8, 9])]
    table, _ = exported(tmp_path, lines)
    assert table["image"].tolist() == [f"{tmp_path}/loop.dcm#frame=1"]
    done = sonode("import", "csv", tmp_path / "readings.csv", tmp_path / "cohort")
    assert done.returncode == 0, done.stderr


def test_what_no_cohort_can_be_made_of(tmp_path: Path) -> None:
    image = encode(np.zeros((80, 120), np.uint8))
    scored(tmp_path, {"a": image}, study_id=["s"])
    file = tmp_path / "reading.jsonl"
    file.write_text(json.dumps(said(b"elsewhere", "benign")) + "\n")
    run = ("--run", tmp_path / "run")
    for words, why in (
        ((*run,), "has no patient_id or patient_key"),
        (("--first",), "--first: is of a cohort's table"),
        ((*run, "--first"), "has no readings of a study before its scores"),
        (("--run", tmp_path / "none"), "--run"),
    ):
        done = sonode("reader", "export", file, tmp_path / "out.csv", *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert why in done.stderr
        assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
def test_a_session_over_a_run_is_trained_on(
    phantom: Cohort, archive_path: Path, tmp_path: Path
) -> None:
    """`sonode score`, a reader on the page's paths, `export`, `import csv`, `train fit`."""
    columns = ["patient_id", "lesion_id", "roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max"]
    uris = [str((phantom.folder / str(it)).resolve()) for it in phantom.table["image"]]
    manifest = tmp_path / "manifest.parquet"
    phantom.table[columns].assign(image_uri=uris).to_parquet(manifest)
    done = sonode("score", manifest, tmp_path / "scores", "--archive", archive_path)
    assert done.returncode == 0, done.stderr
    file, run = tmp_path / "reading.jsonl", tmp_path / "scores"
    truth = ["malignant" if it else "benign" for it in phantom.table["malignant"]]
    results = Results([str(run)], str(tmp_path))
    with serving(MadeUp(), results=results, record=Record(file)) as page:
        for number, label in enumerate(truth):
            row = page.client.post(f"rows/{number}").json()
            score = page.score(row["id"], row["roi"]).json()
            verdict = "agree" if score["heads"]["malignancy"]["label"] == label else "disagree"
            judged = {"answer": score["answer"], "head": "malignancy", "note": ""}
            assert page.client.post("judge", json={**judged, "verdict": verdict}).is_success
    with serving(MadeUp(), results=results, record=Record(file), reader="R2") as page:
        row = page.client.post("rows/0").json()
        answer = page.score(row["id"], row["roi"]).json()["answer"]
        other = "disagree" if truth[0] == "malignant" else "agree"
        judged = {"answer": answer, "head": "malignancy", "verdict": other, "note": ""}
        assert page.client.post("judge", json=judged).is_success
    table = tmp_path / "readings.csv"
    assert sonode("reader", "export", file, table, "--run", run).returncode == 0
    done = sonode("import", "csv", table, tmp_path / "cohort", "--name", "read")
    assert done.returncode == 0, done.stderr
    cohort = load_cohort(tmp_path / "cohort").table
    assert cohort["patient_id"].tolist() == phantom.table["patient_id"].tolist()
    assert cohort["lesion_id"].tolist() == phantom.table["lesion_id"].tolist()
    assert cohort["pixels_sha256"].tolist() == phantom.table["pixels_sha256"].tolist()
    assert cohort["malignant"].isna().all()
    assert cohort["reader_malignancy"].isna().tolist() == [True] + [False] * (len(truth) - 1)
    assert cohort["reader_malignancy"].tolist()[1:] == truth[1:]
    out = tmp_path / "trained"
    steps = ("--trainer.max_epochs=1", f"--model.heads={HEAD}")
    done = train("fit", tmp_path / "cohort", out, *steps)
    assert done.returncode == 0, done.stderr
    (head,) = checkpoint.read_card(out / "checkpoint").heads
    assert head.target == "reader_malignancy"

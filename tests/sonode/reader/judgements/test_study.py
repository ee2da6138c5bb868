"""A reader study: no score before the first reading, no reading twice, and its figures by hand."""

import fcntl
import json
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from archives.packing.members import file_sha256
from sonode.console import UserError
from sonode.reader.judgements import measure
from sonode.reader.judgements.judging import Judging
from sonode.reader.judgements.measure import study as measured
from sonode.reader.judgements.record import COLUMNS, Record
from sonode.reader.judgements.study import Study
from sonode.reader.results import Results
from tests.command_line import sonode
from tests.conftest import encode
from tests.handlers import dicoms
from tests.sonode.reader.conftest import MadeUp, Page, serving
from tests.sonode.reader.test_results import URIS, run
from train.cohorts.cohort import Cohort
from train.measures.measure import Resampling

ROI = [10, 8, 90, 70]
OTHER = [10, 8, 91, 70]


def read(page: Page, stage: str, image: str, label: str, **changed: Any) -> httpx.Response:
    said = {"image": image, "frame": 0, "roi": ROI, "note": "", "answer": None}
    said |= {"labels": {"malignancy": label}, **changed}
    return page.client.post(f"study/{stage}", json=said)


def seen(page: Page, image: str) -> str:
    """See the scores; give what the second reading names them by."""
    answer = page.score(image, ROI)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["answer"])


def test_scores_come_after_the_first_reading_and_each_reading_once(
    png: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "reading.jsonl"
    source = MadeUp()
    with serving(source, record=Record(file), study=True) as page:
        opened = page.open(png)
        image = opened["id"]
        assert opened["study"] == {"stage": "before", "frame": None, "roi": None}
        assert page.score(image, ROI).json()["code"] == "hidden"
        assert read(page, "after", image, "benign").status_code == 409
        assert read(page, "before", image, "maybe").status_code == 400
        assert read(page, "before", image, "benign", labels={}).status_code == 400
        assert not file.read_text()
        assert source.asked == []
        answer = read(page, "before", image, "benign", note="dark").json()
        assert answer == {"study": {"stage": "after", "frame": 0, "roi": ROI}}
        assert page.score(image, OTHER).json()["code"] == "hidden"
        assert page.score(image, ROI, source=1).status_code in (403, 404)
        assert read(page, "before", image, "malignant").status_code == 409
        assert read(page, "before", image, "malignant", roi=OTHER).status_code == 409
        key = seen(page, image)
        agreed = {"answer": key, "head": "malignancy", "verdict": "agree", "note": ""}
        assert page.client.post("judge", json=agreed).status_code == 404
        said = read(page, "after", image, "malignant", answer=key).json()
        assert said["study"]["stage"] == "done"
        assert read(page, "after", image, "benign", answer=key).status_code == 409
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert set(first) == set(second) == set(COLUMNS)
    assert [first[it] for it in ("stage", "order", "verdict", "reader_label", "note")] == [
        *("before", 1, None, "benign", "dark")
    ]
    assert first["probability"] is first["label"] is first["model_sha256"] is None
    assert [second[it] for it in ("stage", "order", "verdict", "reader_label", "probability")] == [
        *("after", 1, "agree", "malignant", 0.75)
    ]
    assert first["pixels_sha256"] == second["pixels_sha256"]
    assert first["seconds"] >= 0 <= second["seconds"]


def test_a_restart_goes_on_where_the_record_ends(png: bytes, tmp_path: Path) -> None:
    file = tmp_path / "reading.jsonl"
    other = encode(np.zeros((80, 120), np.uint8))
    with serving(MadeUp(), record=Record(file), study=True) as page:
        read(page, "before", page.open(png)["id"], "cannot judge")
    with serving(MadeUp(), record=Record(file), study=True) as page:
        opened = page.open(png)
        assert opened["study"] == {"stage": "after", "frame": 0, "roi": ROI}
        key = seen(page, opened["id"])
        assert read(page, "after", opened["id"], "benign", answer=key).status_code == 200
        read(page, "before", page.open(other)["id"], "benign")
    with serving(MadeUp(), record=Record(file), study=True) as page:
        assert page.open(png)["study"]["stage"] == "done"
    assert [json.loads(line)["order"] for line in file.read_text().splitlines()] == [1, 1, 2]


def test_a_run_shows_no_score_and_fixes_the_box(frame: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(encode(frame))
    results = Results([run(tmp_path, "1.0", 0.0, 3, URIS)], str(tmp_path))
    record = Record(tmp_path / "reading.jsonl")
    with serving(MadeUp(), results=results, record=record, study=True) as page:
        for query in ("rows", "rows?order=high:malignancy", "rows?which=uncertain"):
            listed = page.client.get(query).json()
            assert [it["number"] for it in listed["rows"]] == [0, 1, 2, 3]
            assert {len(it["runs"]) for it in listed["rows"]} == {0}
        assert page.client.get("about").json()["run"]["heads"] == []
        assert page.client.post("images", content=encode(frame)).json()["code"] == "no_row"
        opened = page.client.post("rows/1").json()
        roi = [1, 2, 30, 40]
        assert opened["study"] == {"stage": "before", "frame": 0, "roi": roi}
        image = opened["id"]
        page.client.get(f"images/{image}/0.png")
        assert read(page, "before", image, "benign").json()["code"] == "not_now"
        assert not (tmp_path / "reading.jsonl").read_text()
        assert read(page, "before", image, "benign", roi=roi).status_code == 200
        assert page.score(image, ROI).json()["code"] == "hidden"
        assert page.score(image, roi).status_code == 200


def test_a_loops_other_frames_are_not_the_rows(frame: np.ndarray, tmp_path: Path) -> None:
    loop = dicoms.dataset(np.stack([frame, 255 - frame]), "MONOCHROME2", frames=2)
    (tmp_path / "1.png").write_bytes(dicoms.write(loop))
    results = Results([run(tmp_path, "1.0", 0.0, 3, URIS)], str(tmp_path))
    record = Record(tmp_path / "reading.jsonl")
    with serving(MadeUp(), results=results, record=record, study=True) as page:
        opened = page.client.post("rows/1").json()
        assert page.client.get(f"images/{opened['id']}/1.png").status_code == 200
        said = read(page, "before", opened["id"], "benign", frame=1, roi=opened["roi"])
        assert said.json()["code"] == "not_now"
    assert not (tmp_path / "reading.jsonl").read_text()


@pytest.mark.parametrize(
    "roi", [[10, 8, 121, 70], [-1, 8, 90, 70], [90, 8, 10, 70], [10, 8, 90, 8]]
)
def test_a_first_reading_has_a_box_that_can_be_scored(
    png: bytes, tmp_path: Path, roi: list[int]
) -> None:
    file = tmp_path / "reading.jsonl"
    with serving(MadeUp(), record=Record(file), study=True) as page:
        image = page.open(png)["id"]
        refused = read(page, "before", image, "benign", roi=roi)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_roi")
        assert read(page, "before", image, "benign").status_code == 200
    assert len(file.read_text().splitlines()) == 1


def test_two_processes_take_one_first_reading(png: bytes, tmp_path: Path) -> None:
    file = tmp_path / "reading.jsonl"
    with (
        serving(MadeUp(), record=Record(file), study=True) as one,
        serving(MadeUp(), record=Record(file), study=True) as other,
    ):
        image = one.open(png)["id"]
        other.open(png)
        assert read(one, "before", image, "benign").status_code == 200
        key = seen(one, image)
        assert read(other, "before", image, "malignant").status_code == 409
        assert read(other, "after", image, "malignant", answer=seen(other, image)).is_success
        assert read(one, "after", image, "malignant", answer=key).status_code == 409
    assert len(file.read_text().splitlines()) == 2


def test_a_score_that_was_judged_outside_the_study_is_not_asked(png: bytes, tmp_path: Path) -> None:
    file = tmp_path / "reading.jsonl"
    with serving(MadeUp(), record=Record(file)) as page:
        judged = {"head": "malignancy", "verdict": "agree", "note": ""}
        answer = page.score(page.open(png)["id"], ROI).json()["answer"]
        assert page.client.post("judge", json={**judged, "answer": answer}).status_code == 200
    with serving(MadeUp(), record=Record(file), study=True) as page:
        opened = page.open(png)
        assert opened["study"]["stage"] == "seen"
        assert read(page, "before", opened["id"], "benign").status_code == 409
        other = page.open(encode(np.zeros((80, 120), np.uint8)))
        assert read(page, "before", other["id"], "benign").status_code == 200
    assert json.loads(file.read_text().splitlines()[-1])["order"] == 1


def test_scores_of_another_model_are_not_shown(png: bytes, tmp_path: Path) -> None:
    source = MadeUp()
    source.facts["model"]["sha256"] = "cd" * 32
    with serving(source, record=Record(tmp_path / "reading.jsonl"), study=True) as page:
        image = page.open(png)["id"]
        read(page, "before", image, "benign")
        answer = page.score(image, ROI)
    assert (answer.status_code, answer.json()["code"]) == (409, "other_model")
    assert "heads" not in answer.json()


def test_half_a_reading_is_refused_with_its_line(png: bytes, tmp_path: Path) -> None:
    file = tmp_path / "reading.jsonl"
    with serving(MadeUp(), record=Record(file), study=True) as page:
        read(page, "before", page.open(png)["id"], "benign")
    other = file.read_text().replace('"malignancy"', '"alnm"')
    file.write_text(file.read_text().replace('"R1"', '"R2"') + other)
    with (
        pytest.raises(UserError, match=r"line 2 has the heads alnm, .*: malignancy; take"),
        serving(MadeUp(), record=Record(file), study=True),
    ):
        pass


def test_who_reads_is_what_the_gateway_says(png: bytes, tmp_path: Path) -> None:
    file, names = tmp_path / "reading.jsonl", ["ward-3"]

    def gateway() -> str:
        if not names:
            raise UserError("no server answers")
        return names[-1]

    with serving(MadeUp(), record=Record(file), study=True, gateway=gateway) as page:
        who = page.client.get("about").json()["who"]
        assert who == "Your readings are recorded as ward-3 (says the gateway), R1."
        image = page.open(png)["id"]
        assert read(page, "before", image, "benign").status_code == 200
        key = seen(page, image)
        names.append("ward-4")
        assert read(page, "after", image, "benign", answer=key).json()["code"] == "other_reader"
        names.clear()
        answer = read(page, "after", image, "benign", answer=key)
        assert (answer.status_code, answer.json()["code"]) == (502, "who")
        assert "Nothing can be recorded" in page.client.get("about").json()["who"]
    (line,) = (json.loads(it) for it in file.read_text().splitlines())
    assert (line["client"], line["reader"]) == ("ward-3", "R1")


def test_the_command_asks_for_what_a_study_needs(archive_path: Path, tmp_path: Path) -> None:
    record = ("--record", tmp_path / "reading.jsonl")
    for words, said in (
        (["--archive", archive_path, "--study"], "--record FILE"),
        (["--archive", archive_path, "--archive", archive_path, *record, "--study"], "one archive"),
        (["--archive", archive_path, *record, "--study"], "--reader R1"),
    ):
        done = sonode("reader", *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert said in done.stderr


def line(
    case: Any, stage: str, label: str | None, reader: str = "R1", sha256: str | None = None
) -> dict[str, Any]:
    places = ("x_min", "y_min", "x_max", "y_max")
    return {
        **dict.fromkeys(COLUMNS),
        **{"stage": stage, "head": "malignancy", "reader_label": label, "reader": reader},
        "model_sha256": sha256 if stage == "after" else None,
        **{f"roi_{name}": int(case[f"roi_{name}"]) for name in places},
        **{"image_sha256": case["image"], "pixels_sha256": case["pixels_sha256"], "frame": 0},
    }


def test_rates_by_hand(phantom: Cohort, archive_path: Path, tmp_path: Path) -> None:
    """Of each of three malignant patients one image: called right 1 of 3 times without the scores
    and 2 of 3 times with them; one benign image right both times; one that cannot be judged, one
    without a second reading, and one that the cohort does not have.
    """
    table = phantom.table
    of_patient = table.drop_duplicates("patient_id")
    bad, good = (
        of_patient[of_patient["malignant"] == it].to_dict("records") for it in (True, False)
    )
    pairs = [
        *((bad[0], "malignant", "malignant"), (bad[1], "benign", "malignant")),
        *((bad[2], "benign", "benign"), (good[0], "benign", "benign")),
        *((good[1], None, "benign"), ({**good[2], "pixels_sha256": "0" * 64}, "benign", "benign")),
    ]
    digest = file_sha256(archive_path)
    lines = [
        line(case, stage, label, sha256=digest)
        for case, *labels in pairs
        for stage, label in zip(("before", "after"), labels, strict=True)
    ]
    lines.append(line(good[3], "before", "benign"))
    lines += [line(good[4], it, "malignant", sha256="0" * 64) for it in ("before", "after")]
    file = tmp_path / "reading.jsonl"
    file.write_text("".join(json.dumps(it) + "\n" for it in lines))
    how = Resampling(resamples=100, seed=0)
    found = measured(file, phantom.folder, archive_path, how)
    sensitivity, specificity = found["rates"]
    assert (sensitivity["readings"], sensitivity["patients"]) == (3, 3)
    assert sensitivity["without"]["value"] == pytest.approx(1 / 3)
    assert sensitivity["with"]["value"] == pytest.approx(2 / 3)
    assert sensitivity["difference"]["value"] == pytest.approx(1 / 3)
    assert (sensitivity["right_with_alone"], sensitivity["right_without_alone"]) == (1, 0)
    assert specificity["with"]["value"] == specificity["without"]["value"] == 1
    assert specificity["with"]["interval"] == "Wilson, 1 patient"
    assert found["left_out"] == {
        "the second reading is missing": 1,
        "malignancy, R1: cannot judge without the scores alone": 1,
        "its scores were of another archive": 1,
        "the cohort has no such image and box": 1,
    }
    with file.open("a") as more:
        for stage in ("before", "after"):
            of_gateway = {**line(bad[0], stage, "benign", "", digest), "client": "ward-3"}
            more.write(json.dumps(of_gateway) + "\n")
    both = measured(file, phantom.folder, archive_path, how)["rates"]
    assert [it["reader"] for it in both[::2]] == ["R1", "ward-3 (says the gateway)", "all readers"]
    assert both[-2]["with"]["value"] == pytest.approx(2 / 4)
    assert both[-2]["patients"] == 3
    with file.open("a") as more:
        more.write(json.dumps(of_gateway) + "\n")
    done = sonode("reader", "study", file, phantom.folder, "--archive", archive_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "1 readings are there twice" in done.stderr


def test_a_lesion_that_was_read_in_two_boxes_is_an_error(
    phantom: Cohort, archive_path: Path, tmp_path: Path
) -> None:
    case = phantom.table.drop_duplicates("pixels_sha256", keep=False).to_dict("records")[0]
    digest, file = file_sha256(archive_path), tmp_path / "reading.jsonl"
    lines = [
        line({**case, "roi_x_max": case["roi_x_max"] - less}, stage, "benign", sha256=digest)
        for less in (0, 1)
        for stage in ("before", "after")
    ]
    file.write_text("".join(json.dumps(it) + "\n" for it in lines))
    with pytest.raises(UserError, match=r"1 readings are of a lesion of which the same reader"):
        measured(file, phantom.folder, archive_path, Resampling(resamples=100, seed=0))


def test_alnm_without_a_malignancy_head_is_measured_on_malignant_lesions(
    phantom: Cohort, archive_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benign lesion has no ALNM in the cohort; it is not among those without ALNM."""
    head = {"name": "alnm", "labels": ["no", "yes"], "target": "alnm", "given": "malignant"}
    monkeypatch.setattr(measure, "read_members", lambda _: ({}, {"heads": [head]}))
    digest, file = file_sha256(archive_path), tmp_path / "reading.jsonl"
    of_kinds = phantom.table.drop_duplicates(["malignant", "alnm"]).to_dict("records")
    assert [(it["malignant"], it["alnm"]) for it in of_kinds] == [
        *((False, False), (True, True), (True, False))
    ]
    lines = [
        {**line(case, stage, "no", sha256=digest), "head": "alnm"}
        for case in of_kinds
        for stage in ("before", "after")
    ]
    file.write_text("".join(json.dumps(it) + "\n" for it in lines))
    found = measured(file, phantom.folder, archive_path, Resampling(resamples=100, seed=0))
    assert [(it["rate"], it["readings"], it["with"]["value"]) for it in found["rates"]] == [
        *(("sensitivity", 1, 0), ("specificity", 1, 1))
    ]


def test_a_record_is_read_on_from_where_it_was(tmp_path: Path) -> None:
    """Also where the end of its last line is missing; a line that is gone is told."""
    file = tmp_path / "reading.jsonl"
    record, told = Record(file), dict.fromkeys(COLUMNS)
    assert record.new() == {}
    Record(file).add(lambda: [told, told])
    assert record.new() == {1: told, 2: told}
    assert record.new() == {}
    with file.open("a") as more:
        more.write(json.dumps(told))
    assert record.new() == record.new() == {3: told}
    Record(file).add(lambda: [told])
    assert record.new() == {3: told, 4: told}
    file.write_text(json.dumps(told) + "\n")
    with pytest.raises(UserError, match="has lost lines; start the reader again"):
        record.new()


def test_another_file_in_the_records_place_is_told(tmp_path: Path) -> None:
    """Of the same length, and longer: what it has in place of lines that were read counts, too."""
    file = tmp_path / "reading.jsonl"
    record, told = Record(file), {**dict.fromkeys(COLUMNS), "image_sha256": "a" * 64}
    record.add(lambda: [told] * 9)
    assert len(record.new()) == 9
    for lines in (9, 10):
        other = tmp_path / "other"
        other.write_text(f"{json.dumps({**told, 'image_sha256': 'b' * 64})}\n" * lines)
        other.replace(file)
        with pytest.raises(UserError, match="has lost lines; start the reader again"):
            record.new()


def test_a_reader_that_starts_waits_for_what_another_one_writes(tmp_path: Path) -> None:
    file, asked = tmp_path / "reading.jsonl", {"head": "malignancy", "labels": ["benign"]}
    told = {"stage": "before", "reader": "R1", "head": "malignancy", "order": 1}
    line = json.dumps({**dict.fromkeys(COLUMNS), **told}) + "\n"
    with file.open("a") as other, ThreadPoolExecutor(1) as pool:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(line[:50])
        other.flush()
        starting = pool.submit(Judging, Record(file), "R1", lambda: None, [asked])
        wait([starting], 0.5)  # refused by then, if it did not wait
        other.write(line[50:])
        other.flush()
        fcntl.flock(other, fcntl.LOCK_UN)
        assert starting.result(60).study is not None
    assert file.read_text() == line


def test_a_reading_with_other_heads_is_refused_at_each_try(tmp_path: Path) -> None:
    """It was written by another process, of another archive, while the page was open."""
    file = tmp_path / "reading.jsonl"
    record, study = Record(file), Study({"client": None, "reader": "R1"}, ["malignancy", "alnm"])
    told = {"stage": "before", "reader": "R1", "head": "malignancy", "order": 1}
    Record(file).add(lambda: [{**dict.fromkeys(COLUMNS), **told}])
    for _ in range(2):
        with pytest.raises(UserError, match="the reading of line 1 has the heads malignancy, not"):
            study.catch_up(record.new())

"""What the page gets is what the archive says of those pixels, and what it does not get."""

import hashlib
import http.client
import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archives.packing.loader import load_archive
from archives.serving.predict import Answer
from model_def.limits import MAX_DICOM_BYTES
from sonode.console import UserError
from sonode.reader import app
from sonode.reader.judgements.record import Record
from sonode.reader.layers import layer
from sonode.reader.sources import ArchiveSource, ServerSource
from sonode.reader.words import WORDS, in_words
from tests.command_line import ROOT, sonode
from tests.handlers import dicoms
from tests.loopback import LOOPBACK
from tests.processes import assert_no_process_about
from tests.sonode.reader.conftest import DIGEST, MadeUp, Page, body, serving

ROI = [10, 8, 90, 70]


def pixels_of(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_page_has_the_archives_own_answer(
    archive_path: Path, png: bytes, frame: np.ndarray, tmp_path: Path
) -> None:
    with load_archive(archive_path) as archive:
        fields = {"roi": "10,8,90,70", "explain": "gradcam+grid"}
        ((_, expected),) = archive.score([{"image": png, **fields}])
    with ExitStack() as held:
        source = ArchiveSource(archive_path, None, tmp_path, held)
        with serving(source) as page:
            (about,) = page.client.get("about").json()["sources"]
            image = page.open(png)
            answer = page.score(image["id"], ROI).json()
            refused = page.score(image["id"], [10, 8, 121, 70])
            shown = page.client.get(f"images/{image['id']}/0.png").content
    for key in ("model", "roi", "heads", "consistent", "out_of_distribution"):
        assert answer[key] == json.loads(json.dumps(expected[key]))
    assert [it["code"] for it in answer["warnings"]] == expected["warnings"]
    for head, heat_map in expected["heatmaps"].items():
        assert answer["layers"][head]["box"] == list(heat_map["box"])
        assert answer["layers"][head]["max"] == heat_map["max"]
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_roi")
    assert np.array_equal(pixels_of(shown), frame)
    assert about["model"] == {key: expected["model"][key] for key in ("name", "version", "sha256")}
    assert about["trained_on"] == "phantom (synthetic, not for patients)"
    assert about["tested_on"] == "no cohort"
    assert about["card"].startswith("# Model card: tiny 1.0")


def test_an_archive_that_does_not_start_leaves_no_process(
    archive_path: Path, tmp_path: Path
) -> None:
    before = {*multiprocessing.active_children()}
    with ExitStack() as held:
        source = ArchiveSource(archive_path, "steam", tmp_path, held)
        for _ in range(2):
            status, body = source.score(b"", {})
            assert (status, body["code"]) == (502, "no_answer")
        assert {*multiprocessing.active_children()} == before


def test_a_loop_is_shown_and_scored_frame_by_frame() -> None:
    loop = np.stack([dicoms.GREY, 255 - dicoms.GREY])
    source = MadeUp()
    with serving(source) as page:
        image = page.open(dicoms.write(dicoms.dataset(loop, "MONOCHROME2", frames=2)))
        frames = [page.client.get(f"images/{image['id']}/{it}.png") for it in (0, 1, 2)]
        answer = page.score(image["id"], [1, 2, 8, 9], frame=1)
    assert (image["frames"], image["width"], image["height"]) == (2, 16, 12)
    for number in (0, 1):
        assert np.array_equal(pixels_of(frames[number].content), loop[number])
    assert (frames[2].status_code, frames[2].json()["code"]) == (422, "invalid_frame")
    assert source.asked == [{"roi": "1,2,8,9", "explain": "gradcam+grid", "frame": "1"}]
    assert answer.status_code == 200
    assert not any(secret in answer.text for secret in dicoms.SECRETS)


@pytest.mark.parametrize(
    "image", [b"", b"no image", dicoms.write(dicoms.dataset(dicoms.GREY, "X"))]
)
def test_what_cannot_be_read_is_refused_in_words(image: bytes) -> None:
    with serving(MadeUp()) as page:
        answer = page.client.post("images", content=image)
    assert answer.status_code in (415, 422)
    assert answer.json()["message"].startswith("image: ")


def test_faults_of_a_server_reach_the_page(png: bytes) -> None:
    def gone(*_: object) -> Answer:
        raise UserError("--url http://gateway: no server answers")

    busy = 503, {"code": "busy", "message": "try again later"}
    sources = [ServerSource("a", gone), ServerSource("b", lambda *_: busy)]
    with serving(*sources) as page:
        image = page.open(png)
        first, second = (page.score(image["id"], ROI, source=it) for it in (0, 1))
        third = page.score(image["id"], ROI, source=2)
    assert (first.status_code, first.json()["code"]) == (502, "no_answer")
    assert "no server answers" in first.json()["message"]
    assert (second.status_code, second.json()) == busy
    assert third.status_code == 404


def test_an_image_that_was_forgotten_is_asked_for_again(
    png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "KEPT_BYTES", len(png) + 10)
    with serving(MadeUp()) as page:
        image = page.open(png)["id"]
        assert image == hashlib.sha256(png).hexdigest()
        assert page.score(image, ROI).status_code == 200
        page.open(png + bytes(5))
        answer = page.score(image, ROI)
    assert (answer.status_code, answer.json()["code"]) == (410, "image_forgotten")


def test_each_warning_of_the_reference_has_its_words() -> None:
    """Those of DICOM headers, which follow the others there, are told by their code."""
    section = (ROOT / "docs" / "integrate.md").read_text().split("\n## Warnings\n")[1]
    rows = [line for line in section.split("\n## ")[0].splitlines() if line.startswith("| `")]
    named = {
        name
        for row in rows
        if not re.search(r"\| DICOM: ", row)
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert named == set(WORDS) - {"inconsistent"}
    assert in_words(["window_ignored"])[0]["words"] == "About the file's header: window ignored."


def test_contradicting_labels_are_said(png: bytes) -> None:
    source = MadeUp(lambda roi: (200, body(roi, consistent=False, warnings=["small_roi"])))
    with serving(source) as page:
        warnings = page.score(page.open(png)["id"], ROI).json()["warnings"]
    assert warnings == [
        {"code": "small_roi", "words": WORDS["small_roi"]},
        {"code": "inconsistent", "words": WORDS["inconsistent"]},
    ]


def test_a_layer_has_the_products_colours() -> None:
    """0.8 of turbo's way in band 9 of 10: the opacity of the last band is 0.25 + 0.45 * 0.95."""
    top = pixels_of(layer([[3.0]]))
    assert np.unique(top.reshape(-1, 4), axis=0).shape == (1, 4)
    assert top[0, 0, 3] == round(255 * (0.25 + 0.45 * 0.95))
    assert top[0, 0, 0] > top[0, 0, 2]  # red
    assert not pixels_of(layer([[0.0, 0.0]]))[..., 3].any()
    half = pixels_of(layer([[0.0, 1.0]]))
    assert (half[0, 0, 3], half[0, -1, 3]) == (0, top[0, 0, 3])


# --- who may ask ---------------------------------------------------------------------------------


def test_only_this_machines_own_page_may_ask(png: bytes) -> None:
    with serving(MadeUp()) as page:
        client = page.client
        port = page.server.server_port
        assert client.get("about").status_code == 200
        assert client.get("about", headers={"Host": f"localhost:{port}"}).status_code == 200
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", ""):
            assert client.get("about", headers={"Host": host}).status_code == 421, host
        for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}"):
            answer = client.post("images", content=png, headers={"Origin": origin})
            assert answer.status_code == 403, origin
        del client.headers["Origin"]
        assert client.post("images", content=png).status_code == 403
        root = f"http://127.0.0.1:{port}"
        for path in ("/", "/about", f"/{'A' * 24}/about", f"/{page.server.key}about"):
            assert client.get(root + path).status_code == 404, path


@pytest.mark.parametrize(
    "path", ["../app.py", "..%2fapp.py", "app.py", "images/../../app.py", "images/x/-1.png", "x"]
)
def test_nothing_else_is_served(path: str) -> None:
    with serving(MadeUp()) as page:
        raw = page.client.build_request("GET", "about")
        raw.url = raw.url.copy_with(raw_path=f"/{page.server.key}/{path}".encode())
        assert page.client.send(raw).status_code in (404, 410)


def test_answers_are_not_kept_and_run_nothing_foreign(png: bytes) -> None:
    with serving(MadeUp()) as page:
        image = page.open(png)["id"]
        paths = ("", "main.js", "reader.css", "about", f"images/{image}/0.png", "none")
        answers = [page.client.get(path) for path in paths]
    for answer in answers:
        assert answer.headers["Cache-Control"] == "no-store"
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        assert "Set-Cookie" not in answer.headers
    html = answers[0].text
    assert not re.search(r"https?://|<script>|<style>| style=| on\w+=", html)


def test_bodies_have_limits(png: bytes) -> None:
    with serving(MadeUp()) as page:
        client = page.client
        large = http.client.HTTPConnection("127.0.0.1", page.server.server_port)
        length = {"Content-Length": str(MAX_DICOM_BYTES + 1), "Origin": client.headers["Origin"]}
        large.request("POST", f"/{page.server.key}/images", headers=length)
        assert large.getresponse().status == 413
        large.close()
        chunks = client.post("images", content=iter([png]))
        assert chunks.status_code == 411
        assert client.post("score", content=b"x" * 2**17).status_code == 413
        odd = {"source": 0, "image": "x", "frame": 0, "roi": [1, 2, 3, 4.5]}
        assert client.post("score", json=odd).status_code == 400
        assert (
            client.post("score", json={**odd, "roi": [1, 2, 3, 4], "path": "x"}).status_code == 400
        )


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    for words, said in (
        ([], "nothing to score with: give --archive, --store or --url"),
        (["--store", tmp_path], "has no archive"),
        (["--archive", tmp_path / "none.mar"], "no such file"),
        (["--url", "http://127.0.0.1:1", "--record", tmp_path / "no" / "file"], "--record"),
        (["--url", "http://127.0.0.1:1", "--run", tmp_path], "has no results"),
    ):
        done = sonode("reader", *words)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_command_serves_until_it_is_stopped(archive_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sonode", "reader", "--archive", archive_path, "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("reader: ").strip()
        (about,) = LOOPBACK.get(f"{address}about").json()["sources"]
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert about["title"] == "tiny 1.0"
    assert (process.returncode, rest.splitlines()[-1]) == (0, "stopped")
    assert_no_process_about(tmp_path)
    assert [*tmp_path.iterdir()] == []


# --- what readers say ----------------------------------------------------------------------------


def judged(page: Page, image: str, verdict: str, note: str = "") -> dict[str, object]:
    answer = page.score(image, ROI).json()["answer"]
    said = {"answer": answer, "head": "malignancy", "verdict": verdict, "note": note}
    return {**page.client.post("judge", json=said).json()}


def test_a_judgement_is_a_line_and_the_lines_are_a_table(
    png: bytes, frame: np.ndarray, tmp_path: Path
) -> None:
    file = tmp_path / "reading.jsonl"
    with serving(MadeUp(), record=Record(file)) as page:
        image = page.open(png)["id"]
        for verdict in ("agree", "disagree", "cannot judge"):
            assert judged(page, image, verdict, "dark, round") == {"recorded": True}
        odd = page.client.post(
            "judge", json={"answer": "x", "head": "malignancy", "verdict": "agree", "note": ""}
        )
        assert odd.status_code == 409
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    pixels = hashlib.sha256(b"120x80:" + frame.tobytes()).hexdigest()
    assert len(lines) == 3
    time = lines[0].pop("time")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", time)
    assert lines[0] == {
        **dict.fromkeys(("stage", "order", "seconds", "client")),
        "verdict": "agree",
        "head": "malignancy",
        "label": "malignant",
        "reader_label": "malignant",
        "note": "dark, round",
        "probability": 0.75,
        "threshold": 0.5,
        "uncertain": True,
        "model_name": "tiny",
        "model_version": "1.0",
        "model_sha256": DIGEST,
        "engine": "eager",
        "roi_x_min": 10,
        "roi_y_min": 8,
        "roi_x_max": 90,
        "roi_y_max": 70,
        "frame": 0,
        "width": 120,
        "height": 80,
        "image_sha256": image,
        "pixels_sha256": pixels,
        "reader": "R1",
    }
    assert [it["reader_label"] for it in lines[1:]] == ["benign", None]

    import pandas as pd

    for name, read in (("out.csv", pd.read_csv), ("out.parquet", pd.read_parquet)):
        done = sonode("reader", "export", file, tmp_path / name)
        assert (done.returncode, done.stdout) == (0, f"3 rows: {tmp_path / name}\n")
        table = read(tmp_path / name)
        assert table["verdict"].tolist() == ["agree", "disagree", "cannot judge"]
        assert table["roi_x_max"].tolist() == [90] * 3
        assert table["pixels_sha256"].tolist() == [pixels] * 3
    assert sonode("reader", "export", file, tmp_path / "out.csv").returncode == 2
    assert sonode("reader", "export", file, tmp_path / "out.txt").returncode == 2
    with file.open("a") as more:
        more.write('{"verdict": "agr')
    done = sonode("reader", "export", file, tmp_path / "new.csv")
    assert done.returncode == 2
    assert "line 4" in done.stderr
    assert not (tmp_path / "new.csv").exists()


def test_an_older_record_is_not_to_be_thrown_away(tmp_path: Path) -> None:
    older = tmp_path / "reading.jsonl"
    older.write_text('{"time": 1, "verdict": "agree"}\n')
    with pytest.raises(UserError) as caught:
        Record(older).new()
    assert str(caught.value) == (
        f"--record {older}: line 1 has no stage: it is not a reader's, or of another version of "
        "sonode; keep the file, and give another one"
    )


def test_half_a_line_takes_no_other_with_it(tmp_path: Path) -> None:
    file = tmp_path / "reading.jsonl"
    file.write_text('{"a": 1}\n{"b"')
    Record(file).add(lambda: [{"c": 3}])
    assert file.read_text().splitlines() == ['{"a": 1}', '{"b"', '{"c": 3}']


def test_a_full_disk_records_nothing_and_says_so(
    png: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "reading.jsonl"
    write = os.write
    with serving(MadeUp(), record=Record(file)) as page:
        image = page.open(png)["id"]
        judged(page, image, "agree")
        before = file.read_bytes()
        with monkeypatch.context() as full:  # room for ten more bytes
            full.setattr(
                "sonode.reader.judgements.record.os.write", lambda to, data: write(to, data[:10])
            )
            said = judged(page, image, "agree")
        assert said["code"] == "not_recorded"
        assert "NOT recorded" in str(said["message"])
        assert file.read_bytes() == before
        assert judged(page, image, "agree") == {"recorded": True}
    with serving(MadeUp(), record=Record(Path("/dev/full"))) as page:
        said = judged(page, page.open(png)["id"], "agree")
        assert "No space left on device" in str(said["message"])


def test_nothing_is_recorded_unless_asked_for(png: bytes) -> None:
    with serving(MadeUp()) as page:
        assert page.client.get("about").json()["record"] is False
        assert judged(page, page.open(png)["id"], "agree")["code"] == "no_record"

"""The demo on a tiny cohort: all of it, and cut off in the middle."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from model_def.overlay import CROP_SIDE
from sonode.demo import account, steps
from tests.command_line import ROOT, run_here, sonode
from tests.processes import assert_no_process_about
from tests.train.trainings import SMALL
from train.cohorts.cohort import Cohort

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def out(phantom: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of it, with a small network and the least training; its commands run in this process."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "PASSES", 1)
        patch.setattr(
            account, "run_sonode", lambda it: run_here([*it, *(SMALL if it[0] == "train" else ())])
        )
        done = sonode("demo", folder, "--cohort", phantom.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "both have the same SHA-256" in done.stdout
    assert "without a token: refused with 400" in done.stdout
    assert "Traceback" not in done.stderr
    return folder


def test_a_cohort_that_is_none_leaves_nothing(tmp_path: Path) -> None:
    done = sonode("demo", tmp_path / "out", "--cohort", tmp_path / "none")
    assert done.returncode == 2
    assert "not a cohort" in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_process_outlives_it(out: Path) -> None:
    assert_no_process_about(out)
    assert not (out / "serve" / "key_file.json").exists()


def test_every_row_is_there_and_the_broken_ones_say_why(out: Path, phantom: Cohort) -> None:
    scores = pd.read_parquet(out / "scores.parquet").set_index("study_id")
    assert len(scores) == len(phantom.table) + 3
    assert scores.loc[["broken-0", "broken-1", "broken-2"], "code"].tolist() == [
        "object_missing",
        "unreadable_image",
        "invalid_roi",
    ]
    good = scores[scores["status"] == "ok"]
    assert len(good) == len(phantom.table)
    assert good["alnm_probability"].between(0, 1).all()
    assert good["code"].isna().all()


def test_what_it_says_it_made_is_there(out: Path) -> None:
    summary = json.loads((out / "summary.json").read_text())
    assert summary["findings"] == []
    made = {what: where for what, where, _ in summary["made"]}
    for what in ("checkpoint", "archive", "online scores"):
        assert (out / made[what]).exists(), what
    for head in ("malignancy", "alnm"):
        picture = Image.open(io.BytesIO((out / "online" / f"gradcam_{head}.png").read_bytes()))
        assert max(picture.size) >= CROP_SIDE
        assert picture.mode == "P"
    online = json.loads((out / "online" / "predictions.json").read_text())
    assert len(online) == 24


def test_a_folder_in_use_is_refused(out: Path) -> None:
    before = sorted(out.iterdir())
    done = sonode("demo", out)
    assert done.returncode == 2
    assert "is not empty; give a new folder" in done.stderr
    assert sorted(out.iterdir()) == before


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_cut_off_with_its_servers_up(
    phantom: Cohort, archive_path: Path, tmp_path: Path, number: int
) -> None:
    """Servers end with it, and nothing says that it was done; its archive is there already."""
    out = tmp_path / "out"
    code = (
        "import shutil, sys\n"
        "from sonode import command_line\n"
        "from sonode.demo import steps\n"
        "def pack(account, out):\n"
        "    (out / 'store').mkdir()\n"
        f"    shutil.copy({str(archive_path)!r}, out / 'store' / steps.MODEL)\n"
        "steps._train = lambda *_, **__: None\n"
        "steps._pack = pack\n"
        f"sys.argv = ['sonode', 'demo', {str(out)!r}, '--cohort', {str(phantom.folder)!r}]\n"
        "command_line.main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while not (out / "serve" / "key_file.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # what a terminal does at Ctrl-C
        else:
            process.send_signal(number)
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted"
    assert "Traceback" not in said
    assert_no_process_about(out)
    assert not (out / "summary.json").exists()

"""archives/state/journal.py: what is written is what is found, whatever kills the writer."""

import json
import os
import signal
import subprocess
import sys

import pytest

from archives.gateway.configuration.settings import GatewaySettings
from archives.gateway.supervisor import Supervisor
from archives.rollout.start import _keep_copy
from archives.state.journal import Desired, Journal, Release, fold
from sonode.console import UserError

OLD = Release("1.0", "lesion-1.0.mar", "0" * 64)
NEW = Release("2.0", "lesion-2.0.mar", "1" * 64)


def test_entries_come_back_as_written_and_numbered(tmp_path):
    journal = Journal(tmp_path / "state")
    with journal.lock():
        first = journal.append("start", rollout="r1", model="lesion", candidate=NEW)
        second = journal.append("canary", rollout="r1", percent=5.0, step="canary 5 %")
    assert [first, second] == journal.entries() == Journal(tmp_path / "state").entries()
    assert (first.seq, second.seq, second.rollout, second.event) == (1, 2, "r1", "canary")
    assert 0 <= second.time - first.time < 60


def test_facts_named_like_a_field_change_what_is_desired(tmp_path):
    journal = Journal(tmp_path)
    assert fold(journal.entries()) == Desired() == Desired(seq=0, step="idle")
    with journal.lock():
        journal.append("start", rollout="r1", model="lesion", stable=OLD, serves=[OLD], salt="r1")
        journal.append("register", rollout="r1", candidate=NEW, serves=[OLD, NEW], step="register")
        journal.append("canary", rollout="r1", percent=5.0, step="canary 5 %", why="shadow held")
    assert fold(journal.entries()) == Desired(
        seq=3, model="lesion", stable=OLD, candidate=NEW, percent=5.0, salt="r1",
        serves=(OLD, NEW), rollout="r1", step="canary 5 %", split=3,
    )  # fmt: skip
    with journal.lock():
        journal.append(
            "rolled_back", rollout=None, candidate=None, percent=0.0, serves=[OLD], step="idle"
        )
    after = fold(journal.entries())
    assert (after.rollout, after.candidate, after.percent, after.serves) == (None, None, 0, (OLD,))
    assert after.stable == OLD


def test_a_torn_last_line_counts_for_nothing_and_is_cut_off_by_the_next(tmp_path):
    journal = Journal(tmp_path)
    with journal.lock():
        journal.append("start", rollout="r1")
        journal.append("canary", rollout="r1", percent=50.0)
    whole = journal.path.read_bytes()
    for kept in range(len(whole.splitlines(keepends=True)[0]), len(whole)):
        journal.path.write_bytes(whole[:kept])
        assert [entry.event for entry in journal.entries()] == ["start"]
    with journal.lock():
        journal.append("pause", rollout="r1", paused=True)
    assert [entry.event for entry in journal.entries()] == ["start", "pause"]
    assert [json.loads(line)["seq"] for line in journal.path.read_text().splitlines()] == [1, 2]


def test_a_line_as_long_as_the_torn_one_in_whose_place_it_comes_is_read(tmp_path):
    reader, journal = Journal(tmp_path), Journal(tmp_path)
    gateway = Supervisor([], tmp_path, GatewaySettings())
    with journal.lock():
        journal.append("start", rollout="r1")
        before = journal.path.read_bytes()
        journal.append("canary", rollout="r1", percent=50.0)
    when = journal.path.stat().st_mtime_ns
    whole = journal.path.read_bytes()

    def write(data):  # within one tick of the clock that dates files
        journal.path.write_bytes(data)
        os.utime(journal.path, ns=(when, when))

    write(before + b"x" * (len(whole) - len(before)))
    assert len(reader.entries()) == 1
    gateway._read_journal()
    assert gateway.desired.percent == 0
    write(whole)
    assert len(reader.entries()) == 2
    gateway._read_journal()
    assert gateway.desired.percent == 50
    journal.path.unlink()  # as while a copy is put back: what is so stays
    gateway._read_journal()
    assert gateway.desired.percent == 50


@pytest.mark.parametrize("line", ["{}", "[]", "no JSON", '{"seq": 7, "time": 0, "rollout": null}'])
def test_a_damaged_line_is_named(tmp_path, line):
    journal = Journal(tmp_path)
    with journal.lock():
        journal.append("start", rollout="r1")
    journal.path.write_text(journal.path.read_text() + line + "\n")
    with pytest.raises(UserError, match="line 2: "):
        journal.entries()


def test_a_line_that_is_missing_is_noticed(tmp_path):
    journal = Journal(tmp_path)
    with journal.lock():
        for _ in range(3):
            journal.append("note", rollout=None)
    first, _, third = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text(first + third)
    with pytest.raises(UserError, match="line 2"):
        journal.entries()


def test_only_the_holder_of_the_lock_writes(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(AssertionError):
        journal.append("start", rollout="r1")
    refused = pytest.raises(UserError, match=f"process {os.getpid()}")
    with journal.lock(), refused, Journal(tmp_path).lock():
        pass
    with Journal(tmp_path).lock():
        pass


def test_kill_9_frees_the_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from archives.state.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "with journal.lock():\n"
        "    journal.append('start', rollout='r1'); print('locked', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=f"process {other.pid}"), Journal(tmp_path).lock():
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
        with Journal(tmp_path).lock():
            assert [entry.event for entry in Journal(tmp_path).entries()] == ["start"]


def test_a_fact_that_is_no_json_is_a_fault(tmp_path):
    journal = Journal(tmp_path)
    with journal.lock(), pytest.raises(TypeError):
        journal.append("start", rollout="r1", store=tmp_path)
    assert not journal.path.exists()


def damaged_line(path):
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = '{"seq": 3, "time": 1.0, "rol\x00\n'
    path.write_text("".join(lines))


def of_an_ended_rollout(path):
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = json.dumps({"seq": 3, "time": 1.0, "rollout": None, "event": "rolled_back"}) + "\n"
    lines.append(json.dumps({"seq": 4, "time": 1.0, "rollout": "r1", "event": "pause"}) + "\n")
    path.write_text("".join(lines))


def of_a_newer_version(path):
    lines = path.read_text().splitlines(keepends=True)
    entry = json.loads(lines[2])
    lines[2] = json.dumps(entry | {"stable": {"release": "9"}}) + "\n"
    path.write_text("".join(lines))


@pytest.mark.parametrize(
    ("damage", "kept"), [(damaged_line, 2), (of_an_ended_rollout, 3), (of_a_newer_version, 2)]
)
def test_repair_cuts_off_what_cannot_be_read_on_and_keeps_a_copy(tmp_path, damage, kept):
    journal = Journal(tmp_path)
    with journal.lock():
        journal.append("deployed", rollout=None, stable=OLD)
        journal.append("start", rollout="r1")
        journal.append("canary", rollout="r1", percent=50.0)
        assert journal.repair() == (3, None)
        whole = journal.path.read_bytes().splitlines(keepends=True)
    damage(journal.path)
    damaged = journal.path.read_bytes()
    if damage is damaged_line:
        with pytest.raises(UserError, match=r"line 3: .* `sonode rollout repair --state"):
            journal.entries()
    with journal.lock():
        count, copy = journal.repair()
        assert (count, copy.read_bytes()) == (kept, damaged)
        assert journal.path.read_bytes().splitlines(keepends=True)[:2] == whole[:2]
        assert len(journal.entries()) == kept
        journal.append("start", rollout="r2")  # and it goes on
    assert fold(journal.entries()).rollout == "r2"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands files over")
def test_what_root_writes_is_the_owners(tmp_path):
    os.chown(tmp_path, 12345, -1)
    journal = Journal(tmp_path)
    assert not journal.is_locked()
    with journal.lock():
        journal.append("start", rollout="r1")
    (tmp_path / "new.mar").write_bytes(b"1")
    _keep_copy(tmp_path / "new.mar", tmp_path / "archives" / "m.mar", "")
    owners = {path.stat().st_uid for path in tmp_path.rglob("*") if path.name != "new.mar"}
    assert owners == {12345}


def test_rows_of_a_rollout_that_has_ended_are_separated_from_those_after_it(tmp_path):
    journal = Journal(tmp_path)
    splits = []
    with journal.lock():
        for event, facts in (
            ("deployed", {"rollout": None, "stable": OLD, "serves": [OLD]}),
            ("default", {"rollout": "r1", "stable": NEW, "serves": [OLD, NEW]}),
            ("keep", {"rollout": "r1", "step": "keep"}),
            ("retire", {"rollout": "r1", "step": "retire", "serves": [NEW]}),
            ("done", {"rollout": None, "step": "idle"}),
            ("allowed", {"rollout": None, "sha256": "0"}),
        ):
            journal.append(event, **facts)
            splits.append(fold(journal.entries()).split)
    assert splits == [1, 2, 2, 4, 5, 5]

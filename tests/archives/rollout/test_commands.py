"""`sonode rollout ...` and its report, on a state folder that is made up."""

from __future__ import annotations

import json
import math
import random
import re
import time
from pathlib import Path

import pytest

from archives.judging.reports.ab_report import quantile
from archives.state import control
from archives.state.journal import Journal, fold
from sonode.console import UserError
from tests.archives.states import NEW, run


def test_a_fault_under_way_is_no_refusal(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who starts the command again after a fault must be able to tell it from a refusal."""

    class Full:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def run(self) -> bool:
            raise OSError(28, "No space left on device")

    manifest = {"model": {"modelName": "m", "modelVersion": "2.0"}}
    monkeypatch.setattr("archives.rollout.start.Rollout", Full)
    monkeypatch.setattr(
        "archives.rollout.start.read_members", lambda path: (manifest, {"heads": []})
    )
    monkeypatch.setattr("archives.rollout.start.read_nodes", lambda path: ())
    monkeypatch.setattr("archives.rollout.start.file_sha256", lambda path: NEW.sha256)
    assert run("rollout", "start", "m-2.0.mar", "--state", state) == 75
    assert "No space left on device; re-run the same command" in capsys.readouterr().err


def test_status_as_text(state, capsys):
    assert run("rollout", "status", "--state", state) == 0
    said = capsys.readouterr().out
    assert "model    m: 2.0 for 50 % of studies, else 1.0" in said
    assert re.search(r"step     canary 50 %, for \d+ s", said)
    assert "command  not running: NOT MONITORED" in said
    assert "node     b: does not answer" in said
    assert re.search(r"errors +│ hold", said)
    assert "47 requests answered at this step" in said


def test_status_as_json(state, capsys):
    assert run("rollout", "status", "--state", state, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["desired"]["step"] == "canary 50 %"
    assert found["desired"]["candidate"]["version"] == "2.0"
    assert (found["running"], found["answered"]) == (False, 47)
    verdicts = {verdict["guard"]: verdict for verdict in found["verdicts"]}
    assert verdicts["unanswered"]["value"] == pytest.approx(3 / 50)
    assert set(verdicts) == {
        *("errors", "errors over time", "unanswered", "shift of malignancy"),
        *("failing against the old version", "slow against the old version"),
    }


def test_history(state, capsys):
    assert run("rollout", "history", "--state", state) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert re.fullmatch(r"   4  [\d-]+ [\d:]+  canary 50 %  all guards hold", lines[3])
    assert run("rollout", "history", "--state", state, "--json") == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["event"] for entry in entries] == ["deployed", "start", "shadow", "canary"]


def test_report(state, tmp_path, capsys):
    journal, folder = Journal(state), state / "gateway"
    time.sleep(0.05)
    with journal.lock():
        whole = journal.append("canary", rollout="2.0-x", step="canary 100 %", percent=100.0)
    for name in ("requests", "attempts"):  # nothing of the old version is set against these
        last = json.loads((folder / f"{name}.jsonl").read_text().splitlines()[50])
        late = last | {"t": whole.time + 5, "version": "2.0", "status": 503, "study": "late"}
        late |= {"seq": whole.seq}
        with (folder / f"{name}.jsonl").open("a") as file:
            file.write((json.dumps(late | {"tries": 2}) + "\n") * 9)
    assert run("rollout", "report", tmp_path / "out", "--state", state) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "report.html")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    old, new = found["arms"]["old"], found["arms"]["new"]
    assert (old["requests"], old["studies"]) == (50, 10)
    assert (new["requests"], new["studies"], new["status"]) == (50, 10, {"200": 47, "503": 3})
    assert (new["failed"]["count"], new["failed"]["share"]) == (3, 0.06)
    assert new["code"] == {"ok": 47, "unavailable": 3}
    assert 20 <= new["ms"]["p50"]["low"] <= new["ms"]["p50"]["value"] <= new["ms"]["p50"]["high"]
    assert new["ms"]["p99"]["high"] is None  # 47 values cannot say
    scores = found["scores"]["malignancy"]
    assert {arm: scores[arm]["n"] for arm in scores} == {
        "old": 50, "new": 47, "shadow": 30, "mirrored": 30,
    }  # fmt: skip
    assert sum(scores["shadow"]["histogram"]) == 30
    assert {arm for arm in scores if "ks_to_old" in scores[arm]} == {"new", "shadow"}
    # The one before the rollout is not its, nor those that the gateway refused.
    assert [(it["old"], it["new"], it["without_study"]) for it in found["steps"]] == [
        *((40, 0, 0), (50, 50, 7), (0, 9, 0)),
    ]
    assert [it["step"] for it in found["steps"] if it["compared"]] == ["canary 50 %"]
    assert found["requests"] == 40 + 107 + 9
    assert found["end"] == "canary"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "3: 6.00% (2.06% to 16.22%)" in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org|purl\.org|creativecommons)", page)
    for text in (page, json.dumps(found)):
        assert not re.search(r"\bs\d+\b|\bc1\d\b", text)  # no study


def test_report_counts_all_also_where_the_clock_was_set_back(state, tmp_path):
    journal, folder = Journal(state), state / "gateway"
    with journal.lock():
        journal.append("rollback", rollout="2.0-x", step="rollback", percent=0.0)
        journal.append("withdraw", rollout="2.0-x", step="withdraw", candidate=None)
        end = journal.append("rolled_back", rollout=None, step="idle")
        journal.append("allowed", rollout=None, sha256="")
    for name in ("requests", "attempts"):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for number, row in enumerate(rows):
            row["t"] += 600 * (number < 80)  # logged before it was set back
        rows.append(rows[-1] | {"t": end.time, "seq": end.seq, "tries": 1})  # of no rollout
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("rollout", "report", tmp_path / "out", "--state", state)
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (found["requests"], found["end"], found["to"]) == (40 + 107, "rolled_back", end.time)
    assert [found["arms"][arm]["requests"] for arm in ("old", "new")] == [50, 50]
    assert found["scores"]["malignancy"]["new"]["n"] == 47


def test_report_of_a_rollout_that_came_to_no_canary(state, tmp_path):
    lines = (state / "journal.jsonl").read_text().splitlines(keepends=True)
    (state / "journal.jsonl").write_text("".join(lines[:-1]))
    run("rollout", "report", tmp_path / "out", "--state", state)
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (found["arms"], found["requests"]) == ({}, 40 + 107)
    assert [it["step"] for it in found["steps"]] == ["shadow", "not in the journal"]
    assert set(found["scores"]["malignancy"]) == {"mirrored", "shadow"}
    assert "None: no canary step had any" in (tmp_path / "out" / "report.html").read_text()


def test_intervals_by_hand():
    found = quantile(range(1, 101), 0.5)  # ranks 50 -+ 1.96 * 5: 40 and 60
    assert (found["value"], found["low"], found["high"]) == (50.5, 40, 60)
    assert quantile([5.0], 0.95) == {"value": 5.0, "low": None, "high": None}


def test_order_statistics_cover():
    random_ = random.Random(0)
    true = -math.log(0.05)  # p95 of an exponential
    hits = 0
    for _ in range(400):
        found = quantile([random_.expovariate(1) for _ in range(300)], 0.95)
        hits += found["low"] <= true <= found["high"]
    assert hits / 400 > 0.92


def test_promote_needs_a_running_command(state):
    with pytest.raises(UserError, match=r"no rollout command .*then promote"):
        run("rollout", "promote", "--state", state)


def test_pause_and_resume_without_a_running_command(state, capsys):
    run("rollout", "pause", "--state", state)
    assert "NOT MONITORED" in capsys.readouterr().out
    assert (state / "journal.jsonl").stat().st_mode & 0o777 == 0o600
    paused = Journal(state).entries()[-1]
    assert paused.facts["by"] == control.operator()
    run("rollout", "history", "--state", state)
    assert f"by hand · by {control.operator()}" in capsys.readouterr().out
    assert fold(Journal(state).entries()).paused
    run("rollout", "resume", "--state", state)
    assert not fold(Journal(state).entries()).paused


@pytest.mark.parametrize("word", ["pause", "resume", "abort"])
def test_a_command_is_judged_by_what_is_so_once_nobody_else_writes(state, word, monkeypatch):
    """`abort` in another terminal ends the rollout between the look and the lock."""
    is_locked = Journal.is_locked

    def meanwhile(journal):
        other = Journal(state)
        with other.lock():
            other.append("rolled_back", rollout=None, step="idle")
        return is_locked(journal)

    monkeypatch.setattr(Journal, "is_locked", meanwhile)
    with pytest.raises(UserError, match=f"nothing to {word}"):
        run("rollout", word, "--state", state)
    assert Journal(state).entries()[-1].event == "rolled_back"


def test_repair_says_what_it_keeps(state, capsys):
    assert run("rollout", "repair", "--state", state) == 0
    assert "4 entries; nothing is changed" in capsys.readouterr().out
    with (state / "journal.jsonl").open("a") as file:
        file.write("nothing\n")
    assert run("rollout", "repair", "--state", state) == 0
    assert "4 entries are kept; the damaged journal is now" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["promote", "pause", "resume", "abort"])
def test_commands_to_a_running_command(state, word, capsys):
    with Journal(state).lock():
        run("rollout", word, "--state", state)
        assert capsys.readouterr().out.startswith(f"{word}: sent at canary 50 %")
    assert control.asked(state, 4) == control.Asked(word, control.operator(), 4)


@pytest.mark.parametrize("word", ["promote", "pause", "resume", "abort"])
def test_commands_that_come_too_late(state, word):
    journal = Journal(state)
    with journal.lock():
        journal.append("retire", rollout="2.0-x", step="retire")
    with pytest.raises(UserError, match=f"too late to {word} at step retire"):
        run("rollout", word, "--state", state)
    with journal.lock():
        journal.append("done", rollout=None, step="idle")
    with pytest.raises(UserError, match=f"nothing to {word}"):
        run("rollout", word, "--state", state)


@pytest.mark.parametrize("command", ["status", "history", "promote", "report"])
def test_a_folder_without_a_journal(tmp_path, command):
    out = [tmp_path / "out"] if command == "report" else []
    with pytest.raises(UserError, match=r"--state .*no rollout"):
        run("rollout", command, *out, "--state", tmp_path / "none")
    assert not (tmp_path / "none").exists()

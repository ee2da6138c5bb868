"""archives/judging/step_log.py: which of the gateway's rows are a step's."""

import json

import pytest

from archives.judging.journal_facts import facts_of, step_entry
from archives.judging.step_log import StepView, answered_by
from archives.rollout.status import status
from archives.state.journal import Journal
from tests.archives.states import begin, row


def test_keep_answers_for_what_came_since_the_default_changed(steps, tmp_path):
    journal = Journal(tmp_path)
    counted = {}
    for step in ("drain", "keep"):
        if step == "keep":
            with journal.lock():
                journal.append("keep", rollout="x", step="keep")
        entries = journal.entries()
        facts = facts_of(entries)
        view = StepView(tmp_path, facts, "alone", step_entry(entries))
        assert view.watch.since == steps["default"].seq
        counted[step] = {it.guard: it.n for it in view.verdicts()}["unanswered"]
        assert [it.n for it in status(tmp_path).verdicts if it.guard == "unanswered"] == [2]
    assert counted == {"drain": 2, "keep": 2}  # of default and drain, not of the canary


def test_other_steps_begin_with_themselves(steps, tmp_path):
    facts = facts_of(Journal(tmp_path).entries())
    step = steps["canary 100 %"]
    assert StepView(tmp_path, facts, "alone", step).watch.since == step.seq


def test_a_canary_is_judged_by_its_own_percent(tmp_path):
    journal = Journal(tmp_path)
    with journal.lock():
        begin(journal, "verify")
        step = journal.append("canary", rollout="x", step="canary 25 %", percent=25.0)
        journal.append("canary", rollout="x", step="canary 50 %", percent=50.0)
    view = StepView(tmp_path, facts_of(journal.entries()), "canary", step)
    (failing,) = (it for it in view.verdicts() if it.guard == "failing against the old version")
    # Of failing studies 25 % are the new version's; with twice the odds, 50 to 75.
    assert failing.limit == pytest.approx(0.4)


def test_what_the_old_version_fails_counts_in_a_log_that_is_read_late(tmp_path):
    """Guards wait 300 s for the other half of a mirrored request; the logs have 490 s."""
    journal = Journal(tmp_path)
    with journal.lock():
        begin(journal, "shadow")
    failed = {"version": "1.0", "status": 500, "code": "inference_failed", "seq": 2}
    requests, attempts = [], []
    for t in range(1000, 1500, 10):
        mine = {"id": f"r{t}", "study": f"s{t}"}
        attempts += [row(t, **failed | mine), row(t, seq=2, arm="shadow", **mine)]
        requests.append(row(t, **failed | mine))
    (tmp_path / "gateway").mkdir()
    for name, rows in (("requests", requests), ("attempts", attempts)):
        lines = "".join(json.dumps(it) + "\n" for it in rows)
        (tmp_path / "gateway" / f"{name}.jsonl").write_text(lines)
    entries = journal.entries()
    view = StepView(tmp_path, facts_of(entries), "shadow", step_entry(entries))
    found = {it.guard: it for it in view.verdicts()}["failing against the old version"]
    assert (found.n, found.value) == (49, 0)  # the study of the last of 50 is not over


def test_how_many_requests_a_version_has_answered(tmp_path):
    (tmp_path / "gateway").mkdir()
    rows = [
        row(1.0),  # before
        row(3.0), row(4.0, status=503, tries=2), row(5.0, version="1.0"),
        *(row(6.0, status=status, tries=0) for status in (401, 404, 405, 413, 429)),
    ]  # fmt: skip
    (tmp_path / "gateway" / "requests.jsonl").write_text(
        "".join(json.dumps(it) + "\n" for it in rows)
    )
    assert answered_by(tmp_path, "2.0", 2) == 2

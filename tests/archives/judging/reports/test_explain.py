"""`sonode rollout explain`, on a state folder that is made up."""

import json

import pytest

from archives.judging.reports.explain import explain
from archives.state.journal import Journal
from sonode.console import UserError
from tests.archives.states import NEW, row, run


def test_each_judged_step_with_its_counts(state, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("rollout", "explain", out, "--state", state) == 0
    assert capsys.readouterr().out.strip() == str(out / "explain.html")
    found = json.loads((out / "explain.json").read_text())
    shadow, canary = found["steps"]
    assert [(it["step"], it["under_way"]) for it in found["steps"]] == [
        *(("shadow", False), ("canary 50 %", True)),
    ]
    assert {it["version"]: it["requests"] for it in shadow["clients"]} == {"1.0": 30, "2.0": 30}
    assert shadow["failing"] == []
    assert canary["answered"] == 47
    assert canary["clients"] == [
        {"client": "pacs", "version": version, "studies": 10, "requests": 50, "failed": failed,
         "load": 0, "given_up": 0}
        for version, failed in (("1.0", 0), ("2.0", 3))
    ]  # fmt: skip
    assert [(it["study"], it["failed"], it["statuses"]) for it in canary["failing"]] == [
        (study, 1, {"503": 1}) for study in ("c1", "c3", "c5")
    ]
    guards = {it["guard"]: it for it in canary["guards"]}
    assert guards["unanswered"]["value"] == pytest.approx(3 / 50)
    page = (out / "explain.html").read_text()
    assert guards["unanswered"]["detail"] in page
    assert "<script" not in page


@pytest.mark.parametrize("text", ["detail", "said"])
def test_a_rollback_is_reported_as_the_journal_has_it(text, state, tmp_path):
    """An older version's verdicts have their text in `said`: they are counted again."""
    verdict = {"guard": "errors", "state": "failed", "value": 0.5, "limit": 0.01, "n": 7,
               "evidence": 1.0, text: "errors: <b>"}  # fmt: skip
    journal = Journal(state)
    with journal.lock():
        journal.append("rollback", rollout="2.0-x", step="rollback", percent=0.0, guard="errors",
                       said="errors: <b>", verdicts=[verdict])  # fmt: skip
    assert run("rollout", "explain", tmp_path / "out", "--state", state) == 0
    step = json.loads((tmp_path / "out" / "explain.json").read_text())["steps"][-1]
    assert (step["guards"] == [verdict], step["recounted"]) == (text == "detail", text == "said")
    page = (tmp_path / "out" / "explain.html").read_text()
    assert "errors: &lt;b&gt;" in page
    assert "<b>" not in page


def test_refused_with_nothing_written(state, tmp_path):
    with pytest.raises(UserError, match=r"--state .*no rollout"):
        run("rollout", "explain", tmp_path / "out", "--state", tmp_path / "none")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="is not empty"):
        run("rollout", "explain", state, "--state", state)
    assert not (state / "explain.json").exists()


def test_what_comes_after_keep_is_not_counted_in_it(steps, tmp_path):
    journal = Journal(tmp_path)
    with journal.lock():
        journal.append("keep", rollout="x", step="keep")
        retire = journal.append(
            "retire", rollout="x", step="retire", after="keep", why="all guards hold", serves=[NEW]
        )
        done = journal.append("done", rollout=None, step="idle")
    # A clock that was set back since, by ten minutes.
    rows = [row(float(steps["default"].seq), status=503, study="s3") | {"t": done.time + 600}]
    rows += [row(float(it.seq), status=503, study="late") | {"t": it.time} for it in (retire, done)]
    with (tmp_path / "gateway" / "requests.jsonl").open("a") as file:
        file.writelines(json.dumps(it) + "\n" for it in rows)
    keep = explain(tmp_path)["steps"][-1]
    assert (keep["step"], keep["ended"]) == ("keep", "all guards hold")
    assert [it["study"] for it in keep["failing"]] == ["s1", "s2", "s3"]


def test_a_failure_is_reported_with_what_the_other_version_did(state, tmp_path):
    log = state / "gateway" / "requests.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    failed = [it for it in rows if it["status"] == 503]
    failed[0]["replay"], failed[1]["replay"] = "500", "200"
    log.write_text("".join(json.dumps(it) + "\n" for it in rows))
    failing = explain(state)["steps"][-1]["failing"]
    assert [(it["replayed"], it["other"]) for it in failing] == [
        (1, {"500": 1}), (1, {"200": 1}), (0, {}),
    ]  # fmt: skip


def test_a_shadow_that_fails_is_reported_with_the_old_answer(state, tmp_path):
    log = state / "gateway" / "attempts.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    shadows = [it for it in rows if it["arm"] == "shadow"]
    shadows[0] |= {"status": 500, "code": "inference_failed"}
    shadows[1] |= {"status": 503, "code": "busy"}
    log.write_text("".join(json.dumps(it) + "\n" for it in rows))
    shadow = explain(state)["steps"][0]
    (failing,) = shadow["failing"]
    assert (failing["version"], failing["statuses"]) == ("2.0", {"500": 1})
    assert failing["other"] == {"200": 1}
    new = next(it for it in shadow["clients"] if it["version"] == "2.0")
    assert (new["requests"], new["failed"], new["load"]) == (30, 1, 1)

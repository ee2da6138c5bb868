"""archives/guards.py: which guard says what, of logs that are made up."""

import math
import os
import random
import re
from pathlib import Path

import pytest

from archives import gateway_logs
from archives.gateway_logs import OWN_CODES, LogTail, labels, scores
from archives.guards import Watch, count_tests
from archives.policy import Policy

OLD, NEW = "1.0", "2.0"
HEADS = ("malignancy", "alnm")


class Traffic:
    """Attempts of both versions, one of each every `pace` seconds, by default alike."""

    def __init__(self, seed: int = 0, pace: float = 0.1) -> None:
        self.random = random.Random(seed)
        self.now, self.pace, self.number = 1000.0, pace, 0

    def row(self, version: str, **facts: object) -> dict[str, object]:
        p = facts.pop("p", None) or self.random.betavariate(2, 2)
        label = "malignant" if p > 0.5 else "benign"
        return {
            "t": self.now, "id": f"r{self.number}", "arm": "stable", "version": version,
            "node": "a", "status": 200, "code": "ok", "ms": int(self.random.lognormvariate(3, 0.5)),
            "scores": f"malignancy={p:.4f};alnm={p / 2:.4f}",
            "labels": f"malignancy={label};alnm=no ALNM", "study": f"s{self.number}",
        } | facts  # fmt: skip

    def pairs(self, watch: Watch, count: int, **new: object) -> None:
        for _ in range(count):
            self.number += 1
            self.now += self.pace
            p = self.random.betavariate(2, 2)
            watch.add_attempt(self.row(OLD, p=p))
            made = {key: value(self) if callable(value) else value for key, value in new.items()}
            watch.add_attempt(self.row(NEW, **{"p": p, "id": f"r{self.number}"} | made))


FAILED = {"status": 500, "code": "inference_failed", "scores": "", "labels": ""}
NO_WORKER = {"status": 503, "code": "unavailable", "scores": "", "labels": ""}
NOT_AN_IMAGE = {"status": 500, "code": "gateway_failed", "scores": "", "labels": ""}
"""What TorchServe itself says, for any version, of a body that is not the form it says it is."""


def watch(kind: str = "shadow", since: float = 0, **policy: object) -> Watch:
    return Watch(Policy(**policy), kind, old=OLD, new=NEW, heads=HEADS, since=since)


def states(watch: Watch) -> dict[str, str]:
    return {verdict.guard: verdict.state for verdict in watch.verdicts()}


def test_no_evidence_is_no_evidence():
    # An archive that was packed before handlers told their scores: only errors and times are seen.
    judged = watch()
    Traffic().pairs(judged, 100, code="", scores="", labels="")
    assert states(judged)["errors"] == "ok"
    assert states(judged)["flips of alnm"] == "hold"


@pytest.mark.parametrize("kind", ["shadow", "canary", "alone"])
def test_two_that_are_alike_pass(kind):
    judged = watch(kind)
    Traffic().pairs(judged, 1000)
    assert set(states(judged).values()) == {"ok"}
    assert judged.answered == 1000
    assert max(verdict.evidence for verdict in judged.verdicts()) < 0.8


def test_one_that_fails_now_and_then():
    judged, traffic = watch(), Traffic()
    for _ in range(20):
        traffic.pairs(judged, 19)
        traffic.pairs(judged, 1, **FAILED)
    assert states(judged)["errors"] == "failed"
    (said,) = (v.said for v in judged.verdicts() if v.guard == "errors")
    assert said == "errors: 5.00% of 400, limit 1.00%"


def test_what_fails_in_both_at_the_same_time_is_not_held_against_the_new_one():
    judged, traffic = watch("canary"), Traffic()
    for number in range(400):
        refused = {"status": 422, "code": "unreadable_image", "scores": "", "labels": ""}
        facts = refused if number % 2 else {}
        traffic.number += 1
        traffic.now += 0.1
        for version in (OLD, NEW):
            judged.add_attempt(traffic.row(version, **facts))
    assert states(judged)["failing against the old version"] == "ok"


def bodies_that_fail(judged: Watch, traffic: Traffic, seconds: int, **share: float) -> set[str]:
    """One request a second, of which a share fails at both nodes: `of_old`, `of_new`.

    In the shadow both versions get each; in the canary every fourth goes to the new one. Returns
    the guards that would have sent it back, with a look after each request.
    """
    failed: set[str] = set()
    for _ in range(seconds):
        traffic.number += 1
        traffic.now += 1
        chance, p = traffic.random.random(), traffic.random.betavariate(2, 2)
        to_new = traffic.number % 4 == 0
        for version, of in ((OLD, "of_old"), (NEW, "of_new")):
            if judged.kind == "canary" and to_new != (version == NEW):
                continue
            facts = NOT_AN_IMAGE if chance < share[of] else {"p": p}
            judged.add_attempt(traffic.row(version, **facts))
            if facts is NOT_AN_IMAGE and judged.kind == "canary":  # tried again
                judged.add_attempt(traffic.row(version, node="b", **facts))
            judged.add_request(traffic.row(version, tries=1, **facts))
        failed |= {guard for guard, state in states(judged).items() if state == "failed"}
    return failed


@pytest.mark.parametrize("kind", ["shadow", "canary"])
@pytest.mark.parametrize("seed", range(3))
def test_bodies_that_fail_with_either_version_send_none_back(kind, seed):
    judged = watch(kind)
    assert not bodies_that_fail(judged, Traffic(seed), 1500, of_old=0.04, of_new=0.04)
    errors = judged.verdicts()[0]
    assert errors.state == "ok"
    assert errors.said.endswith("limit 1.00%, but the old version's, too")
    # The limit alone would have sent it back; where no old version answers, it does.
    lone = watch("alone")
    assert "errors" in bodies_that_fail(lone, Traffic(seed), 1500, of_old=0.04, of_new=0.04)


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_bodies_that_fail_with_the_new_version_only_send_it_back(kind):
    failed = bodies_that_fail(watch(kind), Traffic(), 2000, of_old=0, of_new=0.08)
    assert "errors" in failed
    assert kind == "shadow" or "unanswered" in failed


def test_what_fails_with_the_old_version_holds_no_step_and_what_does_not_does():
    judged, traffic = watch(), Traffic()
    traffic.pairs(judged, 95)
    traffic.pairs(judged, 2, **FAILED)
    traffic.pairs(judged, 3)
    assert states(judged)["errors"] == "hold"
    for number in range(3):
        judged.add_attempt(traffic.row(NEW, id=f"n{number}"))  # which closes the pair before it
        judged.add_attempt(traffic.row(OLD, **FAILED))
    assert states(judged)["errors"] == "ok"


def test_in_the_canary_the_old_version_is_compared_on_studies_only():
    # All that have no study stay on the old one, whatever they are.
    judged, traffic = watch("canary"), Traffic()
    for _ in range(400):
        traffic.number += 1
        traffic.now += 6
        facts = FAILED if traffic.number % 10 == 0 else {}
        judged.add_attempt(traffic.row(NEW, **facts))
        judged.add_attempt(traffic.row(OLD, study="", **FAILED))
        judged.add_attempt(traffic.row(OLD))
    assert states(judged)["errors"] == "failed"


def test_a_second_try_hides_no_failure_of_the_first():
    judged, traffic = watch("canary"), Traffic()
    for _ in range(300):
        traffic.number += 1
        traffic.now += 1
        if traffic.number % 10 == 1:
            judged.add_attempt(traffic.row(NEW, **FAILED))
        judged.add_attempt(traffic.row(NEW, node="b"))
        traffic.number += 1
        judged.add_attempt(traffic.row(OLD))
    assert states(judged)["errors"] == "failed"


def test_one_that_refuses_what_the_old_version_scores():
    judged = watch("canary")
    Traffic().pairs(judged, 60, status=422, code="unreadable_image", scores="", labels="")
    assert states(judged)["errors"] == "ok"  # a refusal is no 5xx
    assert states(judged)["failing against the old version"] == "failed"


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_one_that_is_slow(kind):
    judged, traffic = watch(kind), Traffic(pace=0.5)
    traffic.pairs(judged, 300, ms=lambda it: int(3 * it.random.lognormvariate(3, 0.5)))
    found = {guard.split()[0]: state for guard, state in states(judged).items()}
    assert found["slow"] == "failed"


def test_a_worker_that_is_started_anew_is_not_enough():
    judged, traffic = watch("canary"), Traffic(pace=0.05)
    traffic.pairs(
        judged, 50, status=503, code="unavailable", scores="", labels=""
    )  # from the start
    traffic.pairs(judged, 200)
    traffic.pairs(judged, 8, status=503, code="unavailable", scores="", labels="")  # its batches
    traffic.pairs(judged, 100, ms=5000)  # five seconds
    traffic.pairs(judged, 200)
    assert "failed" not in states(judged).values()


def test_unsigned_failures_of_one_moment_are_one_and_those_with_a_code_are_all_counted():
    judged, traffic = watch(), Traffic(pace=0.01)
    traffic.pairs(judged, 50, status=503, code="unavailable", scores="", labels="")
    assert judged.verdicts()[0].n == 1
    traffic.pairs(judged, 50, **FAILED)
    assert judged.verdicts()[0].n == 51


@pytest.mark.parametrize("kind", ["shadow", "canary", "alone"])
def test_a_flood_of_unsigned_failures_is_seen_however_many_requests_come(kind):
    # 100 a second, 30 % of them 503: counted once in five seconds and node they are 0.3 %.
    judged, traffic = watch(kind), Traffic(pace=0.01)
    for _ in range(9000):
        failed = traffic.random.random() < 0.3
        traffic.pairs(judged, 1, node=traffic.random.choice("ab"), **(NO_WORKER if failed else {}))
    verdicts = {verdict.guard: verdict for verdict in judged.verdicts()}
    assert verdicts["errors"].value < 0.01
    flood = verdicts["errors over time"]
    assert (flood.state, flood.n) == ("failed", pytest.approx(34, abs=2))  # 90 s on two nodes
    assert flood.value == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_a_flood_that_the_old_version_has_too_sends_none_back(kind):
    judged, traffic = watch(kind), Traffic(pace=0.01)
    for _ in range(6000):
        traffic.now += traffic.pace
        for version in random.Random(traffic.number).sample([OLD, NEW], 2):
            traffic.number += 1
            facts = NO_WORKER if traffic.random.random() < 0.3 else {}
            judged.add_attempt(traffic.row(version, **facts))
    found = {v.guard: v for v in judged.verdicts()}["errors over time"]
    assert found.value == pytest.approx(0.3, abs=0.03)
    assert found.state == "ok"


@pytest.mark.parametrize("kind", ["shadow", "canary", "alone"])
def test_the_death_of_a_worker_is_a_window_and_does_not_hold_a_step(kind):
    judged, traffic = watch(kind), Traffic(pace=0.0625)
    traffic.pairs(judged, 80)  # five seconds
    traffic.pairs(judged, 80, **NO_WORKER)
    traffic.pairs(judged, 241)
    found = {v.guard: v for v in judged.verdicts()}["errors over time"]
    assert (found.n, found.value, found.state) == (5, pytest.approx(0.2), "ok")


def test_a_node_that_is_down_for_one_version_only_is_not_enough():
    # A second passes until the gateway knows where a new version is.
    judged, traffic = watch("shadow"), Traffic(pace=0.01)
    traffic.pairs(judged, 150, status=503, code="node_unreachable", scores="", labels="")
    verdicts = {verdict.guard: verdict for verdict in judged.verdicts()}
    assert verdicts["failing against the old version"].n == 1
    assert verdicts["failing against the old version"].state == "ok"
    assert "failed" not in states(judged).values()


def test_flips_and_differences_by_head():
    judged = watch(max_difference=0.3)
    Traffic().pairs(judged, 100, p=lambda it: it.random.betavariate(2, 2))
    found = states(judged)
    assert found["flips of malignancy"] == "failed"
    assert found["flips of alnm"] == "ok"  # always "no ALNM"
    judged = watch()
    traffic = Traffic()
    for _ in range(200):
        traffic.number += 1
        p = 0.6 + 0.2 * traffic.random.random()
        judged.add_attempt(traffic.row(OLD, p=p))
        judged.add_attempt(traffic.row(NEW, p=p + 0.15))
    found = states(judged)
    assert found["flips of malignancy"] == "ok"
    assert found["difference of malignancy"] == "failed"
    values = {v.guard: v.value for v in judged.verdicts()}
    assert values["difference of malignancy"] == pytest.approx(0.15)
    assert values["difference of alnm"] == pytest.approx(0.075, abs=1e-4)


def test_a_study_counts_once():
    judged = watch()
    Traffic().pairs(judged, 50, study="the same", p=0.99)
    assert {v.n for v in judged.verdicts() if v.guard.startswith("flips")} == {1}
    judged = watch()
    Traffic().pairs(judged, 50, study="")
    assert {v.n for v in judged.verdicts() if v.guard.startswith("flips")} == {50}


def test_scores_that_have_shifted_between_arms():
    judged, traffic = watch("canary"), Traffic()
    for _ in range(300):
        traffic.number += 1
        judged.add_attempt(traffic.row(OLD))
        traffic.number += 1
        judged.add_attempt(traffic.row(NEW, p=traffic.random.betavariate(8, 2)))
    found = states(judged)
    assert found["shift of malignancy"] == "failed"
    assert found["errors"] == "ok"


def test_too_few_studies_hold():
    judged = watch("canary")
    Traffic().pairs(judged, 19)
    assert states(judged)["shift of alnm"] == "hold"
    Traffic().pairs(judged, 200, study="")  # without a study, nothing to be judged by
    assert states(judged)["shift of alnm"] == "hold"


@pytest.mark.parametrize(("old", "state"), [(200, "failed"), (503, "ok")])
def test_requests_that_end_without_an_answer(old, state):
    judged = watch("canary")
    for number in range(50):
        row = {"t": number + 1.0, "ms": 1, "id": f"r{number}", "study": "s", "tries": 2}
        if number < 20:
            judged.add_request(row | {"version": NEW, "status": 503})
        judged.add_request(row | {"version": OLD, "status": old})
    found = {verdict.guard: verdict for verdict in judged.verdicts()}["unanswered"]
    assert (found.state, found.n) == (state, 20)


def test_what_the_gateway_refuses_itself_is_no_request_of_the_version():
    judged, traffic = watch("alone"), Traffic()
    for status in (401, 404, 405, 413, 429) * 100:
        judged.add_request(traffic.row(NEW, status=status, code="refused", tries=0))
    for status in (200, 503):
        judged.add_request(traffic.row(NEW, status=status, tries=1))
    found = {verdict.guard: verdict for verdict in judged.verdicts()}["unanswered"]
    assert (found.n, found.value) == (2, 0.5)


def test_what_began_before_the_step_is_not_judged():
    judged, traffic = watch(since=2000.0), Traffic()
    traffic.pairs(judged, 100, **FAILED)
    assert (judged.answered, states(judged)["errors"]) == (0, "ok")
    traffic.now = 2000.5
    traffic.pairs(judged, 1, ms=1000)  # ends in the step, began before
    assert judged.answered == 0
    traffic.pairs(judged, 1, ms=1)
    assert judged.answered == 1


def test_mirrored_answers_meet_in_either_order_and_after_a_second_try():
    judged, traffic = watch(), Traffic()
    traffic.number = 1
    judged.add_attempt(traffic.row(OLD, status=503, code="node_unreachable", scores="", labels=""))
    judged.add_attempt(traffic.row(NEW, p=0.9))
    judged.add_attempt(traffic.row(OLD, p=0.8))
    counts = {v.guard: (v.n, v.value) for v in judged.verdicts()}
    assert counts["difference of malignancy"] == (1, pytest.approx(0.1))


def test_false_alarms_of_all_guards_together():
    # Looked at after every request, of 40 rollout steps with nothing wrong none may be sent back.
    for seed in range(40):
        judged, traffic = watch("shadow" if seed % 2 else "canary"), Traffic(seed, pace=1.0)
        for _ in range(25):
            traffic.pairs(judged, 10)
            assert "failed" not in states(judged).values()


def test_how_many_tests_share_the_level():
    assert count_tests(Policy(), HEADS) == 4 + 4 + 4 * 7 + 6
    assert watch().needed == pytest.approx(math.log(42 / 0.01))


def test_a_log_is_followed_line_by_line(tmp_path):
    tail = LogTail(tmp_path / "attempts.jsonl")
    assert list(tail.rows()) == []
    (tmp_path / "attempts.jsonl").write_text('{"t": 1}\n{"t": 2')
    assert [row["t"] for row in tail.rows()] == [1]
    with (tmp_path / "attempts.jsonl").open("a") as file:
        file.write('}\n{"t": 3}\n')
    assert [row["t"] for row in tail.rows()] == [2, 3]
    assert list(tail.rows()) == []
    # The gateway moves it aside; its workers go on writing to the moved one for a moment.
    moved = (tmp_path / "attempts.jsonl").rename(tmp_path / "attempts-20260101T000000.0Z.jsonl")
    (tmp_path / "attempts.jsonl").write_text('{"t": 5}\n')
    with moved.open("a") as file:
        file.write('{"t": 4}\n')
    assert [row["t"] for row in tail.rows()] == [4, 5]
    assert [row["t"] for row in LogTail(tail.path).rows()] == [1, 2, 3, 4, 5]
    os.utime(moved, (1000, 1000))
    assert [row["t"] for row in LogTail(tail.path, since=2000).rows()] == [5]


def test_scores_and_labels_of_a_row():
    row = {
        "scores": "malignancy=0.8312;alnm=0.2100",
        "labels": "malignancy=malignant;alnm=no%20ALNM",
    }
    assert scores(row) == {"malignancy": 0.8312, "alnm": 0.21}
    assert labels(row) == {"malignancy": "malignant", "alnm": "no ALNM"}
    assert scores({"scores": ""}) == {}


def test_the_gateways_own_codes_are_those_of_its_configuration():
    template = (Path(gateway_logs.__file__).parent / "nginx.conf.j2").read_text()
    refusals = re.search(r"map \$status \$refusal \{(.*?)\}", template, re.DOTALL)[1]
    assert set(re.findall(r"\d+ (\w+);", refusals)) | {""} == OWN_CODES

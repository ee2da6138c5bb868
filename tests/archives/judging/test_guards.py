"""archives/judging/guards.py: which guard says what, of logs that are made up."""

import math
import random
import re
from pathlib import Path

import pytest

from archives.gateway.configuration import render
from archives.gateway.logs import OWN_CODES
from archives.judging.guards import Watch, count_tests
from archives.judging.rollout_policy import Policy

OLD, NEW = "1.0", "2.0"
HEADS = ("malignancy", "alnm")
FAILED = {"status": 500, "code": "inference_failed", "scores": "", "labels": ""}
NO_WORKER = {"status": 503, "code": "unavailable", "scores": "", "labels": ""}
REFUSED = {"status": 422, "code": "unreadable_image", "scores": "", "labels": ""}


class Traffic:
    """Requests, one every `pace` seconds, each of a study of its own unless said otherwise."""

    def __init__(self, seed: int = 0, pace: float = 0.1) -> None:
        self.random = random.Random(seed)
        self.now, self.pace, self.number, self.seq = 1000.0, pace, 0, 7

    def row(self, version: str, **facts: object) -> dict[str, object]:
        p = facts.pop("p", None) or self.random.betavariate(2, 2)
        label = "malignant" if p > 0.5 else "benign"
        return {
            "t": self.now, "id": f"r{self.number}", "client": "pacs", "arm": "stable",
            "version": version, "node": "a", "status": 200, "code": "ok", "tries": 1,
            "seq": self.seq, "ms": int(self.random.lognormvariate(3, 0.5)),
            "scores": f"malignancy={p:.4f};alnm={p / 2:.4f}",
            "labels": f"malignancy={label};alnm=no ALNM", "study": f"s{self.number}",
        } | facts  # fmt: skip

    def next(self) -> None:
        self.number += 1
        self.now += self.pace

    def pairs(
        self, watch: Watch, count: int, old: dict[str, object] | None = None, **new: object
    ) -> None:
        """Mirrored requests: both versions get each."""
        for _ in range(count):
            self.next()
            p = self.random.betavariate(2, 2)
            before = {"p": p} | (old or {})
            made = {key: value(self) if callable(value) else value for key, value in new.items()}
            study = made.get("study", f"s{self.number}")
            watch.add_attempt(self.row(OLD, **before | {"study": study}))
            watch.add_attempt(self.row(NEW, **{"p": p, "arm": "shadow"} | made))
            watch.add_request(self.row(OLD, **before | {"study": study}))

    def ask(self, watch: Watch, version: str, count: int = 1, **facts: object) -> None:
        """Requests that one version answers."""
        for _ in range(count):
            self.next()
            made = {key: value(self) if callable(value) else value for key, value in facts.items()}
            row = self.row(version, **made)
            # A request has the word of its last try alone: those that failed are attempts.
            for status in map(int, str(made.get("statuses", "")).split(", ")[:-1] or ()):
                words = {"status": status, "scores": "", "labels": ""}
                watch.add_attempt(row | words)
            row["code"] = "ok" if row["status"] == 200 else row["code"]
            watch.add_attempt(row)
            watch.add_request(row)

    def both(self, watch: Watch, count: int, **new: object) -> None:
        """As the step has it: mirrored, one of each, or all to the new one; then time goes by."""
        for _ in range(count):
            if watch.kind == "shadow":
                self.pairs(watch, 1, **new)
            else:
                if watch.kind == "canary":
                    self.ask(watch, OLD)
                self.ask(watch, NEW, **new)

    def wait(self, watch: Watch, seconds: float = 5.0) -> None:
        """Until what is open is over: a request of the old version that is of no study."""
        self.now += seconds
        self.number += 1
        watch.add_request(self.row(OLD, study=""))


def watch(kind: str = "shadow", since: int = 0, **policy: object) -> Watch:
    return Watch(Policy(**policy), kind, old=OLD, new=NEW, heads=HEADS, since=since, percent=50)


def verdict(watch: Watch, guard: str):
    return next(it for it in watch.verdicts() if it.guard == guard)


def states(watch: Watch) -> dict[str, str]:
    return {it.guard: it.state for it in watch.verdicts()}


def failed(watch: Watch) -> set[str]:
    return {guard for guard, state in states(watch).items() if state == "failed"}


def test_no_evidence_is_no_evidence():
    # An archive that was packed before handlers told their scores: only errors and times are seen.
    judged, traffic = watch(), Traffic()
    traffic.pairs(
        judged, 100, old={"code": "", "scores": "", "labels": ""}, code="", scores="", labels=""
    )
    traffic.wait(judged)
    assert states(judged)["errors"] == "ok"
    assert states(judged)["flips of alnm"] == "hold"


@pytest.mark.parametrize("kind", ["shadow", "canary", "alone"])
def test_two_that_are_alike_pass(kind):
    judged, traffic = watch(kind), Traffic()
    traffic.both(judged, 1000)
    traffic.wait(judged)
    assert set(states(judged).values()) == {"ok"}
    assert (judged.answered, judged.studies, judged.load) == (1000, 1000, 0)
    assert max(it.evidence for it in judged.verdicts()) < 0.8


@pytest.mark.parametrize("kind", ["shadow", "canary", "alone"])
def test_one_that_fails_now_and_then(kind):
    judged, traffic = watch(kind), Traffic()
    for _ in range(30):
        traffic.both(judged, 19)
        traffic.both(judged, 1, **FAILED, replay="200")
    traffic.wait(judged)
    assert "errors" in failed(judged)
    assert verdict(judged, "errors").detail == "5.00% of 600, limit 1.00%"


# --- whose failure it is


@pytest.mark.parametrize("kind", ["shadow", "canary", "alone"])
@pytest.mark.parametrize("broken", [FAILED, {**NO_WORKER, "code": "gateway_failed"}, REFUSED])
def test_what_fails_with_either_version_is_not_held_against_the_new_one(kind, broken):
    judged, traffic = watch(kind), Traffic(pace=0.5)
    facts = broken | {"statuses": "500, 500", "replay": "500"} if broken != REFUSED else broken
    for _ in range(300):
        traffic.both(judged, 4)
        if kind == "shadow":
            traffic.pairs(judged, 1, old=facts, **facts)
        else:
            traffic.ask(judged, OLD, **facts)
            traffic.ask(judged, NEW, **facts)
        assert not failed(judged)
    traffic.wait(judged)
    assert {verdict(judged, "errors").value, verdict(judged, "errors over time").value} == {0.0}
    assert states(judged)["errors"] == "ok"
    assert kind == "shadow" or states(judged)["unanswered"] == "ok"


def test_one_client_that_sends_what_no_version_can_read_stops_no_release():
    """One request each two seconds, at 100 %, beside a good one: no study, all of one client."""
    judged, traffic = watch("alone"), Traffic(pace=1.0)
    for _ in range(200):
        traffic.ask(judged, NEW)
        traffic.ask(judged, NEW, **FAILED, client="broken", study="", replay="500")
        assert not failed(judged)
    assert verdict(judged, "unanswered").value == 0.0


def test_a_failure_is_the_new_versions_where_the_old_one_answers_or_was_not_asked():
    for replay in ("200", "422", ""):
        judged, traffic = watch("alone"), Traffic(pace=1.0)
        for _ in range(30):
            traffic.ask(judged, NEW, 9)
            traffic.ask(judged, NEW, **FAILED, statuses="500, 500", replay=replay)
        assert {"errors", "unanswered"} <= failed(judged)


def test_a_first_try_that_fails_counts_though_a_second_one_answers():
    judged, traffic = watch("alone"), Traffic(pace=1.0)
    for _ in range(40):
        traffic.ask(judged, NEW, 9)
        traffic.ask(judged, NEW, statuses="500, 200", tries=2, code="inference_failed")
    assert failed(judged) >= {"errors"}
    assert verdict(judged, "unanswered").value == 0.0


@pytest.mark.parametrize("kind", ["canary", "alone"])
def test_what_clients_gave_up_on_is_unanswered(kind):
    """A version that never answers: clients leave after five seconds, of all of its requests."""
    judged, traffic = watch(kind), Traffic(pace=0.8)
    gone = {"status": 499, "code": "client_left", "ms": 5000, "scores": "", "labels": ""}
    traffic.ask(judged, OLD, 40)
    traffic.both(judged, 33, **gone)
    traffic.wait(judged)
    assert "unanswered" in failed(judged)
    assert verdict(judged, "unanswered").value == 1.0
    assert judged.answered == 0


def test_clients_that_leave_at_once_say_nothing():
    judged, traffic = watch("alone"), Traffic()
    gone = {"status": 499, "code": "client_left", "ms": 300}
    traffic.ask(judged, NEW, 50, **gone)
    slow = {"status": 200, "ms": 2000}
    traffic.ask(judged, OLD, 40, **slow)
    traffic.ask(judged, NEW, 50, **gone | {"ms": 3900})  # the old one takes two seconds
    traffic.ask(judged, NEW, 50, **gone | {"ms": 9000, "waited": "0.100"})  # its body came slowly
    traffic.wait(judged)
    assert judged.studies == 0
    traffic.ask(judged, NEW, 50, **gone | {"ms": 4100})
    traffic.wait(judged)
    assert (judged.studies, verdict(judged, "unanswered").value) == (50, 1.0)


@pytest.mark.parametrize("kind", ["shadow", "canary", "alone"])
def test_what_is_refused_for_load_says_nothing(kind):
    judged, traffic = watch(kind), Traffic()
    traffic.both(judged, 100)
    busy = {"status": 503, "code": "busy", "scores": "", "labels": "", "statuses": "503, 503"}
    traffic.both(judged, 128, **busy)
    traffic.both(judged, 30)
    traffic.wait(judged)
    assert not failed(judged)
    assert verdict(judged, "errors").value == 0.0
    assert judged.load == 128


# --- the study is the unit


@pytest.mark.parametrize("kind", ["shadow", "canary", "alone"])
def test_one_study_is_one_however_many_pictures_it_has(kind):
    judged, traffic = watch(kind), Traffic(pace=0.05)
    traffic.both(judged, 100)
    traffic.both(judged, 46, study="broken", **FAILED, replay="200")  # with the new version only
    traffic.both(judged, 100)
    traffic.wait(judged)
    assert not failed(judged)
    found = verdict(judged, "errors")
    assert (found.n, found.value) == (201, pytest.approx(1 / 201))


def test_a_studys_value_is_its_share():
    judged, traffic = watch(), Traffic(pace=0.01)
    for number in range(100):
        turned = {"labels": "malignancy=other;alnm=no ALNM"} if number else {}
        traffic.pairs(judged, 1, study="one", **turned)
    traffic.wait(judged)
    flips = verdict(judged, "flips of malignancy")
    assert (flips.n, flips.value, flips.state) == (1, pytest.approx(0.99), "hold")
    # One study says nothing about a version, whichever way it is.
    assert verdict(judged, "flips of alnm").state == "hold"
    assert "judged from 20 studies on" in verdict(judged, "flips of alnm").detail
    # Some few that all flip are enough for a rollback, which says no other number.
    traffic.pairs(judged, 10, labels="malignancy=benign;alnm=ALNM")
    traffic.wait(judged)
    found = verdict(judged, "flips of alnm")
    assert found.state == "failed" and found.detail.endswith("limit 2.00%"), found


def test_later_requests_of_a_study_do_not_count_and_clients_without_one_do_each_five_seconds():
    judged, traffic = watch(), Traffic(pace=1.0)
    traffic.pairs(judged, 50, study="the same")
    assert judged.studies == 1
    judged = watch()
    traffic.pairs(judged, 50, study="")
    traffic.wait(judged)
    assert judged.studies == 10


def test_share_of_failing_studies_that_excuse():
    """As many is compared by shares with Fisher's test, in any order."""
    for new, old, state in [(3, 1, "hold"), (5, 1, "hold"), (3, 3, "ok"), (3, 6, "ok")]:
        for seed in range(5):
            judged, traffic = watch("canary"), Traffic(seed, pace=6.0)
            order = [(NEW, number < new) for number in range(100)]
            order += [(OLD, number < old) for number in range(100)]
            traffic.random.shuffle(order)
            for version, fails in order:
                traffic.ask(judged, version, **(FAILED | {"replay": "200"} if fails else {}))
            traffic.wait(judged)
            assert verdict(judged, "errors").state == state, (new, old, seed)
            excused = verdict(judged, "errors").detail.endswith("but so is the old version")
            assert excused == (state == "ok")


def test_in_the_canary_the_old_version_is_compared_on_studies_only():
    # All that have no study stay on the old one, whatever they are.
    judged, traffic = watch("canary"), Traffic(pace=2.0)
    for number in range(400):
        traffic.ask(judged, NEW, **(FAILED if number % 10 == 0 else {}))
        traffic.ask(judged, OLD, study="", **FAILED)
        traffic.ask(judged, OLD)
    assert "errors" in failed(judged)


def test_one_that_refuses_what_the_old_version_scores():
    for kind in ("shadow", "canary"):
        judged, traffic = watch(kind), Traffic()
        traffic.both(judged, 60, **REFUSED)
        traffic.wait(judged)
        assert states(judged)["errors"] == "ok"  # a refusal is no 5xx
        assert "failing against the old version" in failed(judged)


# --- times, bursts and floods


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_one_that_is_slow(kind):
    judged, traffic = watch(kind), Traffic(pace=0.5)
    traffic.both(judged, 300, ms=lambda it: int(3 * it.random.lognormvariate(3, 0.5)))
    assert "slow against the old version" in failed(judged)


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_the_times_of_one_study_are_one(kind):
    judged, traffic = watch(kind), Traffic(pace=1.0)
    traffic.both(judged, 40)
    before = verdict(judged, "slow against the old version").n
    traffic.both(judged, 200, study="large", ms=500)
    assert verdict(judged, "slow against the old version").n <= before + 1
    assert not failed(judged)


def test_a_worker_that_is_restarted_is_not_enough():
    judged, traffic = watch("canary"), Traffic(pace=0.05)
    traffic.both(judged, 50, **NO_WORKER | {"status": 200, "statuses": "503, 200", "tries": 2})
    traffic.both(judged, 200)
    traffic.both(judged, 8, code="", statuses="507, 200", tries=2)  # its batch
    traffic.both(judged, 100, ms=5000)  # five seconds
    traffic.both(judged, 200)
    traffic.wait(judged)
    assert not failed(judged)


def test_unsigned_failures_of_one_moment_are_one_and_those_with_a_code_are_all_counted():
    judged, traffic = watch(), Traffic(pace=0.01)
    traffic.pairs(judged, 50, **NO_WORKER)
    traffic.pairs(judged, 50, **FAILED)
    traffic.wait(judged)
    assert verdict(judged, "errors").n == 51


@pytest.mark.parametrize("kind", ["shadow", "canary", "alone"])
def test_a_flood_of_unsigned_failures_is_seen_however_many_requests_come(kind):
    # 100 a second, 30 % of them 503: counted once in five seconds they are 0.1 %.
    judged, traffic = watch(kind), Traffic(pace=0.01)
    for _ in range(9000 if kind != "canary" else 4500):
        fails = traffic.random.random() < 0.3
        facts = {"statuses": "503, 200", "tries": 2} if kind != "shadow" else NO_WORKER
        traffic.both(judged, 1, **({"code": "unavailable"} | facts if fails else {}))
    assert verdict(judged, "errors").value < 0.01
    flood = verdict(judged, "errors over time")
    assert (flood.state, flood.n) == ("failed", pytest.approx(17, abs=1))  # 90 s
    assert flood.value == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_a_flood_that_the_old_version_has_too_sends_none_back(kind):
    judged, traffic = watch(kind), Traffic(pace=0.01)
    for _ in range(6000):
        traffic.next()
        for version in random.Random(traffic.number).sample([OLD, NEW], 2):
            fails = traffic.random.random() < 0.3
            if kind == "shadow":
                row = traffic.row(version, **(NO_WORKER if fails else {}))
                judged.add_attempt(row)
                if version == OLD:
                    judged.add_request(row)
            else:
                traffic.number += 1
                tries = {"statuses": "503, 200", "tries": 2}
                judged.add_request(traffic.row(version, **(tries if fails else {})))
    found = verdict(judged, "errors over time")
    assert found.value == pytest.approx(0.3 if kind == "canary" else 0.21, abs=0.03)
    assert found.state == "ok"


@pytest.mark.parametrize("kind", ["shadow", "canary", "alone"])
def test_the_death_of_a_worker_is_a_window_and_does_not_hold_a_step(kind):
    judged, traffic = watch(kind), Traffic(pace=0.03125 if kind == "canary" else 0.0625)
    dying = NO_WORKER if kind == "shadow" else {"code": "", "statuses": "507, 200", "tries": 2}
    traffic.both(judged, 80)  # five seconds
    traffic.both(judged, 80, **dying)
    traffic.both(judged, 241)
    found = verdict(judged, "errors over time")
    assert (found.n, found.value, found.state) == (5, pytest.approx(0.2, abs=0.01), "ok")


@pytest.mark.parametrize("lost", [1, 12])
def test_a_node_that_dies_is_not_enough_though_another_one_answers(lost):
    """Half of the tries for two seconds, of as many studies as there are; until it is left out."""
    judged, traffic = watch("alone"), Traffic(pace=1 / lost)
    traffic.ask(judged, NEW, 20)
    for _ in range(lost):
        traffic.ask(judged, NEW, code="node_unreachable", statuses="502, 200", tries=2)
        traffic.ask(judged, NEW)
    traffic.wait(judged, 6.0)
    assert not failed(judged)
    found = verdict(judged, "errors")
    assert found.n == 20 + 1 + lost  # the failures are one
    assert found.value == pytest.approx(1 / found.n)


# --- scores


def test_flips_and_differences_by_head():
    judged, traffic = watch(max_difference=0.3), Traffic()
    traffic.pairs(judged, 100, p=lambda it: it.random.betavariate(2, 2))
    traffic.wait(judged)
    found = states(judged)
    assert found["flips of malignancy"] == "failed"
    assert found["flips of alnm"] == "ok"  # always "no ALNM"
    judged = watch()
    for _ in range(200):
        p = 0.6 + 0.2 * traffic.random.random()
        traffic.pairs(judged, 1, old={"p": p}, p=p + 0.15)
    traffic.wait(judged)
    found = states(judged)
    assert found["flips of malignancy"] == "ok"
    assert found["difference of malignancy"] == "failed"
    values = {it.guard: it.value for it in judged.verdicts()}
    assert values["difference of malignancy"] == pytest.approx(0.15)
    assert values["difference of alnm"] == pytest.approx(0.075, abs=1e-4)


def test_scores_that_have_shifted_between_arms():
    judged, traffic = watch("canary"), Traffic()
    traffic.both(judged, 300, p=lambda it: it.random.betavariate(8, 2))
    assert failed(judged) == {"shift of malignancy", "shift of alnm"}


def test_too_few_studies_hold():
    judged, traffic = watch("canary"), Traffic()
    traffic.both(judged, 19)
    assert states(judged)["shift of alnm"] == "hold"
    traffic.both(judged, 200, study="")  # without a study, nothing to be judged by
    assert states(judged)["shift of alnm"] == "hold"


# --- which rows are the step's


@pytest.mark.parametrize(("old", "state"), [(200, "failed"), (503, "ok")])
def test_requests_that_end_without_an_answer(old, state):
    judged, traffic = watch("canary"), Traffic(pace=1.0)
    for number in range(50):
        if number < 20:
            traffic.ask(judged, NEW, **NO_WORKER, replay="200")
        traffic.ask(judged, OLD, **NO_WORKER | {"status": old})
    traffic.wait(judged)
    found = verdict(judged, "unanswered")
    assert (found.state, found.n) == (state, 20)


def test_what_the_gateway_refuses_itself_is_no_request_of_the_version():
    judged, traffic = watch("alone"), Traffic()
    for status in (401, 404, 405, 413, 415, 429) * 100:
        judged.add_request(traffic.row(NEW, status=status, code="refused", tries=0))
    for status in (200, 503):
        traffic.ask(judged, NEW, status=status)
    traffic.wait(judged)
    found = verdict(judged, "unanswered")
    assert (found.n, found.value) == (2, 0.5)


@pytest.mark.parametrize("kind", ["shadow", "canary", "alone"])
def test_what_was_answered_under_an_earlier_entry_is_not_judged_whatever_the_clock_says(kind):
    judged, traffic = watch(kind, since=8), Traffic()
    traffic.both(judged, 100, **FAILED)
    traffic.wait(judged)
    assert (judged.answered, judged.studies) == (0, 0)
    traffic.now -= 600  # the clock is set back in the step
    traffic.seq = 8
    traffic.both(judged, 60, **FAILED)
    if kind == "shadow":
        judged, traffic = watch(kind, since=7), Traffic()
        traffic.pairs(judged, 20)
        traffic.now -= 600
        traffic.pairs(judged, 60, **FAILED)
    traffic.wait(judged)
    assert "errors" in failed(judged)


def test_a_replay_is_no_attempt_of_the_old_version_that_is_compared():
    judged, traffic = watch("canary"), Traffic()
    for _ in range(100):
        traffic.next()
        judged.add_attempt(traffic.row(OLD, arm="replay", p=0.99))
    assert verdict(judged, "shift of alnm").n == 0


def test_mirrored_answers_meet_in_either_order_and_after_a_second_try():
    judged, traffic = watch(), Traffic()
    traffic.number = 1
    judged.add_attempt(traffic.row(OLD, **NO_WORKER))
    judged.add_attempt(traffic.row(NEW, arm="shadow", p=0.9))
    judged.add_attempt(traffic.row(OLD, p=0.8))
    traffic.wait(judged)
    counts = {it.guard: (it.n, it.value) for it in judged.verdicts()}
    assert counts["difference of malignancy"] == (1, pytest.approx(0.1))
    assert counts["errors"] == (1, 0.0)


def test_mirrored_answers_meet_also_where_the_clock_was_set_between_them():
    judged, traffic = watch(), Traffic()
    judged.add_attempt(traffic.row(OLD, p=0.8))
    traffic.now += 3600
    judged.add_attempt(traffic.row(NEW, arm="shadow", p=0.9))
    traffic.wait(judged)
    difference = verdict(judged, "difference of malignancy")
    assert (difference.n, difference.value) == (1, pytest.approx(0.1))


def test_false_alarms_of_all_guards_together():
    # Looked at after every ten requests, of 40 steps with nothing wrong none may be sent back.
    for seed in range(40):
        judged, traffic = watch("shadow" if seed % 2 else "canary"), Traffic(seed, pace=1.0)
        for _ in range(25):
            traffic.both(judged, 10)
            assert not failed(judged)


def test_how_many_tests_share_the_level():
    assert count_tests(Policy(), HEADS) == 4 + 4 + 4 * 7 + 6
    assert watch().needed == pytest.approx(math.log(42 / 0.01))


def test_the_gateways_own_codes_are_those_of_its_configuration():
    template = (Path(render.__file__).parent / "nginx_maps.conf.j2").read_text()
    refusals = re.search(r"map \$status \$refusal \{(.*?)\}", template, re.DOTALL)[1]
    assert set(re.findall(r"\d+ (\w+);", refusals)) | {""} == OWN_CODES

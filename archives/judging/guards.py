"""The guards of a step, which roll a new version back; fed with the gateway's logs line by line.

Old and new version are compared at the same time, so what hits both (a slow network, a node that
dies, broken images) counts against neither. A failure is the new version's where the old one does
not fail the same request: in the shadow both get it, and later the gateway sends the old one what
the new one has failed. The unit of every guard is the study (the client, where none is named) with
the share of its requests, since requests of a study are alike. A request that waits behind a slow
one is not independent of it either. So times are judged by one pair a second, and failures without
a handler's code (a worker died) by one in five seconds and by the share of each five seconds. Where
the old version answers, too, the limit on failures is the larger of the policy's and the old
version's share: both must be refuted, so neither test costs the other. Refusals for load do not
count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

from archives.gateway import logs
from archives.gateway.logs import LogRow
from archives.judging.failures import BURST_MOST, Against, Bursts, Unit, Units, Windows
from archives.judging.mirrored import Half, Mirrored
from archives.judging.rollout_policy import Policy
from archives.judging.sequential import MeanTest
from archives.judging.times import Times
from archives.judging.verdicts import Verdict, of_mean, of_shift

Kind = Literal["shadow", "canary", "alone"]
"""How the new version is used: beside the old one, for a part of the studies, or for all."""

FEW_HOLD = 0.25
"""Evidence from which pairs and windows hold a step: a lone one that fails is no share, and stays
alone."""


class Watch:
    """The guards of one step, from its beginning on.

    `since` is the entry of the journal from which on rows are the step's; in a canary `percent` of
    the studies are the new version's. `old` is None where there is none (the first version ever).
    """

    def __init__(
        self,
        policy: Policy,
        kind: Kind,
        *,
        old: str | None,
        new: str,
        heads: Sequence[str],
        since: int,
        percent: float,
    ) -> None:
        self.policy, self.kind, self.heads = policy, kind, heads
        self.old, self.new, self.since = old, new, since
        self.answered = 0
        """Requests that the new version has answered with a score."""
        self.load = 0
        """Requests to it that were refused, or not mirrored, since too much was under way."""
        self.needed = math.log(count_tests(policy, heads) / policy.alpha)
        new_share = percent / 100 if kind == "canary" else 0.5
        self._errors = MeanTest(policy.max_error_rate, BURST_MOST)
        self._windows = Windows(policy.max_error_rate)
        odds = policy.max_odds_ratio
        self._failing = Against(new_share, odds)
        self._times = Times(odds, policy.slow_factor)
        self._unanswered = MeanTest(policy.max_unanswered, BURST_MOST)
        self._more_errors, self._more_unanswered = Against(new_share), Against(new_share)
        self._flips = {head: MeanTest(policy.max_flip_rate) for head in heads}
        self._differences = {head: MeanTest(policy.max_difference) for head in heads}
        self._scores: dict[str, dict[str, list[float]]] = {
            arm: {head: [] for head in heads} for arm in ("old", "new")
        }
        self._mirrored = Mirrored()
        self._units = {arm: Units(policy.study_s) for arm in ("old", "new")}
        self._bursts = {arm: Bursts() for arm in ("old", "new")}
        self._signed: set[str] = set()
        """Requests that a handler has failed. If another node answers, only an attempt shows it."""
        self._seen: dict[str, set[str]] = {"old": set(), "new": set()}

    @property
    def studies(self) -> int:
        """Studies (clients, where none is named) of the new version that are judged by now."""
        return self._units["new"].closed

    def add_request(self, row: LogRow) -> None:
        """Take a line of requests.jsonl."""
        if logs.seq(row) < self.since or not logs.was_tried(row):
            return
        self._close(row["t"])
        if self.kind == "shadow":
            if row["version"] == self.old:
                self._mirror("request", row)
            return
        arm = self._arm(row)
        if arm is None:
            return
        if logs.is_load(row):
            self.load += arm == "new"
            return
        if arm == "new":
            self.answered += row["status"] == 200
        gave_up = row["status"] == 499
        if gave_up and logs.waited_ms(row) < self._times.patience_ms:
            return
        signed = row["id"] in self._signed or logs.is_signed_failure(row)
        self._signed.discard(row["id"])
        if unit := self._units[arm].take(row):
            ended = gave_up or row["status"] >= 500
            failed = ended or logs.failed_tries(row) > 0
            # What both fail says nothing: one broken client would hide all else.
            if not (ended and logs.other_fails_too(row)):
                self._count(arm, unit, row, failed, ended, signed)

    def add_attempt(self, row: LogRow) -> None:
        """Take a line of attempts.jsonl."""
        if row["arm"] == "replay":
            return  # the old version, asked what the new one has failed
        if row["version"] == self.old and row["status"] == 200:
            self._times.add_old(row["ms"])
        if logs.seq(row) < self.since:
            return
        if self.kind == "shadow":
            if row["version"] == self.new:
                self._mirror("new", row)
            elif row["version"] == self.old:
                self._mirror("old", row)
            return
        if logs.is_signed_failure(row):
            self._signed.add(row["id"])
        if self.kind == "canary" and (arm := self._arm(row)):
            self._collect(arm, row)

    def verdicts(self) -> list[Verdict]:
        """What all guards of this step say by now."""
        policy = self.policy
        alone = self.kind == "alone"  # nothing answers at the same time
        errors, unanswered = (None, None) if alone else (self._more_errors, self._more_unanswered)
        rate = partial(of_mean, needed=self.needed)
        limit = policy.max_error_rate
        found = [
            rate("errors", self._errors, limit, against=errors),
            rate(
                "errors over time", self._windows.test, limit, against=errors, holds_from=FEW_HOLD
            ),
        ]
        if self.kind != "shadow":
            found += [
                rate("unanswered", self._unanswered, policy.max_unanswered, against=unanswered)
            ]
        if alone:
            return found
        found += [
            rate(f"{what} against the old version", test, test.limit, holds_from=FEW_HOLD)
            for what, test in (("failing", self._failing.test), ("slow", self._times.test))
        ]
        if self.kind == "shadow":
            for head in self.heads:
                for what, test in (
                    ("flips", self._flips[head]),
                    ("difference", self._differences[head]),
                ):
                    name = f"{what} of {head}"
                    found.append(rate(name, test, test.limit, at_least=policy.min_studies))
            return found
        scores = self._scores
        for head in self.heads:
            both = scores["old"][head], scores["new"][head]
            found.append(of_shift(f"shift of {head}", *both, policy.max_shift, self.needed))
        return found

    # --- counting

    def _arm(self, row: LogRow) -> Literal["old", "new"] | None:
        """The version of a row, where chance or the step has sent it there: in a canary a study."""
        if row["version"] == self.new:
            return "new"
        compares = self.kind == "canary" and row["version"] == self.old and row["study"]
        return "old" if compares else None

    def _count(
        self, arm: str, unit: Unit, row: LogRow, failed: bool, ended: bool, signed: bool
    ) -> None:
        """Take what a version made of a request; `ended`: without an answer."""
        if arm == "new":
            self._windows.add(row["t"], float(failed))
        unit.add("unanswered", float(ended))
        if failed and not self._bursts[arm].is_news(row["t"], signed=signed):
            return
        unit.add("errors", float(failed))
        unit.add("not ok", float(row["status"] != 200))

    def _mirror(self, half: Half, row: LogRow) -> None:
        """Take a half of a mirrored request, and both answers once they are there."""
        answers = self._mirrored.take(half, row)
        self.load = self._mirrored.not_mirrored
        if answers is None:
            return
        new, old = answers
        self._close(new["t"])
        self.answered += new["status"] == 200
        unit = self._units["new"].take(new)
        if unit is None:
            return
        if not unit.values:
            self._times.compare(new, old)
        failed, old_failed = new["status"] >= 500, old["status"] >= 500
        if failed and old_failed:
            return
        self._windows.add(new["t"], float(failed))
        news = [
            not fails or self._bursts[arm].is_news(row["t"], signed=logs.is_signed_failure(row))
            for arm, row, fails in (("new", new, failed), ("old", old, old_failed))
        ]
        if not all(news):
            return
        unit.add("errors", float(failed))
        unit.add("old errors", float(old_failed))
        unit.add("not ok", float(new["status"] != 200))
        unit.add("old not ok", float(old["status"] != 200))
        if failed or old_failed:
            return
        a, b = logs.labels(new), logs.labels(old)
        x, y = logs.scores(new), logs.scores(old)
        if a or b:  # not refused by both
            for head in self.heads:
                unit.add(f"flips {head}", float(a.get(head) != b.get(head)))
                if head in x and head in y:
                    unit.add(f"difference {head}", abs(x[head] - y[head]))

    def _collect(self, arm: Literal["old", "new"], row: LogRow) -> None:
        """Take an attempt of a canary: times and scores by the first of each study."""
        if not row["study"] or row["study"] in self._seen[arm] or logs.is_load(row):
            return
        self._seen[arm].add(row["study"])
        self._times.pair(arm, row)
        for head, score in logs.scores(row).items():
            if head in self._scores[arm]:
                self._scores[arm][head].append(score)

    # --- judging

    def _close(self, t: float) -> None:
        """Judge the studies whose time is over."""
        for unit in self._units["old"].over(t):
            self._more_errors.add(None, unit.share("errors"))
            self._more_unanswered.add(None, unit.share("unanswered"))
            self._failing.add(None, unit.share("not ok"))
        for unit in self._units["new"].over(t):
            self._judge(unit)

    def _judge(self, unit: Unit) -> None:
        for what, test in (("errors", self._errors), ("unanswered", self._unanswered)):
            if (share := unit.share(what)) is not None:
                test.add(share)
        self._more_errors.add(unit.share("errors"), unit.share("old errors"))  # of a shadow
        self._more_unanswered.add(unit.share("unanswered"), None)
        self._failing.add(unit.share("not ok"), unit.share("old not ok"))
        for head in self.heads:
            for what, tests in (("flips", self._flips), ("difference", self._differences)):
                if (share := unit.share(f"{what} {head}")) is not None:
                    tests[head].add(share)


def count_tests(policy: Policy, heads: Sequence[str]) -> int:
    """How many tests a rollout makes, among which `alpha` is shared out.

    Shadow: errors, the same over time, failing, slow, and two a head; each canary step: those four,
    unanswered and one a head; at 100 %, and from default to keep, alone: errors, the same over
    time, unanswered.
    """
    return 4 + 2 * len(heads) + (len(policy.canary) - 1) * (5 + len(heads)) + 2 * 3

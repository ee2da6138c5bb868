"""From one version to the next under live traffic, step by step, and back where a guard says so.

    verify -> register -> shadow -> canary 1 % ... 100 % -> default -> drain -> keep -> retire
                 |___________|______________|___________________________|
                                            v
                                rollback -> withdraw

A step is an entry in the journal, which the gateway obeys, and then acts at the nodes that can be
done twice. Whoever is killed in the middle and started again finds the step in the journal, does
its acts again and goes on; guards are fed again from the gateway's logs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from archives.judging.journal_facts import kind_of, named_archives, step_entry
from archives.judging.step_log import StepView, answered_by
from archives.nodes.nodes import Node
from archives.nodes.nodes_file import read_nodes
from archives.nodes.stores import remove_old
from archives.rollout import nodes, traffic_permit
from archives.rollout.nodes import Refused
from archives.rollout.waiting import BACK, Waiting
from archives.state import clock, control
from archives.state.journal import Desired, Journal

POLL_S = 0.25
RETRY_S = 2.0


class Rollout(Waiting):
    """Goes on with the rollout that the journal says is under way; inside `journal.lock()`."""

    def __init__(self, journal: Journal, *, step_by_step: bool = False) -> None:
        super().__init__(journal)
        self.step_by_step = step_by_step
        self.nodes = [Node(node, self.state / "archives") for node in read_nodes(self.facts.nodes)]

    def run(self) -> bool:
        """Go on to the end; True: the new version serves, False: it was rolled back."""
        while (desired := self.desired()).rollout:
            try:
                done = getattr(self, f"_{desired.step.split()[0]}")()
                if desired.step not in BACK:
                    self._enter_next(desired.step, (done or {}) | self._held())
            except Refused as refused:
                self._roll_back(desired, refused)
        return desired.stable == self.facts.new

    # --- the steps; each can be done twice. What they return goes into the next journal entry.

    def _verify(self) -> None:
        self._beside(lambda: nodes.verify(self.state / "archives" / self.facts.new.file))

    def _register(self) -> dict[str, Any]:
        began = time.monotonic()
        while True:
            found = {}
            for node in self.nodes:
                if self._beside(partial(nodes.is_there, node)):
                    self._report(f"node {node.name}: registering {self.facts.new.version}")
                    prove = partial(nodes.register_and_prove, node, self.facts.model)
                    tolerance = self.facts.policy.golden_tolerance
                    found[node.name] = self._beside(partial(prove, self.facts.new, tolerance))
            absent = [node.name for node in self.nodes if found.get(node.name) is None]
            if len(absent) < len(self.nodes):
                break
            self._give_up(began, f"a node to serve {self.facts.new.version}: check the nodes")
            self._report("no node answers; trying again")
            self._beside(partial(time.sleep, RETRY_S))
            self._wait(
                lambda: any(nodes.is_there(node) for node in self.nodes),
                "a node to answer: check the nodes",
            )
        if absent:
            self._report(f"absent: {', '.join(absent)}; the gateway registers it later")
        return {"golden_difference": found, "absent": absent}

    def _default(self) -> dict[str, Any]:
        self._wait_applied()
        return self._set_default(self.facts.new.version)

    def _drain(self) -> None:
        # The gateway says that it has applied an entry when nothing that it had begun before is
        # under way any more: neither in its queue nor at a node.
        self._wait_applied()

    def _retire(self) -> dict[str, Any]:
        assert self.facts.old
        return self._unregister(self.facts.old.version, stays=self.facts.new.version)

    def _rollback(self) -> None:
        new, old = self.facts.new, self.facts.old
        facts: dict[str, Any] = {}
        if new in self.desired().serves:  # else no client has met it
            self._wait_applied()
            if old:
                facts = self._set_default(old.version)
        self.journal.append(
            "withdraw", rollout=self.facts.rollout, step="withdraw", candidate=None,
            serves=[old] if old else [], **facts,
        )  # fmt: skip

    def _withdraw(self) -> None:
        new, old = self.facts.new.version, self.facts.old
        entries = self.journal.entries()
        back = next(entry for entry in reversed(entries) if entry.event == "rollback")
        known = back.facts["at"] not in ("verify", "register")
        facts = self._unregister(new, stays=old.version if old else None, known=known)
        seconds = round(clock.elapsed(back), 1)
        exposed = answered_by(self.state, new, self.facts.since)
        self.journal.append(
            "rolled_back", rollout=None, step="idle", exposed=exposed, seconds=seconds, **facts
        )
        self._report(
            f"rolled back in {seconds} s; {new} had answered {exposed} requests of clients; "
            f"reason: {back.facts['said']}"
        )
        self._remove_old()

    def _set_default(self, version: str) -> dict[str, Any]:
        model = self.facts.model
        return self._at_nodes(lambda node: node.set_default(model, version), f"default {version}")

    def _unregister(self, version: str, *, stays: str | None, known: bool = True) -> dict[str, Any]:
        """Take a version off all nodes; `known`: the journal had the gateway serve it."""
        if known:
            self._wait_applied()  # else it would bring the version back
        act = partial(nodes.unregister, model=self.facts.model, version=version, instead=stays)
        return self._at_nodes(act, f"unregister {version}")

    def _at_nodes(self, act: Callable[[Node], object], what: str) -> dict[str, Any]:
        """Do it at every node; facts for the next journal entry about those that have not done it.

        The gateway brings them in line: when they come back, or when the rollout has ended.
        """
        failed = [
            node.name for node in self.nodes if not self._beside(partial(nodes.do, node, act))
        ]
        if not failed:
            return {}
        not_done = f"not done by {', '.join(failed)}: {what}; the gateway will do it later"
        self._report(not_done)
        return {"not_done": not_done}

    # --- from step to step

    def _enter_next(self, step: str, found: dict[str, Any]) -> None:
        facts = self.facts
        following = [*facts.steps, None][facts.steps.index(step) + 1]
        serves = [facts.old, facts.new] if facts.old else [facts.new]
        changes: dict[str, Any] = {"step": following}
        match following.split() if following else []:
            case ["shadow"]:
                changes |= {"serves": serves, "shadow_percent": facts.policy.shadow_percent}
            case ["canary", percent, _]:
                changes |= {"percent": float(percent), "shadow_percent": 0.0}
            case ["default"]:
                changes |= {"stable": facts.new, "candidate": None, "percent": 0.0}
                changes |= {"serves": serves}
            case ["retire"]:
                changes |= {"serves": [facts.new]}
            case []:
                changes = {"step": "idle", "paused": False}
        event = following.split()[0] if following else "done"
        if event in ("canary", "default"):
            traffic_permit.grant(self.state)
        changes |= found
        self.journal.append(
            event, rollout=facts.rollout if following else None, after=step, **changes
        )
        self._report(f"{following or 'done: ' + facts.new.version + ' serves'}")
        if following is None:
            self._remove_old()

    def _remove_old(self) -> None:
        """Keep of the archives here what is served, and what was before it."""
        try:
            old = remove_old(self.state / "archives", *named_archives(self.journal.entries()))
        except OSError as error:
            self._report(f"old archives stay in {self.state / 'archives'} ({error.strerror})")
        else:
            if old:
                self._report(f"removed from {self.state / 'archives'}: {', '.join(old)}")

    def _roll_back(self, desired: Desired, refused: Refused) -> None:
        old, new = self.facts.old, self.facts.new
        traffic_permit.take_back(self.state)  # at once, also where the disk is full
        entry = partial(
            self.journal.append, "rollback", rollout=self.facts.rollout, step="rollback",
            percent=0.0, shadow_percent=0.0, paused=False, stable=old,
            candidate=new if old else None, guard=refused.guard, said=refused.reason,
            at=desired.step, **refused.more,
        )  # fmt: skip
        traffic_permit.retry_while_full(self.state, entry, self._report)
        control.clear(self.state)
        self._report(f"ROLLBACK at {desired.step}, {refused.guard}: {refused.reason}")

    def _judge(self) -> dict[str, Any]:
        """Watch the step until it is judged good; raises Refused where a guard says so."""
        facts, policy = self.facts, self.facts.policy
        desired = self.desired()
        step = step_entry(self.journal.entries())
        kind = kind_of(desired)
        assert kind
        keep = desired.step == "keep"
        least = policy.keep_warm_s if keep else policy.min_step_s
        view = StepView(self.state, facts, kind, step)
        reported = ""
        began = time.monotonic()
        while True:
            verdicts = view.verdicts()
            for verdict in verdicts:
                if verdict.state == "failed":
                    found = [asdict(it) for it in verdicts]
                    raise Refused(verdict.guard, verdict.detail, verdicts=found)
            self._wait_for_disk(clients=kind != "shadow")
            elapsed = clock.elapsed(step)
            reason = view.lacking(verdicts)
            if nodes.applied(self.state) < step.seq:
                reason = f"the gateway has not applied journal entry {step.seq} yet"
                self._give_up(began, f"the gateway to apply entry {step.seq}: check that it runs")
            judged = {"judged": [str(it) for it in verdicts]}
            if self._control() == "promote":
                return judged | self._by_hand(f" ({reason})" if reason else "")
            lacking = bool(reason)
            if not lacking and elapsed < least:
                reason = f"the step takes {least:g} s at least"
            elif not lacking and self.step_by_step:
                reason = "all guards hold; continue with `sonode rollout promote`"
            paused = self.desired().paused
            if not (reason or paused):
                return judged | {"why": "all guards hold"}
            resumed = [it for it in self.journal.entries() if it.event == "resume"][-1:]
            waited = min([elapsed, *map(clock.elapsed, resumed)])
            if lacking and not (keep or paused) and waited > least + policy.step_timeout_s:
                self.journal.append("pause", rollout=facts.rollout, paused=True, why=reason)
                self._report(f"paused after {waited:.0f} s ({reason}): promote, resume or abort")
            # Reported when the reason changes, not at each new number.
            elif (now := re.sub(r"[\d.]+", "", f"{paused} {reason}")) != reported:
                reported = now
                self._report((("paused; " if paused else "") + reason).removesuffix("; "))
            time.sleep(POLL_S)

    _shadow = _canary = _keep = _judge

    def _wait_for_disk(self, *, clients: bool) -> None:
        """Where the disk is full nothing is logged or judged: then the old version answers all."""
        if not (why := traffic_permit.disk_fault(self.state)):
            # A command before this one may have ended while there was none.
            if clients and not traffic_permit.granted(self.state):
                traffic_permit.grant(self.state)
            return
        traffic_permit.take_back(self.state)
        self._report(f"{why}: guards cannot judge; the old version answers until space is freed")
        while traffic_permit.disk_fault(self.state):
            self._control()
            time.sleep(RETRY_S)
        if clients:
            traffic_permit.grant(self.state)
        self.journal.append(
            "disk_space", rollout=self.facts.rollout, why=f"disk space again; {why}"
        )
        self._report("disk space again; going on")
